"""What the methods of the groups send, refuse, and make of the answers; without a connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast

import attrs
import pytest

from drift_async.core.endpoint import Reply
from drift_async.core.models import from_json
from drift_async.core.secret import Secret
from drift_async.errors import ConflictError, CursorError, InputError
from drift_async.resources import (
    accounts,
    app,
    contacts,
    conversations,
    gdpr,
    messages,
    reports,
    scim,
    users,
)
from drift_async.resources.contacts import Contact
from drift_async.resources.messages import Button, ButtonType, Reaction
from tests.support.models import payload, reply

pytestmark = pytest.mark.smoke


@attrs.define(eq=False)
class Recorder:
    """Stands in for the network: notes what is sent, and answers with what it was given."""

    answers: list[Any]
    sent: list[tuple[str, str, Any]] = attrs.field(factory=list)
    max_pages: int = 10

    async def send(self, row: Any, target: str, body: bytes | None = None, **_: Any) -> Reply:
        self.sent.append((row.method, target, None if body is None else json.loads(body)))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return reply(answer)

    def started(self) -> Recorder:
        return self

    def token(self) -> Secret:
        return Secret("ACCESS_TOKEN")


def run(call: Callable[[Any], Awaitable[Any]], *answers: Any) -> tuple[Any, list[Any]]:
    """Return what a call gives and the requests it makes."""
    recorder = Recorder(list(answers))

    async def body() -> Any:
        return await call(recorder)

    return asyncio.run(body()), recorder.sent


NUMBER = accounts.CustomProperty(
    label="My Number", name=" my number", value=1, type=accounts.PropertyType.NUMBER
)

YES = Button(value="yes please", label="yes please", type=ButtonType.REPLY)

FILTERS = (
    reports.ReportFilter(property="lastAgentId", operation=reports.ReportOperation.HAS_PROPERTY),
    reports.ReportFilter(
        property="firstCloseAt",
        operation=reports.ReportOperation.BETWEEN,
        values=("2019-07-22", "2019-07-26"),
    ),
)

METRICS = [
    "timeToCloseMillis",
    "timeToAgentResponseMillis",
    "firstAgentMessageAt",
    "relatedPlaybookId",
]

REQUESTS: dict[str, tuple[str, Callable[[Any], Awaitable[Any]]]] = {
    "account_create_request": (
        "account_response",
        lambda c: accounts.Accounts(c).create(
            21995,
            name="Company Name",
            domain="www.domain.com",
            custom_properties=[NUMBER],
            targeted=True,
        ),
    ),
    "account_update_request": (
        "account_response",
        lambda c: accounts.Accounts(c).update(
            "123458_domain.com",
            21965,
            name="Company Name",
            domain="www.domain.com",
            custom_properties=[NUMBER],
            targeted=True,
        ),
    ),
    "contact_create_request": (
        "contact_create_response",
        lambda c: contacts.Contacts(c).create("contact@example.com", external_id="your_unique_id"),
    ),
    "timeline_request": (
        "extended_timeline",
        lambda c: contacts.Contacts(c).add_timeline_event(
            "New External Event from <your app>",
            contact_id=1115142980,
            created_at=datetime(2019, 1, 1, 12, tzinfo=UTC),
        ),
    ),
    "conversation_new_request": (
        "conversation_new_response",
        lambda c: conversations.Conversations(c).create(
            "contact@example.com",
            payload("conversation_new_request")["message"]["body"],
            integration_source="Message from facebook",
        ),
    ),
    "message_create_request": (
        "message_create_response",
        lambda c: conversations.Conversations(c).create_message(
            1, "string", buttons=[YES], user_id=12345
        ),
    ),
    "report_request": (
        "extended_report",
        lambda c: reports.Reports(c).conversations(FILTERS, METRICS),
    ),
    "token_info_request": ("extended_token_info", lambda c: app.App(c).token_info()),
    "scim_user_schema": (
        "scim_user_schema",
        lambda c: scim.Scim(c).create(from_json(scim.ScimUser, payload("scim_user_schema"))),
    ),
    "scim_provision_rbac_request": (
        "scim_user_schema",
        lambda c: scim.Scim(c).create(
            from_json(scim.ScimUser, payload("scim_provision_rbac_request"))
        ),
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_has_the_documented_body(name: str) -> None:
    answer, call = REQUESTS[name]
    _, sent = run(call, payload(answer))
    assert [body for _, _, body in sent] == [payload(name)]


def test_a_button_says_its_label_unless_told_otherwise() -> None:
    _, sent = run(
        lambda c: conversations.Conversations(c).create_message(1, buttons=[Button(label="Yes")]),
        payload("message_create_response"),
    )
    assert sent[0][2]["buttons"] == [{"label": "Yes", "value": "Yes", "type": "reply"}]


def contact_calls(c: Any) -> contacts.Contacts:
    return contacts.Contacts(c)


def talk(c: Any) -> conversations.Conversations:
    return conversations.Conversations(c)


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

REFUSED: list[tuple[str, Callable[[Any], Any]]] = [
    (
        "attributes.email",
        lambda c: contact_calls(c).create("a@b.c", attributes={"email": "x@b.c"}),
    ),
    (
        "attributes.externalId",
        lambda c: contact_calls(c).upsert("u", email="a@b.c", attributes={"externalId": "v"}),
    ),
    ("attributes.plan", lambda c: contact_calls(c).update(1, {"plan": None})),
    ("attributes", lambda c: contact_calls(c).update(1, {})),
    ("contact_id", lambda c: contact_calls(c).get(0)),
    ("external_ids", lambda c: contact_calls(c).find_by_external_id()),
    ("external_ids[1]", lambda c: contact_calls(c).find_by_external_id("a", "")),
    ("limit", lambda c: contact_calls(c).find_by_email("a@b.c", limit=0)),
    ("id_type", lambda c: contact_calls(c).update_by_external_id("u", {"a": 1}, id_type="x")),
    ("contact_id", lambda c: contact_calls(c).add_timeline_event("e")),
    (
        "contact_id",
        lambda c: contact_calls(c).add_timeline_event("e", contact_id=1, external_id="u"),
    ),
    ("emails", lambda c: contact_calls(c).unsubscribe("a@b.c")),
    ("emails", lambda c: contact_calls(c).unsubscribe([])),
    ("user_ids[1]", lambda c: users.Users(c).get_many([1, cast(Any, "2")])),
    ("changes", lambda c: users.Users(c).update(1)),
    ("phone", lambda c: users.Users(c).update(1, phone="6175550100")),
    ("availability", lambda c: users.Users(c).update(1, availability="ON_CALL")),
    ("end", lambda c: users.Users(c).meetings(NOON, NOON.replace(hour=11))),
    ("start", lambda c: users.Users(c).meetings(datetime(2026, 1, 1), NOON)),  # noqa: DTZ001
    ("status", lambda c: talk(c).all(status="bulk_sent")),
    ("status", lambda c: talk(c).all(status=[])),
    ("page_size", lambda c: talk(c).all(page_size=101)),
    ("body", lambda c: talk(c).create_message(1)),
    ("type", lambda c: talk(c).create_message(1, "x", type="edit")),
    (
        "buttons[0].type",
        lambda c: talk(c).create_message(1, buttons=[Button(label="x", type=ButtonType.ACTION)]),
    ),
    (
        "buttons[0].reaction.message",
        lambda c: talk(c).create_message(
            1, buttons=[Button(label="x", reaction=Reaction(type=messages.ReactionType.REPLACE))]
        ),
    ),
    ("user.user_name", lambda c: scim.Scim(c).create(scim.ScimUser(display_name="x"))),
    ("user.display_name", lambda c: scim.Scim(c).replace("1", scim.ScimUser(user_name="x"))),
    ("changes", lambda c: scim.Scim(c).update("1", scim.ScimUser())),
    ("page_size", lambda c: scim.Scim(c).all(page_size=201)),
    ("metrics", lambda c: reports.Reports(c).conversations([], "timeToCloseMillis")),
    ("filters[0]", lambda c: reports.Reports(c).conversations([cast(Any, {})], [])),
    ("email", lambda c: gdpr.Gdpr(c).delete("nobody")),
]


@pytest.mark.parametrize(("field", "call"), REFUSED)
def test_a_bad_argument_is_refused_before_anything_is_sent(
    field: str, call: Callable[[Any], Any]
) -> None:
    with pytest.raises(InputError) as caught:
        run(call)
    assert caught.value.field == field


@pytest.mark.parametrize(("limit", "asked"), [(1, 25), (25, 25), (60, 60), (250, 100)])
def test_contacts_of_an_address_are_asked_for_by_25_or_what_more_is_wanted(
    limit: int, asked: int
) -> None:
    rows = {"data": [{"id": one} for one in range(1, 26)]}
    found, sent = run(lambda c: contact_calls(c).find_by_email("a@b.c", limit=limit), rows)
    assert len(found) == min(limit, 25)
    assert [target for _, target, _ in sent] == [f"/contacts?email=a%40b.c&limit={asked}"]


def test_external_ids_are_asked_for_once_and_by_50() -> None:
    ids = [f"u{n}" for n in range(51)]
    found, sent = run(
        lambda c: contact_calls(c).find_by_external_id(*ids, "u0"),
        {"data": [{"id": 1}]},
        {"data": [{"id": 2}]},
    )
    assert [contact.id for contact in found] == [1, 2]
    assert [target.count("&id=") for _, target, _ in sent] == [50, 1]
    assert sent[1][1] == "/contacts?idType=external&id=u50"


CONFLICT = ConflictError(status=409, type="conflict", message="", operation="POST /contacts")

NONE: dict[str, list[Any]] = {"data": []}

ONE = {"data": [{"id": 7}]}

CONTACT = {"data": {"id": 7}}


def upsert(c: Any) -> Awaitable[Contact]:
    return contact_calls(c).upsert("u", email="a@b.c", attributes={"plan": "pro"})


@pytest.mark.parametrize(
    ("answers", "methods"),
    [
        ((ONE, CONTACT), "GET PATCH"),
        ((NONE, CONTACT), "GET POST"),
        ((NONE, CONFLICT, ONE, CONTACT), "GET POST GET PATCH"),
    ],
)
def test_an_upsert_updates_or_creates(answers: tuple[Any, ...], methods: str) -> None:
    contact, sent = run(upsert, *answers)
    assert contact.id == 7
    assert " ".join(method for method, _, _ in sent) == methods
    fields = {"attributes": {"plan": "pro", "email": "a@b.c", "externalId": "u"}}
    assert all(body == fields for _, _, body in sent if body is not None)


def test_an_upsert_that_finds_nobody_after_a_conflict_gives_up() -> None:
    with pytest.raises(ConflictError):
        run(upsert, NONE, CONFLICT, NONE)


def test_users_are_asked_for_once_and_come_in_the_order_asked() -> None:
    def answer(ids: list[int]) -> Any:
        return {"data": {str(one): {"id": one} for one in reversed(ids) if one != 7}}

    wanted = [*range(25, 0, -1), 25, 3]
    found, sent = run(
        lambda c: users.Users(c).get_many(wanted),
        answer(wanted[:20]),
        answer(wanted[20:25]),
    )
    assert list(found) == [one for one in range(25, 0, -1) if one != 7]
    assert [target.count("userId=") for _, target, _ in sent] == [20, 5]
    assert run(lambda c: users.Users(c).get_many([])) == ({}, [])


def meetings(first: int, count: int) -> Any:
    return {"data": [{"slug": f"m{n}"} for n in range(first, first + count)]}


def test_a_full_window_of_meetings_is_halved_and_nothing_is_given_twice() -> None:
    found, sent = run(
        lambda c: users.Users(c).meetings(NOON, NOON.replace(minute=1)),
        meetings(0, 1000),
        meetings(0, 700),
        meetings(699, 501),
    )
    assert [meeting.slug for meeting in found] == [f"m{n}" for n in range(1200)]
    start = int(NOON.timestamp()) * 1000
    assert [target.partition("?")[2] for _, target, _ in sent] == [
        f"min_start_time={start + low}&max_start_time={start + high}&limit=1000"
        for low, high in ((0, 60_000), (0, 30_000), (30_000, 60_000))
    ]


def test_too_many_meetings_in_a_millisecond_are_an_error() -> None:
    with pytest.raises(CursorError):
        run(lambda c: users.Users(c).meetings(NOON, NOON), meetings(0, 1000))
