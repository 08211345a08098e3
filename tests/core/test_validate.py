"""Bad input is refused before anything is sent, with the field's name and without the value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from enum import Enum
from operator import attrgetter
from typing import Any

import pytest

import drift_async
import drift_async.sync
from drift_async import (
    UNSET,
    Button,
    ButtonStyle,
    ButtonType,
    CustomProperty,
    InputError,
    PropertyType,
    Rate,
    Reaction,
    ReactionType,
    ReportFilter,
    ReportOperation,
    Retry,
    ScimName,
    ScimUser,
    ScimValue,
)
from drift_async.sandbox import Sandbox

NAIVE = datetime(2026, 11, 1)  # noqa: DTZ001
AWARE = datetime(2026, 11, 1, tzinfo=UTC)
SIGN = "needle-4711"  # stands in values that must not come back in the error

NO_IDS: tuple[Any, ...] = (0, -1, 2**63, True, "7", 1.0, None, [7], b"7", SIGN)
NO_WHOLE: tuple[Any, ...] = (0, -1, True, "7", 1.5, None, math.nan, 2**63)
NO_TEXTS: tuple[Any, ...] = ("", None, 7, True, b"x", ["x"], "\ud800" + SIGN, f"{SIGN}\udfff")
NO_TEXTS += (SIGN + "x" * 1024 * 1024,)
NO_SEGMENTS: tuple[Any, ...] = ("", "..", ".", None, 7, b"x", "\ud800", f"{SIGN}\n", SIGN * 100)
NO_EMAILS: tuple[Any, ...] = ("", " ", None, 7, b"a@b", SIGN, f"@{SIGN}", f"{SIGN}@", "a b@c.de")
NO_EMAILS += ("a@b.de\n", "a@" + SIGN * 40, "a@\ud800.de", ["a@b.de"], "a@b\u00a0.de", "a@b.de\x00")
NO_TIMES: tuple[Any, ...] = (NAIVE, date(2026, 11, 1), 1793527200123, "2026-11-01", True)
NO_SIZES: tuple[Any, ...] = (0, -1, True, "7", 7.0, None, 2**70)
CYCLE: dict[str, Any] = {}
CYCLE["again"] = CYCLE
# attributes, and what the error names
NO_ATTRIBUTES: tuple[tuple[Any, str], ...] = (
    ({"plan": None}, "attributes.plan"),
    ({"plan": math.nan}, "attributes.plan"),
    ({"plan": -math.inf}, "attributes.plan"),
    ({"plan": SIGN.encode()}, "attributes.plan"),
    ({"plan": object()}, "attributes.plan"),
    ({"plan": {SIGN}}, "attributes.plan"),
    ({"plan": NAIVE}, "attributes.plan"),
    ({"plan": date(2026, 1, 1)}, "attributes.plan"),
    ({"plan": f"{SIGN}\ud800"}, "attributes.plan"),
    ({"plan": {"deep": [1, math.nan]}}, "attributes.plan.deep[1]"),
    ({"plan": {"deep": {7: SIGN}}}, "attributes.plan.deep"),
    ({"plan": 10**5000}, "attributes.plan"),
    ({"plan": UNSET}, "attributes.plan"),
    ({"plan": 1j}, "attributes.plan"),
    ({7: SIGN}, "attributes"),
    ({None: SIGN}, "attributes"),
    ({"\ud800": SIGN}, "attributes"),
    ({"cycle": CYCLE}, "attributes.cycle"),
    ([SIGN], "attributes"),
    (SIGN, "attributes"),
    (7, "attributes"),
    ([("plan", SIGN)], "attributes"),
)
NO_WORDS: tuple[Any, ...] = ("", "EXTERNAL", "offline", "edit", SIGN, 7, ["chat"], b"drift")
OK_USER = ScimUser(user_name="a@b.de", display_name="A")
C, A = 15_811_400_007, "123458_company1.example"
Case = tuple[str, str, tuple[Any, ...], dict[str, Any]]


def each(
    call: str, field: str, values: tuple[Any, ...], *before: Any, key: str = "", **more: Any
) -> list[Case]:
    """Return a case for each value: given by *key*, or by position behind *before*.

    A key of ``=`` is the field itself.
    """
    key = field if key == "=" else key
    if key:
        return [(call, field, before, {**more, key: value}) for value in values]
    return [(call, field, (*before, value), more) for value in values]


def optional(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value for value in values if value is not None)


def button(**fields: Any) -> list[Button]:
    return [Button(label="ok"), Button(**{"label": "x", **fields})]


CONTACTS = [
    *each("contacts.create", "email", NO_EMAILS),
    *each("contacts.create", "external_id", optional(NO_TEXTS), "a@b.de", key="external_id"),
    *each("contacts.create", "external_id", (UNSET,), "a@b.de", key="external_id"),
    *(("contacts.create", f, ("a@b.de",), {"attributes": a}) for a, f in NO_ATTRIBUTES),
    ("contacts.create", "attributes.email", ("a@b.de",), {"attributes": {"email": SIGN}}),
    *each("contacts.get", "contact_id", NO_IDS),
    *each("contacts.delete", "contact_id", NO_IDS),
    *each("contacts.find_by_email", "email", NO_EMAILS),
    *each("contacts.find_by_email", "limit", NO_WHOLE, "a@b.de", key="limit"),
    *each("contacts.find_by_external_id", "external_ids[1]", NO_TEXTS, "ok"),
    ("contacts.find_by_external_id", "external_ids", (), {}),
    *each("contacts.update", "contact_id", NO_IDS, key="contact_id", attributes={"a": 1}),
    *(("contacts.update", f, (C, a), {}) for a, f in (*NO_ATTRIBUTES, ({}, "attributes"))),
    ("contacts.update", "attributes", (C, None), {}),
    *each("contacts.update_by_external_id", "external_id", NO_TEXTS, key="=", attributes={"a": 1}),
    *(("contacts.update_by_external_id", f, ("x", a), {}) for a, f in NO_ATTRIBUTES),
    *each("contacts.update_by_external_id", "id_type", NO_WORDS, "x", {"a": 1}, key="="),
    *each("contacts.upsert", "external_id", NO_TEXTS, key="external_id", email="a@b.de"),
    *each("contacts.upsert", "email", NO_EMAILS, "x", key="email"),
    *(
        ("contacts.upsert", f, ("x",), {"email": "a@b.de", "attributes": a})
        for a, f in NO_ATTRIBUTES
    ),
    *each("contacts.add_timeline_event", "event", NO_TEXTS, key="event", contact_id=C),
    *each("contacts.add_timeline_event", "contact_id", optional(NO_IDS), "x", key="contact_id"),
    *each("contacts.add_timeline_event", "external_id", optional(NO_TEXTS), "x", key="external_id"),
    ("contacts.add_timeline_event", "contact_id", ("x",), {}),
    ("contacts.add_timeline_event", "contact_id", ("x",), {"contact_id": C, "external_id": SIGN}),
    *each(
        "contacts.add_timeline_event", "created_at", NO_TIMES, "x", key="created_at", contact_id=C
    ),
    *each("contacts.unsubscribe", "emails", ([], (), SIGN, "a@b.de", None, 7)),
    *(("contacts.unsubscribe", "emails[1]", (["a@b.de", value],), {}) for value in NO_EMAILS),
]
USERS = [
    *each("users.get", "user_id", NO_IDS),
    *(("users.get_many", "user_ids[1]", ([7, value],), {}) for value in NO_IDS),
    *each("users.get_many", "user_ids", (7, None)),
    *each("users.update", "user_id", NO_IDS, key="user_id", name="x"),
    *each("users.update", "name", optional(NO_TEXTS), 7, key="name"),
    *each("users.update", "alias", optional(NO_TEXTS), 7, key="alias"),
    *each("users.update", "email", optional(NO_EMAILS), 7, key="email"),
    *each("users.update", "locale", optional(NO_TEXTS), 7, key="locale"),
    *each("users.update", "avatar_url", optional(NO_TEXTS), 7, key="avatar_url"),
    *each("users.update", "phone", ("", "555", "617-555-01000", SIGN, 6175550100), 7, key="phone"),
    *each("users.update", "phone", ("617-555-010\u0660", "617-555-0100\n"), 7, key="phone"),
    *each("users.update", "availability", ("ON_CALL", *NO_WORDS), 7, key="="),
    ("users.update", "changes", (7,), {}),
    ("users.update", "changes", (7,), {"name": UNSET, "phone": UNSET}),
    *each("users.meetings", "start", (*NO_TIMES, None), key="start", end=AWARE),
    *each("users.meetings", "end", (*NO_TIMES, None), AWARE),
    ("users.meetings", "end", (AWARE, datetime(2026, 10, 31, tzinfo=UTC)), {}),
    *each("teams.of_user", "user_id", NO_IDS),
]
CONVERSATIONS = [
    *(
        case
        for name in ("get", "transcript", "json_transcript", "messages")
        for case in each(f"conversations.{name}", "conversation_id", NO_IDS)
    ),
    *each("conversations.attachment", "document_id", NO_IDS),
    *each("conversations.attachment", "max_bytes", (-1, True, "7", 1.5, None), 7, key="max_bytes"),
    *each("conversations.download_attachment", "document_id", NO_IDS, key="document_id", path="/x"),
    *each("conversations.create", "email", NO_EMAILS, key="email", body="x"),
    *each("conversations.create", "body", NO_TEXTS, "a@b.de"),
    *each("conversations.create", "integration_source", optional(NO_TEXTS), "a@b.de", "x", key="="),
    *each("conversations.create", "auto_assignee_id", optional(NO_IDS), "a@b.de", "x", key="="),
    *each("conversations.all", "status", ("bulk_sent", [], ["open", SIGN], *NO_WORDS), key="="),
    *each("conversations.all", "page_size", (*NO_SIZES, 101), key="page_size"),
    *each(
        "conversations.create_message", "conversation_id", NO_IDS, key="conversation_id", body="x"
    ),
    *each("conversations.create_message", "body", NO_TEXTS, 7),
    ("conversations.create_message", "body", (7,), {"buttons": []}),
    *each("conversations.create_message", "type", (None, *NO_WORDS), 7, "x", key="="),
    *each("conversations.create_message", "user_id", optional(NO_IDS), 7, "x", key="user_id"),
    *(
        (
            "conversations.create_message",
            f"buttons[1]{field}",
            (7, "x"),
            {"buttons": value, "type": t},
        )
        for field, value, t in (
            (".type", button(type=ButtonType.ACTION), "chat"),
            (".type", button(type=ButtonType.COMPOSE), "chat"),
            (".type", button(type=ButtonType("new" + SIGN)), "private_note"),
            (".style", button(style=ButtonStyle("new" + SIGN)), "chat"),
            (".label", button(label=""), "chat"),
            (".label", button(label=None), "chat"),
            (".label", button(label=7), "chat"),
            (".value", button(value=f"{SIGN}\ud800"), "chat"),
            (".value", button(value=["x"]), "chat"),
            (".reaction.type", button(reaction=Reaction(message=SIGN)), "chat"),
            (".reaction.message", button(reaction=Reaction(type=ReactionType.REPLACE)), "chat"),
            ("", [Button(label="ok"), {"label": SIGN}], "chat"),
            ("", [Button(label="ok"), SIGN], "chat"),
        )
    ),
    *each("conversations.create_message", "buttons", (7, True), 7, "x", key="buttons"),
]
SIZE: dict[str, Any] = {"label": "S", "name": "size", "type": PropertyType.NUMBER}
SEVEN: Any = 7
IN = ReportOperation.IN
OTHERS = [
    *each("accounts.create", "owner_id", NO_IDS),
    *each("accounts.create", "name", (*optional(NO_TEXTS), UNSET), 7, key="name"),
    *each("accounts.create", "domain", optional(NO_TEXTS), 7, key="domain"),
    *each("accounts.create", "targeted", (1, "true", SIGN, []), 7, key="targeted"),
    *each("accounts.create", "custom_properties", (7, True), 7, key="custom_properties"),
    *(
        ("accounts.create", f"custom_properties[0]{field}", (7,), {"custom_properties": [value]})
        for field, value in (
            ("", SIZE),
            ("", SIGN),
            (".value", CustomProperty(**SIZE, value=math.nan)),
            (".value", CustomProperty(**SIZE, value=SIGN.encode())),
            (".name", CustomProperty(label="x", name=SEVEN)),
        )
    ),
    *each("accounts.get", "account_id", NO_SEGMENTS),
    *each("accounts.delete", "account_id", NO_SEGMENTS),
    *each("accounts.all", "page_size", (*NO_SIZES, 66), key="page_size"),
    *each("accounts.update", "account_id", NO_TEXTS, key="account_id", owner_id=7, name="x"),
    *each("accounts.update", "owner_id", NO_IDS, A, key="owner_id", name="x"),
    *each("accounts.update", "name", optional(NO_TEXTS), A, 7, key="name"),
    *each("accounts.update", "targeted", (1, "true", SIGN), A, 7, key="targeted"),
    *each("gdpr.retrieve", "email", NO_EMAILS),
    *each("gdpr.delete", "email", NO_EMAILS),
    *each("app.token_info", "token", ("", "a b", f"{SIGN}\n", "tökén", 7, b"x")),
    *each("app.uninstall", "client_id", NO_TEXTS, key="client_id", client_secret="x"),
    *each("app.uninstall", "client_secret", ("", None, 7, f"{SIGN}\n", "\ud800"), "x"),
    *each("scim.get", "user_id", NO_SEGMENTS),
    *each("scim.delete", "user_id", NO_SEGMENTS),
    *each("scim.replace", "user_id", NO_SEGMENTS, key="user_id", user=OK_USER),
    *each("scim.update", "user_id", NO_SEGMENTS, key="user_id", changes=OK_USER),
    *each("scim.all", "page_size", (*NO_SIZES, 201), key="page_size"),
    *each("scim.all", "filter", optional(NO_TEXTS), key="filter"),
    *each("scim.create", "user", (None, {"userName": SIGN}, SIGN, ScimName())),
    *each("scim.create", "user.user_name", (ScimUser(display_name=SIGN),)),
    *each("scim.create", "user.display_name", (ScimUser(user_name=SIGN, display_name=""),)),
    *each("scim.create", "user.displayName", (ScimUser(user_name="x", display_name=SEVEN),)),
    *each(
        "scim.create",
        "user.emails[0].primary",
        (ScimUser(user_name="x", display_name="y", emails=(ScimValue(primary=SEVEN),)),),
    ),
    *each("scim.replace", "user.display_name", (ScimUser(user_name=SIGN),), "7"),
    *each("scim.update", "changes", (ScimUser(), None, {"active": False}), "7"),
    *each("reports.conversations", "metrics", ("createdAt", SIGN, 7, None), []),
    *each("reports.conversations", "metrics[1]", (["x", ""], ["x", 7], ["x", None]), []),
    *(
        ("reports.conversations", field, (value, ["createdAt"]), {})
        for field, value in (
            ("filters[0]", [SIGN]),
            ("filters[0]", [{"property": SIGN}]),
            ("filters[0].values", [ReportFilter(property="x", operation=IN, values=SEVEN)]),
            ("filters[0].values[0]", [ReportFilter(property="x", operation=IN, values=(NAIVE,))]),
            ("filters[0].property", [ReportFilter(property=SEVEN, operation=IN)]),
            ("filters", 7),
            ("filters", None),
        )
    ),
]
NO_METHODS: tuple[Any, ...] = ("", "get", "HEAD", "GET /x", SIGN, None, 7, [])
NO_PATHS: tuple[Any, ...] = ("", "x", "/", "//evil", "/a//b", "/..", "/a/../b", "/./a", "/\ud800")
NO_PATHS += ("/\n", "/x/", "http://evil.example/", None, 7, ["/x"], b"/x")
NO_PARAMS: tuple[Any, ...] = (b"x", {"b": 1}, object(), math.nan, NAIVE, "\ud800", [["x"]], UNSET)
REQUEST = [
    *each("request", "method", NO_METHODS, key="=", path="/x"),
    *each("request", "path", NO_PATHS, "GET"),
    *each("request", "effect", ("", "SAFE", SIGN, 7, True, []), "GET", "/x", key="effect"),
    *each("request", "json", (math.nan, b"x", object(), {1}, "\ud800"), "POST", "/x", key="json"),
    *each("request", "json.a[0]", ({"a": [math.inf]}, {"a": [NAIVE]}), "POST", "/x", key="json"),
    *each("request", "params", (7, "a=b", [("a", "b")], {1: 2}), "GET", "/x", key="params"),
    *(("request", "a", ("GET", "/x"), {"params": {"a": value}}) for value in NO_PARAMS),
]
ALL: list[Case] = [*CONTACTS, *USERS, *CONVERSATIONS, *OTHERS, *REQUEST]


def plainly(field: str) -> str:
    """Return a field's name without regard to its spelling, ours or the API's."""
    return field.replace("_", "").lower()


def shown(case: Case) -> str:
    """Return a case for the report of a failure."""
    try:
        return f"{case[1]}: {case[2]!r:.90} {case[3]!r:.90}"
    except ValueError:  # an int with too many digits to be written
        return f"{case[1]}: a huge number"


async def verdict(drift: Any, case: Case) -> str | None:
    """Return what is wrong with the way this input is treated."""
    call, field, args, kwargs = case
    try:
        result = attrgetter(call)(drift)(*args, **kwargs)
        await (result.first() if hasattr(result, "first") else result)
    except InputError as error:
        said = f"{error} {error!r} {error.args} {error.field} {error.limit}"
        if not plainly(error.field).startswith(plainly(field)):
            return f"names {error.field}"
        if SIGN in said or "\ud800" in said or len(str(error)) > 500:
            return "tells the value"
        return None if error.applied is False else "not said to be unapplied"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:60]}"
    return "no error"


@pytest.mark.anyio
@pytest.mark.parametrize("call", dict.fromkeys(case[0] for case in ALL))
async def test_bad_input_is_refused_by_name_before_anything_is_sent(
    drift: Any, box: Sandbox, call: str
) -> None:
    cases = [case for case in ALL if case[0] == call]
    wrong = [f"{why} <- {shown(case)}" for case in cases if (why := await verdict(drift, case))]
    assert wrong == []
    assert box.seen == []


@pytest.mark.anyio
async def test_a_text_of_blanks_is_refused_like_an_empty_one(drift: Any, box: Sandbox) -> None:
    cases: list[Case] = [
        *each("contacts.add_timeline_event", "event", (" ", "\t\n"), key="=", contact_id=C),
        *each("contacts.create", "external_id", (" ", "\u00a0"), "a@b.de", key="="),
        *each("contacts.upsert", "external_id", (" ",), key="=", email="a@b.de"),
        *each("conversations.create", "body", (" \n",), "a@b.de"),
        *each("accounts.create", "name", (" ",), 7, key="="),
        *each("users.update", "name", (" ",), 7, key="="),
        *each("scim.create", "user.user_name", (ScimUser(user_name=" ", display_name="x"),)),
    ]
    wrong = [f"{why} <- {shown(case)}" for case in cases if (why := await verdict(drift, case))]
    assert wrong == []
    assert box.seen == []


# -- settings

HOSTILE_TOKENS: tuple[Any, ...] = (
    "",
    " ",
    f"{SIGN} x",
    f"{SIGN}\n",
    f"\t{SIGN}",
    f"{SIGN}\r\nX-Evil: 1",
    f"{SIGN}\x00",
    f"{SIGN}\x7f",
    f"tökén-{SIGN}",
    f"{SIGN}\u2028",
    f"{SIGN}\ud800",
    f"\ufeff{SIGN}",
    7,
    SIGN.encode(),
)
BASE_URLS: tuple[Any, ...] = (
    "http://driftapi.com",
    "http://127.0.0.1.evil.example",
    "http://localhost.evil.example",
    "http://localhost.",
    "http://127.0.0.1@evil.example",
    "http://evil.example\\@127.0.0.1",
    "http://0.0.0.0",
    "http://2130706433",
    f"https://user:{SIGN}@driftapi.com",
    f"http://{SIGN}@127.0.0.1",
    "https://@driftapi.com",
    "ftp://driftapi.com",
    "file:///etc/passwd",
    "//driftapi.com",
    "driftapi.com",
    "https:driftapi.com",
    "https://",
    "https:///x",
    "https://driftapi.com:99999",
    "https://driftapi.com:x",
    "https://drift api.com",
    "https://driftapi.com\n",
    "https://dri\nftapi.com",
    "https://driftapi.com/\x00",
    "https://drïftapi.com",
    "https://[::1",
    "https://a..b",
    f"https://{'a' * 64}.example",
    f"https://driftapi.com/?token={SIGN}",
    f"https://driftapi.com/#{SIGN}",
    "https://driftapi.com?",
    "https://driftapi.com#",
    "",
    None,
    7,
    b"https://driftapi.com",
)
NO_SECONDS: tuple[Any, ...] = (0, -1, math.nan, math.inf, -math.inf, "5", None, True, 10**400, [1])
NO_COUNTS: tuple[Any, ...] = (0, -1, 1.5, "5", None, True, math.nan)
SETTINGS: list[tuple[str, Any]] = [
    *(("token", value) for value in HOSTILE_TOKENS),
    *(("base_url", value) for value in BASE_URLS),
    *((name, v) for name in ("timeout", "connect_timeout", "attempt_timeout") for v in NO_SECONDS),
    *((name, v) for name in ("max_connections", "max_pages", "max_body") for v in NO_COUNTS),
    *(("proxy", value) for value in ("", 7, b"http://x", "\ud800", "x", SIGN, "//h:1", "http://")),
    *(("proxy", f"{start}{SIGN}") for start in ("socks5://", "ftp://", "http://[::1", "http://h:")),
]


@pytest.mark.parametrize(
    ("name", "value"), SETTINGS, ids=[f"{name}-{value!r:.30}" for name, value in SETTINGS]
)
def test_a_bad_setting_is_refused_by_the_constructor(face: str, name: str, value: Any) -> None:
    kind = drift_async.Drift if face == "awaited" else drift_async.sync.Drift
    with pytest.raises(InputError) as caught:
        kind(**{"token": "t", name: value})
    assert caught.value.field == name
    assert caught.value.applied is False
    assert SIGN not in f"{caught.value} {caught.value.args} {vars(caught.value)}"


@pytest.mark.parametrize(
    "base_url",
    [
        *("https://driftapi.com", "https://driftapi.com/", "https://h:8443/v1/", "HTTPS://DRIFT.X"),
        *("http://127.0.0.1:1", "http://localhost", "http://[::1]:80", "http://LOCALHOST:8"),
    ],
)
def test_https_and_loopback_are_taken(face: str, base_url: str) -> None:
    kind = drift_async.Drift if face == "awaited" else drift_async.sync.Drift
    assert base_url.rstrip("/") in repr(kind("t", base_url=base_url))


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        (Retry, "attempts", (0, -1, 1.5, "3", None, True)),
        (Retry, "base", (-1, math.nan, math.inf, "1", None)),
        (Retry, "throttled_base", (-0.1, math.nan, math.inf, "1", None)),
        (Retry, "cap", (-1, math.nan, math.inf, "1", None)),
        (Retry, "max_retry_after", (-1, math.nan, math.inf, "1", None)),
        (Rate, "per_second", (0, -1, math.nan, math.inf, "1", [1])),
        (Rate, "burst", (0, -1, 1.5, "1", None, True)),
    ],
)
def test_bad_numbers_for_retrying_and_pacing_are_refused(
    kind: Callable[..., Any], name: str, values: tuple[Any, ...]
) -> None:
    for value in values:
        with pytest.raises(InputError) as caught:
            kind(**{name: value})
        assert caught.value.field == name


@pytest.mark.anyio
@pytest.mark.parametrize("value", NO_SECONDS)
async def test_a_view_checks_its_timeout_too(drift: Any, value: Any) -> None:
    if value is not None:  # as the client has it
        with pytest.raises(InputError, match="timeout"):
            drift.with_options(timeout=value)


@pytest.mark.parametrize("token", [value for value in HOSTILE_TOKENS if isinstance(value, str)])
def test_a_hostile_token_in_the_environment_is_refused_without_being_told(token: str) -> None:
    if token:  # an empty one counts as missing, which is found when the client is opened
        with pytest.raises(InputError, match="token") as caught:
            drift_async.Drift.from_env({"DRIFT_TOKEN": token})
        assert SIGN not in str(caught.value)


class Word(str, Enum):  # noqa: UP042  # of these, str() gives the name and not the word
    SIGNED_UP = "signed up"
    PAGE = "page 1"


@pytest.mark.anyio
async def test_members_of_enums_are_sent_as_their_words(drift: Any, box: Sandbox) -> None:
    contact_id = (await drift.contacts.upsert(Word.SIGNED_UP, email="a@b.example")).id
    await drift.contacts.add_timeline_event(Word.SIGNED_UP, contact_id=contact_id)
    await drift.request("GET", "/users/list", params={"a": Word.SIGNED_UP, "b": [Word.PAGE]})
    *_, made, event, asked = box.seen
    assert json.loads(made.body)["attributes"]["externalId"] == "signed up"
    assert json.loads(event.body)["event"] == "signed up"
    assert asked.raw_path == "/users/list?a=signed%20up&b=page%201"
