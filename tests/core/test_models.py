"""The models: every documented payload, what is beside the documentation, and what is wrong."""

from __future__ import annotations

import contextlib
import copy
import gc
import json
import pickle
import subprocess
import sys
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar, cast, get_args, get_origin

import attrs
import pytest
from hypothesis import given, strategies as st

from drift_async.core.converter import StructureError, structure
from drift_async.core.models import FrozenMap, Model, OpenEnum, from_json, to_json
from drift_async.core.request import Endpoint
from drift_async.errors import DecodeError, InputError
from drift_async.resources import (
    accounts,
    app,
    contacts,
    conversations,
    gdpr,
    playbooks,
    reports,
    scim,
    teams,
    users,
)
from drift_async.resources.attributes import ContactAttributes
from drift_async.resources.contacts import Contact
from drift_async.resources.messages import Message, Transcript
from drift_async.webhooks import events, payloads
from tests.support.models import MOMENT, PERSONAL, fields, good, payload, reply, unknown_fields

T = TypeVar("T")

pytestmark = pytest.mark.smoke


DOCUMENTED: list[tuple[str, Endpoint[Any], str]] = [
    # payload, row, keys that lead to the value
    ("account_response", accounts.CREATE, "data"),
    ("account_response", accounts.GET, "data"),
    ("account_response", accounts.UPDATE, "data"),
    ("extended_accounts", accounts.ALL, "data accounts"),
    ("contact_create_response", contacts.CREATE, "data"),
    ("contact_get_response", contacts.GET, "data"),
    ("contact_update_response", contacts.UPDATE, "data"),
    ("contact_update_response", contacts.UPDATE_BY_EXTERNAL_ID, "data"),
    ("contact_model", contacts.GET, ""),
    ("contact_model_older", contacts.GET, ""),
    ("extended_contact", contacts.GET, "data"),
    ("contact_attributes_response", contacts.ATTRIBUTES, "data properties"),
    ("extended_timeline", contacts.ADD_TIMELINE_EVENT, "data"),
    ("user_model", users.GET, ""),
    ("user_model", users.UPDATE, ""),
    ("extended_users_by_id", users.GET_MANY, "data"),
    ("extended_meetings", users.MEETINGS, "data"),
    ("conversation_get_response", conversations.GET, "data"),
    ("extended_conversation", conversations.GET, "data"),
    ("conversation_new_response", conversations.CREATE, ""),
    ("conversation_new_response_updated", conversations.CREATE, ""),
    ("conversations_list_links", conversations.ALL, "data"),
    ("conversations_list_pagination", conversations.ALL, "data"),
    ("extended_stats", conversations.STATS, ""),
    ("message_create_response", conversations.CREATE_MESSAGE, "data"),
    ("message_create_response_list", conversations.MESSAGES, "data messages"),
    ("extended_messages", conversations.MESSAGES, "data messages"),
    ("playbooks_list", playbooks.ALL, ""),
    ("extended_landing_pages", playbooks.LANDING_PAGES, ""),
    ("extended_teams", teams.ALL, "data"),
    ("extended_teams", teams.OF_USER, "data"),
    ("extended_token_info", app.TOKEN_INFO, ""),
    ("extended_gdpr_retrieve", gdpr.RETRIEVE, "data"),
    ("gdpr_delete_response", gdpr.DELETE, "data"),
    ("scim_user_schema", scim.CREATE, ""),
    ("scim_provision_rbac_request", scim.CREATE, ""),
    ("extended_scim_users", scim.ALL, "Resources"),
    ("extended_report", reports.CONVERSATIONS, ""),
]


def written(value: Any) -> Any:
    """Return what a row gave as JSON."""
    if isinstance(value, list):
        return [to_json(item) for item in value]
    return {k: to_json(v) for k, v in value.items()} if type(value) is dict else to_json(value)


@pytest.mark.parametrize(("name", "row", "keys"), DOCUMENTED)
def test_a_payload_decodes_whole_and_is_written_back_as_it_came(
    name: str, row: Endpoint[Any], keys: str
) -> None:
    value = part = payload(name)
    for key in keys.split():
        part = part[key]
    result = row.parse(reply(value))
    assert list(unknown_fields(result)) == []
    assert written(result) == part


