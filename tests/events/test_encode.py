"""What is accepted and what is refused, and the bytes that are made of it."""

from __future__ import annotations

import json
import math
import random
import uuid
from collections import UserDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from drift_async import InputError
from drift_async.core.strict_json import loads
from drift_async.events import encode
from drift_async.events.encode import (
    IDENTIFY,
    MAX_EVENT,
    SAFE,
    TRACK,
    HitIds,
    encode_event,
    encode_hit,
    iso,
    milliseconds,
)

NOON = datetime(2024, 1, 5, 12, 30, 0, 123_000, tzinfo=UTC)


class Plan(Enum):
    PRO = "pro"


class Odd(Enum):
    """Members that are no words."""

    NONE = None
    MAP = {"a": 1}  # noqa: RUF012
    TUPLE = (1, 2)
    LARGE = SAFE + 1
    HUGE = 2**70
    WHEN = NOON
    PLAN = Plan.PRO


@pytest.fixture(params=["orjson", "json"], autouse=True)
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both writers make the same verdicts."""
    if request.param == "json":
        monkeypatch.setattr(encode, "encode", encode._encode)
    else:
        pytest.importorskip("orjson")


def track(
    event: Any = "Signed up",
    user_id: Any = "u7",
    company_id: Any = None,
    attributes: Any = None,
) -> Any:
    return json.loads(encode_event(TRACK, 7, event, user_id, company_id, attributes, NOON).body)


def hit(event: Any = None, user_id: Any = "u7", anonymous_id: Any = None, **more: Any) -> Any:
    more = {"context": None, "integrations": None, **more}
    event = {"name": "x"} if event is None else event
    return json.loads(encode_hit(event, user_id, anonymous_id, "h1", "2024-01-05", **more).body)


def test_a_track_has_the_documented_fields() -> None:
    assert track(attributes={"plan": "pro", "seats": 3, "rate": 0.5, "trial": False}) == {
        "orgId": 7,
        "userId": "u7",
        "event": "Signed up",
        "createdAt": 1_704_457_800_123,
        "attributes": {"plan": "pro", "seats": 3, "rate": 0.5, "trial": False},
    }
    assert track(user_id=None, company_id=12)["companyId"] == 12


def test_an_identify_has_the_documented_fields() -> None:
    body = encode_event(IDENTIFY, 7, None, 12, None, {"email": "ada@example.com"}, NOON).body
    assert json.loads(body) == {
        "orgId": 7,
        "userId": 12,
        "createdAt": 1_704_457_800_123,
        "attributes": {"email": "ada@example.com"},
    }


def test_what_is_not_plain_is_converted() -> None:
    class Text(str):
        __slots__ = ()

    class Number(int):
        pass

    given = {"at": NOON, "plan": Plan.PRO, Text("text"): Text("t"), "number": Number(3)}
    given |= {"when": Odd.WHEN, "nested": Odd.PLAN}
    wanted = {"at": 1_704_457_800_123, "plan": "pro", "text": "t", "number": 3}
    wanted |= {"when": 1_704_457_800_123, "nested": "pro"}
    assert track(attributes=given)["attributes"] == wanted
    assert track(attributes=UserDict(given))["attributes"] == wanted


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"user_id": None}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": " \t"}, "user_id"),
        ({"user_id": "x" * 1025}, "user_id"),
        ({"user_id": -1}, "user_id"),
        ({"user_id": SAFE + 1}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"user_id": 1.5}, "user_id"),
        ({"user_id": b"u"}, "user_id"),
        ({"user_id": "\ud800"}, "user_id"),
        ({"company_id": "c"}, "company_id"),
        ({"user_id": None, "company_id": ""}, "company_id"),
        ({"event": ""}, "event"),
        ({"event": "   "}, "event"),
        ({"event": None}, "event"),
        ({"event": "x" * 1025}, "event"),
        ({"event": "page viewed"}, "event"),
        ({"event": "pageview"}, "event"),
        ({"event": "a\udfff"}, "event"),
        ({"attributes": []}, "attributes"),
        ({"attributes": {1: "x"}}, "attributes"),
        ({"attributes": {"a": None}}, "attributes.a"),
        ({"attributes": {"a": [1]}}, "attributes.a"),
        ({"attributes": {"a": {"b": 1}}}, "attributes.a"),
        ({"attributes": {"a": ()}}, "attributes.a"),
        ({"attributes": {"a": {1}}}, "attributes.a"),
        ({"attributes": {"a": math.nan}}, "attributes.a"),
        ({"attributes": {"a": -math.inf}}, "attributes.a"),
        ({"attributes": {"a": SAFE + 1}}, "attributes.a"),
        ({"attributes": {"a": -SAFE - 1}}, "attributes.a"),
        ({"attributes": {"a": Decimal(1)}}, "attributes.a"),
        ({"attributes": {"a": b"x"}}, "attributes.a"),
        ({"attributes": {"a": datetime(2024, 1, 5)}}, "attributes.a"),  # noqa: DTZ001
        ({"attributes": {"a": "\ud800"}}, "attributes.a"),
        ({"attributes": {"a": Odd.NONE}}, "attributes.a"),
        ({"attributes": {"a": Odd.MAP}}, "attributes.a"),
        ({"attributes": {"a": Odd.TUPLE}}, "attributes.a"),
        ({"attributes": {"a": Odd.LARGE}}, "attributes.a"),
        ({"attributes": {"a": Odd.HUGE}}, "attributes.a"),
        ({"attributes": {"\ud800": 1}}, "attributes"),
    ],
)
def test_what_is_refused_names_the_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        track(**given)
    assert caught.value.field.startswith(field)


@pytest.mark.parametrize("name", ["Page viewed", "PAGE", "homepage", "p"])
def test_names_that_only_look_reserved_are_taken(name: str) -> None:
    assert track(name)["event"] == name


@pytest.mark.parametrize("edge", [SAFE, -SAFE, 0, 0.1, -1e300, True, ""])
def test_values_at_the_edge_arrive_as_they_are(edge: Any) -> None:
    assert track(attributes={"a": edge})["attributes"]["a"] == edge


def test_a_hit_has_the_ids_under_the_user() -> None:
    assert hit({"name": "x", "user": {"firstName": "Ada"}}, anonymous_id="a1") == {
        "hitId": "h1",
        "sentAt": "2024-01-05",
        "event": {
            "name": "x",
            "user": {"firstName": "Ada", "userId": "u7", "anonymousId": "a1"},
        },
    }
    own = {"name": "x", "user": {"userId": "u9"}}
    assert hit(own, user_id=None)["event"] == own


def test_a_hit_is_free_in_form() -> None:
    lines = [{"product": {"price": 25.5, "sold": NOON}}, None, (1, "2")]
    event = hit({"transaction": UserDict(lineItems=lines)}, context={"ip": "192.0.2.7"})
    assert event["event"]["transaction"]["lineItems"] == [
        {"product": {"price": 25.5, "sold": "2024-01-05T12:30:00.123Z"}},
        None,
        [1, "2"],
    ]
    assert event["context"] == {"ip": "192.0.2.7"}
    odd = hit({"a": [Odd.NONE, Odd.MAP, Odd.TUPLE, Odd.WHEN, Odd.PLAN]})["event"]["a"]
    assert odd == [None, {"a": 1}, [1, 2], "2024-01-05T12:30:00.123Z", "pro"]
    assert hit(integrations={"GA": {"clientId": "1"}})["integrations"]["GA"] == {"clientId": "1"}


NESTED: dict[str, Any] = {}
for _ in range(80):
    NESTED = {"a": NESTED}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"user_id": None}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"anonymous_id": 7}, "anonymous_id"),
        ({"event": "Signed up"}, "event"),
        ({"event": {"user": "u7"}}, "event.user"),
        ({"event": {"user": {"userId": 7}}, "user_id": None}, "event.user.userId"),
        ({"event": {"user": {"userId": "other"}}}, "user_id"),
        ({"event": {"a": [{"b": math.inf}]}}, "event.a[0].b"),
        ({"event": {"a": [SAFE + 1]}}, "event.a[0]"),
        ({"event": {"a": {1: 2}}}, "event.a"),
        ({"event": {"a": {1, 2}}}, "event.a"),
        ({"event": {"a": datetime(2024, 1, 5)}}, "event.a"),  # noqa: DTZ001
        ({"event": NESTED}, "event.a"),
        ({"event": {"a": "\ud800"}}, "event.a"),
        ({"event": {"a": Odd.LARGE}}, "event.a"),
        ({"event": {"a": [Odd.HUGE]}}, "event.a[0]"),
        ({"context": []}, "context"),
        ({"integrations": "x"}, "integrations"),
    ],
)
def test_a_hit_that_is_refused_names_the_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        hit(**given)
    assert caught.value.field.startswith(field)


PLANTED = ["ada@example.com", "+49 30 1234567", "Ada Lovelace", "DE89 3704 0044"]


def test_the_size_is_that_of_the_encoded_bytes_and_the_error_holds_nothing_of_them() -> None:
    body = encode_hit({"name": ""}, "u7", None, "h1", "2024-01-05", None, None).body
    fits = "é" * ((MAX_EVENT - len(body)) // 2) + "x" * ((MAX_EVENT - len(body)) % 2)
    body = encode_hit({"name": fits}, "u7", None, "h1", "2024-01-05", None, None).body
    assert len(body) == MAX_EVENT == 65_536
    with pytest.raises(InputError) as caught:
        encode_hit({"name": fits + "x"}, "u7", None, "h1", "2024-01-05", None, None)
    assert "65537" in str(caught.value)
    assert "65536" in str(caught.value)
    with pytest.raises(InputError) as caught:
        track(attributes={planted: planted * 4_000 for planted in PLANTED})
    assert not [planted for planted in PLANTED if planted in str(caught.value)]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
anything = st.recursive(
    scalars | st.datetimes() | st.characters(categories=["Cs"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), anything, max_size=5))
@example({"a": math.nan})
def test_any_event_is_refused_by_name_or_reads_back_equal(event: dict[str, Any]) -> None:
    event.pop("user", None)
    try:
        body = encode_hit(event, "u7", None, "h1", "2024-01-05", None, None).body
    except InputError as error:
        refused, got = error.field, None
    else:
        refused, got = "", json.loads(body)["event"]
        assert json.loads(body) == loads(body)
    assert refused.startswith("event") or got == {**event, "user": {"userId": "u7"}}


@given(st.dictionaries(st.text() | st.integers(), anything, max_size=5))
def test_any_attributes_are_refused_by_name_or_read_back_equal(attributes: dict[Any, Any]) -> None:
    try:
        refused, got = "", track(attributes=attributes)["attributes"]
    except InputError as error:
        refused, got = error.field, None
    assert refused.startswith("attributes") or got == attributes


def test_the_key_is_the_users_whatever_the_type() -> None:
    def key(user_id: Any, event: str = "x") -> int:
        return encode_event(TRACK, 7, event, user_id, None, None, None).key

    assert key(7) == key("7", "y") == encode_event(IDENTIFY, 7, None, 7, None, None, None).key
    assert key("8") != key("7")


def test_times_are_milliseconds_or_iso() -> None:
    east = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert milliseconds("created_at", east) == 1_704_457_800_123
    assert iso("sent_at", east) == "2024-01-05T12:30:00.123Z"
    for naive in (datetime(2024, 1, 5), datetime(1969, 1, 1, tzinfo=UTC)):  # noqa: DTZ001
        with pytest.raises(InputError):
            milliseconds("created_at", naive)
    early = datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))
    late = datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))
    for beyond in (early, late):
        with pytest.raises(InputError, match="sent_at"):
            iso("sent_at", beyond)


def test_hit_ids_are_uuids_of_version_1_without_a_hardware_address() -> None:
    ids, others = HitIds(), HitIds()
    now = 1_704_457_800_123_456_789
    made = [ids.make(now + random.randrange(-500, 500)) for _ in range(1000)]
    assert len(set(made)) == 1000
    assert not set(made) & {others.make(now) for _ in range(1000)}
    read = uuid.UUID(made[0])
    assert (read.version, read.variant) == (1, uuid.RFC_4122)
    assert abs((read.time - 0x01B21DD213814000) * 100 - now) < 1000
    assert read.node >> 40 & 1