GROUPS = (accounts, app, contacts, conversations, gdpr, playbooks, reports, scim, teams, users)
LIKE_ANOTHER = (
    contacts.FIND_BY_EMAIL,
    contacts.FIND_BY_EXTERNAL_ID,
    conversations.JSON_TRANSCRIPT,
    users.ALL,
    scim.GET,
    scim.REPLACE,
    scim.UPDATE,
)
ROWS = [row for group in GROUPS for row in vars(group).values() if isinstance(row, Endpoint)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_that_returns_a_model_has_a_payload(row: Endpoint[Any]) -> None:
    shown = (*(row for _, row, _ in DOCUMENTED), *LIKE_ANOTHER)
    assert row in shown or row.envelope in ("ok", "text", "bytes", "none")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_that_must_not_be_repeated_says_how_to_settle_it(row: Endpoint[Any]) -> None:
    assert row.effect != "once" or row.settle != "read it back"


@pytest.mark.parametrize(
    "row", [contacts.DELETE, contacts.UNSUBSCRIBE, accounts.DELETE, app.UNINSTALL]
)
def test_an_ok_reply_gives_nothing(row: Endpoint[Any]) -> None:
    assert row.parse(reply(payload("simple_ok_response"))) is None


def test_the_message_may_come_as_the_last_of_a_list() -> None:
    message = conversations.CREATE_MESSAGE.parse(reply(payload("message_create_response_list")))
    assert message.id == 12367319626
    with pytest.raises(DecodeError):
        conversations.CREATE_MESSAGE.parse(reply({"data": {"messages": []}}))


def test_a_search_without_results_may_leave_the_resources_out() -> None:
    assert scim.ALL.parse(reply({"totalResults": 0})) == []
    with pytest.raises(DecodeError, match="Resources"):
        scim.ALL.parse(reply({"totalResults": 1}))


# Any model


def below(kind: type[Any]) -> Iterator[type[Any]]:
    child: type[Any]
    for child in kind.__subclasses__():
        # attrs makes slotted classes anew; the first makings linger.
        if getattr(sys.modules[child.__module__], child.__name__, None) is child:
            yield child
        yield from below(child)


def ours(kind: type[T]) -> list[type[T]]:
    here = ("drift_async.resources", "drift_async.webhooks")
    found: list[type[T]] = [child for child in below(kind) if child.__module__.startswith(here)]
    return sorted(found, key=lambda child: child.__name__)


MODELS = ours(Model)
WORDS = ours(OpenEnum)

# Of each JSON type some, among them what looks like another.
JUNK: tuple[Any, ...] = (
    *("", "1", "1.5", "1e5", "true", "null", "NaN", "2022-09-30", "[]"),
    *(0, 1, -1, 2**53 + 1, 2**63, 10**30),
    *(0.0, 1.0, -0.0, 1.5, 1e300, True, False),
    *([], [1], ["x"], [None], [[]], {}, {"key": 1}, {"key": None}, {"id": "x"}),
)


def fits(kind: Any, value: Any) -> bool:
    """Tell whether a JSON value is of that type, to the letter."""
    if kind is Any:
        return True
    if get_origin(kind) is tuple:
        return type(value) is list and all(fits(get_args(kind)[0], item) for item in value)
    if get_origin(kind) is not None:
        item = get_args(kind)[1]
        return type(value) is dict and all(fits(item, one) for one in value.values())
    if issubclass(kind, Model):
        return type(value) is dict and all(
            fits(hint, value[wire]) if value.get(wire) is not None else optional or hint is Any
            for _, wire, hint, optional in fields(kind)
        )
    if kind is datetime:
        return type(value) is int and -62_135_596_800_000 <= value <= 253_402_300_799_999
    if kind is float:
        return type(value) in (int, float)
    for plain in (int, bool):
        if kind is plain:
            return type(value) is plain
    return type(value) is (dict if issubclass(kind, FrozenMap) else str)


def junk(kind: Any) -> Iterator[Any]:
    """Give values that mostly do not fit: as the whole, and inside of what holds others."""
    yield from JUNK
    if get_origin(kind) is tuple:
        yield from ([value] for value in JUNK)
    elif get_origin(kind) is not None:
        yield from ({"key": value} for value in JUNK)


FIELDS = [
    pytest.param(kind, *field, id=f"{kind.__name__}.{field[0]}")
    for kind in MODELS
    for field in fields(kind)
]


def test_the_models_are_all_found() -> None:
    assert {Message, Contact, scim.ScimUser, reports.ReportRow, app.TokenInfo} <= set(MODELS)
    assert {events.NewMessageEvent, payloads.StatusChange} <= set(MODELS)
    assert len(MODELS) >= 60


@pytest.mark.parametrize(("kind", "name", "wire", "hint", "optional"), FIELDS)
def test_a_value_is_kept_as_it_came_or_an_error_that_names_the_field(
    kind: type[Model], name: str, wire: str, hint: Any, optional: bool
) -> None:
    if name == "raw_metrics":
        return  # its items have a check of their own, see below
    value, refused = good(kind), 0
    for bad in junk(hint):
        given = {**value, wire: bad}
        if fits(hint, bad):
            again = to_json(from_json(kind, given))
            assert json.dumps(again, sort_keys=True) == json.dumps(given, sort_keys=True)
            continue
        with pytest.raises(InputError) as caught:
            from_json(kind, given)
        assert caught.value.field.startswith(f"$.{name.lstrip('_')}"), bad
        assert PERSONAL not in str(caught.value)
        refused += 1
    assert refused >= 20 or hint is Any
    if not (optional or hint is Any):
        with pytest.raises(InputError) as caught:
            from_json(kind, {**value, wire: None})
        assert caught.value.field.startswith(f"$.{name}") or wire in caught.value.limit


@pytest.mark.parametrize(("kind", "name", "wire", "hint", "optional"), FIELDS)
def test_null_and_absent_read_alike_and_are_written_back_as_they_came(
    kind: type[Model], name: str, wire: str, hint: Any, optional: bool
) -> None:
    value = good(kind)
    absent = {key: item for key, item in value.items() if key != wire}
    default = getattr(attrs.fields(cast(Any, kind)), name).default
    if default not in (None, attrs.NOTHING):  # the type of an event
        assert getattr(from_json(kind, absent), name) is default
        return
    if not (optional or hint is Any):
        with pytest.raises(InputError):
            from_json(kind, absent)
        return
    null = {**value, wire: None}
    assert getattr(from_json(kind, absent), name) is None
    assert getattr(from_json(kind, null), name) is None
    assert to_json(from_json(kind, absent)) == absent
    assert to_json(from_json(kind, null)) == null


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_a_time_is_kept_to_the_millisecond(moment: int) -> None:
    contact = from_json(Contact, {"id": 7, "createdAt": moment})
    assert contact.created_at is not None
    assert contact.created_at.tzinfo is UTC
    assert to_json(contact) == {"id": 7, "createdAt": moment}


def test_what_does_not_fit_is_not_kept_in_memory() -> None:
    class Text(str):
        """A text whose end can be watched."""

    value = Text(PERSONAL)
    gone = weakref.ref(value)
    for kind in (Contact, Message):
        with contextlib.suppress(StructureError):
            structure({"id": value}, kind)
    del value
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("kind", MODELS)
def test_all_fields_and_unknown_ones_survive(kind: type[Model]) -> None:
    value = {**good(kind), "neverSeen": {"deep": [None, {"x": 1}]}, "alsoNew": None}
    result = from_json(kind, value)
    assert to_json(result) == value
    assert list(unknown_fields(result)) == ["$.neverSeen", "$.alsoNew"]
    assert result == from_json(kind, value)


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind is not app.TokenInfo])
def test_a_model_pickles_and_copies(kind: type[Model]) -> None:
    value = {**good(kind), "new": [None]}
    first = next((wire for _, wire, _, optional in fields(kind) if optional), None)
    if first is not None:
        value[first] = None
    result = from_json(kind, value)
    copies = [pickle.loads(pickle.dumps(result, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)]
    for again in (*copies, copy.copy(result), copy.deepcopy(result)):
        assert type(again) is type(result)
        assert isinstance(again, kind)
        assert again == result
        assert to_json(again) == value


@pytest.mark.parametrize("kind", WORDS)
def test_a_word_pickles_and_copies_known_or_not(kind: type[OpenEnum]) -> None:
    for word in (*kind, kind("never seen")):
        copies = [pickle.loads(pickle.dumps(word, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)]
        for again in (*copies, copy.copy(word), copy.deepcopy(word)):
            assert type(again) is kind
            assert again == word


def test_token_information_does_not_pickle_and_shows_the_token_only_as_json() -> None:
    info = from_json(app.TokenInfo, payload("extended_token_info"))
    with pytest.raises(TypeError):
        pickle.dumps(info)
    assert "ACCESS" not in f"{info} {info!r} {info.access_token} {info.access_token!r}"
    assert to_json(info)["access_token"] == "ACCESS"
    assert info.never_expires
    assert info.scopes == {"contact_read", "user_read"}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_frozen_unhashable_and_shows_little(kind: type[Model]) -> None:
    result = from_json(kind, {**good(kind), "new": PERSONAL})
    with pytest.raises(TypeError):
        hash(result)
    for field in attrs.fields(cast(Any, kind)):
        with pytest.raises(AttributeError):
            setattr(result, field.name, None)
    with pytest.raises((AttributeError, TypeError)):
        cast(Any, result).something = 1
    assert PERSONAL not in f"{result} {result!r}"
    assert len(repr(result)) < 60


@pytest.mark.parametrize("kind", WORDS)
def test_an_unknown_word_is_kept(kind: type[OpenEnum]) -> None:
    assert from_json(kind, "never seen") == "never seen"
    assert isinstance(from_json(kind, "never seen"), kind)
    assert all(from_json(kind, word.value) is word for word in kind)


# Contacts


ACCESSORS: dict[str, tuple[str, Any, Any]] = {
    # accessor: key, value as it comes, value as it is read
    "name": ("name", "Ada", "Ada"),
    "email": ("email", PERSONAL, PERSONAL),
    "phone": ("phone", "617-555-0100", "617-555-0100"),
    "first_name": ("first_name", "Ada", "Ada"),
    "external_id": ("externalId", 12341243, "12341243"),
    "events": ("events", {"a": 1}, {"a": 1}),
    "social_profiles": ("socialProfiles", {"id": "p"}, {"id": "p"}),
    "tags": ("tags", ["a", {"name": "b"}], ("a", {"name": "b"})),
    "end_user_version": ("_end_user_version", 4, 4),
    "calculated_version": ("_calculated_version", 4, 4),
    **{
        name: (name, MOMENT, datetime(2022, 9, 30, 21, 16, 44, 326000, UTC))
        for name in ("start_date", "last_active", "last_contacted")
    },
    "classification": ("_classification", "Engaged", "Engaged"),
    **{
        name: (name, "text", "text")
        for name in (
            "ip",
            "original_ip",
            "employment_name",
            "last_context_location",
            "recent_medium",
            "recent_source",
            "recent_referer_url",
            "original_referer_url",
            *(
                f"{when}_{page}_page_{what}"
                for when in ("original", "recent")
                for page in ("entrance", "conversation_started")
                for what in ("url", "title")
            ),
        )
    },
}


@pytest.mark.parametrize("name", ACCESSORS)
def test_an_attribute_is_read_as_its_documented_type(name: str) -> None:
    key, raw, value = ACCESSORS[name]
    assert getattr(ContactAttributes({key: raw}), name) == value
    assert getattr(ContactAttributes({key: None}), name) is None
    assert getattr(ContactAttributes(), name) is None
    with pytest.raises(InputError) as caught:
        getattr(ContactAttributes({key: True}), name)
    assert caught.value.field == f"attributes.{key}"


def test_every_documented_attribute_has_an_accessor() -> None:
    attributes = from_json(Contact, payload("extended_contact")["data"]).attributes
    free = {"plan", "seats", "nothing"}
    second = {"external_id", "_END_USER_VERSION"}  # twins of other keys
    assert set(attributes) - free - second == {key for key, _, _ in ACCESSORS.values()}
    assert all(getattr(attributes, name) is not None for name in ACCESSORS)
    assert attributes["seats"] == 12


def test_the_twin_of_a_key_is_read_when_the_key_is_null_or_absent() -> None:
    assert ContactAttributes({"external_id": "a"}).external_id == "a"
    assert ContactAttributes({"externalId": None, "external_id": "a"}).external_id == "a"
    assert ContactAttributes({"_END_USER_VERSION": 3}).end_user_version == 3


def test_attributes_are_empty_when_none_came() -> None:
    assert from_json(Contact, {"id": 1}).attributes == {}
    assert from_json(Contact, {"id": 1, "attributes": None}).attributes == {}
    assert Contact(id=1, attributes=ContactAttributes({"a": 1})).attributes["a"] == 1


def test_pages_of_the_app() -> None:
    assert Contact(id=7).app_url == "https://app.drift.com/contacts/details/7"
    conversation = conversations.Conversation(id=7, inbox_id=3)
    assert conversation.app_url == "https://app.drift.com/inboxes/3/conversations/7"
    assert conversations.Conversation(id=7).app_url is None


# Conversations and reports


def test_counts_of_any_status_are_read() -> None:
    stats = conversations.STATS.parse(reply(payload("extended_stats")))
    assert (stats.open, stats.closed, stats.pending) == (2, 3, 1)
    assert stats.counts["BULK_SENT"] == 4
    assert conversations.STATS.parse(reply({"conversationCount": {}})).open == 0


@pytest.mark.parametrize("value", [payload("extended_transcript")["data"], [{"id": 1}, 7]])
def test_a_transcript_keeps_its_json_and_gives_the_messages_it_finds(value: Any) -> None:
    transcript = Transcript(value)
    assert [message.id for message in transcript.messages] == [1]
    assert transcript.value == value
    assert pickle.loads(pickle.dumps(transcript)) == transcript
    with pytest.raises(TypeError):
        hash(transcript)


@pytest.mark.parametrize("value", [None, 7, "text", {}, {"messages": None}, {"messages": {}}])
def test_a_transcript_of_another_shape_has_no_messages(value: Any) -> None:
    assert conversations.JSON_TRANSCRIPT.parse(reply({"data": value})) == value
    assert Transcript(value).messages == []


def test_a_missing_metric_reads_as_none_and_is_written_as_it_came() -> None:
    report = reports.CONVERSATIONS.parse(reply(payload("extended_report")))
    assert report.rows[0].metrics == (86400000, None, 0.5)
    assert to_json(report) == payload("extended_report")


@pytest.mark.parametrize("metric", ["1", "nan", None, True, [], {}])
def test_a_metric_that_is_no_number_is_an_error(metric: Any) -> None:
    value = {"count": 1, "data": [{"conversationId": 1, "metrics": [1, metric]}]}
    with pytest.raises(DecodeError) as caught:
        reports.CONVERSATIONS.parse(reply(value))
    assert caught.value.path == "$.rows[0]"


# What is sent


def test_the_groups_load_no_http_library() -> None:
    names = ", ".join(group.__name__ for group in GROUPS)
    script = f"import sys, {names}; sys.exit('aiohttp' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_is_taken_out_of_free_form_data_does_not_change_it() -> None:
    data = FrozenMap({"tags": ["a", {"deep": [1]}]})
    tags = data["tags"]
    tags.append("b")
    tags[1]["deep"].append(2)
    assert data["tags"] == ["a", {"deep": [1]}]
    assert dict(data.items()) == {"tags": ["a", {"deep": [1]}]}
