"""Webhooks as a raw receiver gets them."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest

import drift_async.sync
from drift_async.sandbox import Sandbox, webhooks
from tests.support.sandbox_wire import NOW, ask, fits
from tests.support.server import Got, Server, dead_url, reply

pytestmark = pytest.mark.anyio


def ints(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, int)


def texts(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, str)


ORG = {"orgId": 123_458}
HERE = {"conversationId": 4_300_000_000}
CONTACT = ints("id", "createdAt") | {"attributes": dict}
AUTHOR = {"id": int, "type": "contact", "bot": False}
USER_AUTHOR = {"id": int, "type": "user", "bot": bool}
MESSAGE = ints("id", "conversationId", "createdAt") | ORG
MESSAGE |= {"body": str, "author": AUTHOR, "type": "chat", "context": dict, "attributes": dict}
MEETING = ints("agentId", "schedulerId", "slotStart", "slotEnd", "scheduledAt", "conversationId")
MEETING |= texts("eventId", "slug") | ORG
DIFF = {"name": "attributes.plan", "previous": None, "updated": str}
BUTTON = texts("label", "value") | {"type": "action", "style": "primary"}
BUTTON |= {"reaction": {"type": "replace", "message": str}}
SHAPES: dict[str, Any] = {
    "contact_identified": CONTACT,
    "contact_updated": ints("endUserId", "timestamp") | ORG | {"diff": [DIFF]},
    "new_message": MESSAGE,
    "new_command_message": MESSAGE,
    "new_conversation": ints("id", "contactId", "createdAt", "updatedAt", "inboxId")
    | {"participants": [int], "status": "open"}
    | ORG,
    "conversation_participant_added": {**HERE, "addedParticipants": [int], "changedAt": int},
    "conversation_participant_removed": {**HERE, "removedParticipants": [int], "changedAt": int},
    "conversation_inactive": {**HERE, "lastUpdated": int},
    "conversation_manual_push": HERE,
    "conversation_push": HERE,
    "button_clicked": MESSAGE,
    "phone_captured": {**HERE, "authorId": int, "authorType": "contact", "phoneNumber": str},
    "new_meeting": MEETING,
    "meeting_updated": {**MEETING, "eventType": "rescheduled"},
    "playbook_goal_met": ints("playbookId", "contactId")
    | texts("goalId", "goalName", "playbookName", "contactEmail")
    | HERE,
    "user_availability_updated": {"userId": int, "updatedAt": int, "availability": "ONLINE"},
    "user_unsubscribed": CONTACT,
    "chat_to_call": HERE,
    "gdpr_delete_requested": {"email": str},
    "app_disconnected": {},
    "conversation_status_updated": {**HERE, **ORG, "status": str, "changedAt": int},
    "button_action": ints("sourceMessageId")
    | {"author": {"type": str, "id": int}, "button": BUTTON}
    | HERE,
}


def types(server: Server) -> list[str]:
    return [json.loads(one.body)["type"] for one in server.got]


@pytest.mark.parametrize("kind", SHAPES)
async def test_every_documented_type_can_be_asked_for(box: Sandbox, kind: str) -> None:
    async with Server(reply()) as server:
        url = f"{server.url}/hook?a=1"
        await box.add_webhook(url, [kind])
        await box.send_webhook(kind)
        [delivery] = await box.drain_webhooks()
    [got] = server.got
    assert (got.method, got.target) == ("POST", "/hook?a=1")
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-verification-token"] == box.verification_token == "sandbox-verification"
    fits(
        json.loads(got.body),
        {"orgId": 123_458, "type": kind, "token": "sandbox-verification", "data": SHAPES[kind]},
    )
    assert (delivery.type, delivery.url) == (kind, url)
    assert (delivery.body, delivery.attempt, delivery.status) == (got.body, 1, 200)
    assert delivery.delivered
    assert 0 <= delivery.seconds < 5


async def test_data_can_be_given_or_changed(box: Sandbox) -> None:
    async with Server(reply()) as server:
        await box.add_webhook(server.url)
        await box.send_webhook("new_message", body="Hallo ü", type="private_note")
        await box.send_webhook("brand_new", [1])
        with pytest.raises(ValueError, match="type"):
            await box.send_webhook("brand_new")
        await box.drain_webhooks()
    first, second = [json.loads(one.body)["data"] for one in server.got]
    assert (first["body"], first["type"]) == ("Hallo ü", "private_note")
    assert first["author"]["type"] == "contact"
    assert second == [1]


PROFILE = {"name": "socialProfiles.x", "previous": None, "updated": 1}
UPDATED = {"endUserId": 15_811_400_000, "timestamp": int(NOW * 1000), **ORG}
AVAILABLE = {"userId": 228_225, "availability": "ONLINE"}
CONTACT_LINE = "/contacts/15811400000"
MESSAGES_LINE = "POST /conversations/4300000000/messages"
UNINSTALL = "POST /app/uninstall?clientId=sandbox-client&clientSecret=sandbox-secret"


@pytest.mark.parametrize(
    ("line", "body", "events"),
    [
        (
            f"PATCH {CONTACT_LINE}",
            {"attributes": {"plan": "pro", "name": "Zoë Müller"}},
            [("contact_updated", {**UPDATED, "diff": [{**DIFF, "previous": "größer"}]})],
        ),
        (
            f"PATCH {CONTACT_LINE}",
            {"attributes": {"socialProfiles": {"x": 1}}},
            [("contact_updated", {**UPDATED, "diff": [PROFILE]})],
        ),
        (f"PATCH {CONTACT_LINE}", {"attributes": {"plan": "größer"}}, []),
        (
            MESSAGES_LINE,
            {"type": "chat", "body": "/hi"},
            [
                ("new_message", {**MESSAGE, "body": "/hi", "author": USER_AUTHOR}),
                ("new_command_message", {**MESSAGE, "body": "/hi", "author": USER_AUTHOR}),
            ],
        ),
        (
            "POST /conversations/new",
            {"email": "new@example.com", "message": {"body": "Hi"}},
            [("new_message", {**MESSAGE, "body": "Hi", "author": USER_AUTHOR})],
        ),
        (
            "POST /emails/unsubscribe",
            ["nobody@example.com", "zoe.mueller.0@company0.example"],
            [("user_unsubscribed", CONTACT)],
        ),
        (
            "PATCH /users/update?userId=228225",
            {"availability": "AVAILABLE"},
            [("user_availability_updated", {**AVAILABLE, "updatedAt": int(NOW * 1000)})],
        ),
        ("PATCH /users/update?userId=228225", {"alias": "Z"}, []),
        (
            "POST /gdpr/delete",
            {"email": "a@example.com"},
            [("gdpr_delete_requested", {"email": "a@example.com"})],
        ),
        (UNINSTALL, None, [("app_disconnected", {})]),
        (UNINSTALL + "x", None, []),
        ("POST /contacts", {"attributes": {"email": "n@example.com"}}, []),
    ],
)
async def test_a_change_of_state_raises_webhooks(
    box: Sandbox, line: str, body: Any, events: list[tuple[str, Any]]
) -> None:
    async with Server(reply()) as server:
        await box.add_webhook(server.url)
        await ask(box, line, body)
        await box.drain_webhooks()
    assert types(server) == [kind for kind, _ in events]
    for got, (_, shape) in zip(server.got, events, strict=True):
        fits(json.loads(got.body)["data"], shape)


async def test_an_edit_is_no_new_message(box: Sandbox) -> None:
    made = await ask(box, MESSAGES_LINE, {"type": "chat", "body": "a"})
    async with Server(reply()) as server:
        await box.add_webhook(server.url)
        edit = {"type": "edit", "editType": "delete", "editedMessageId": made.json["data"]["id"]}
        assert (await ask(box, MESSAGES_LINE, edit)).status == 200
        await box.drain_webhooks()
    assert server.got == []


async def test_what_is_not_taken_is_sent_again_and_then_given_up() -> None:
    statuses = ["500 X", "307 X", "404 X", "204 X"]

    def answer(number: int, got: Got) -> bytes:
        return reply(b"", statuses[min(number - 1, 3)], Location="/elsewhere")

    async with Server(answer) as server, Sandbox(webhook_retries=(0, 0, 0)) as box:
        await box.add_webhook(server.url)
        await box.send_webhook("new_message")
        done = await box.drain_webhooks()
        assert [(one.attempt, one.status) for one in done] == [
            (1, 500),
            (2, 307),
            (3, 404),
            (4, 204),
        ]
        assert [one.delivered for one in done] == [False, False, False, True]
        assert len({one.body for one in server.got}) == 1
        assert {one.target for one in server.got} == {"/"}
    async with dead_url() as url, Sandbox(webhook_retries=(0, 0)) as box:
        await box.add_webhook(url)
        await box.send_webhook("new_message")
        assert [one.status for one in await box.drain_webhooks()] == [None] * 3


async def test_a_receiver_that_says_nothing_in_time_has_not_taken_it() -> None:
    stuck = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stuck.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Sandbox(webhook_retries=(), webhook_timeout=0.05) as box:
        await box.add_webhook(f"http://localhost:{port}/")
        await box.send_webhook("new_message")
        with pytest.raises(TimeoutError):
            await box.drain_webhooks(timeout=0)
        [one] = await box.drain_webhooks()
        assert (one.status, one.delivered) == (None, False)
        assert 0.04 < one.seconds < 5
        stuck.set()


async def test_webhooks_come_in_order_to_each_address(box: Sandbox) -> None:
    async with Server(reply()) as first, Server(reply()) as second:
        await box.add_webhook(first.url)
        await box.add_webhook(second.url, ["new_meeting", "new_message"])
        order = ["new_message", "new_meeting", "chat_to_call"] * 5
        for kind in order:
            await box.send_webhook(kind)
        await box.drain_webhooks()
    assert types(first) == order
    assert types(second) == ["new_message", "new_meeting"] * 5


async def test_webhooks_come_twice_and_out_of_order_when_asked(box: Sandbox) -> None:
    async with Server(reply()) as server:
        await box.add_webhook(server.url, copies=2)
        await box.send_webhook("new_message")
        await box.send_webhook("new_meeting")
        await box.drain_webhooks()
        assert Counter(types(server)) == {"new_message": 2, "new_meeting": 2}
    async with Server(reply()) as server, Sandbox() as box:
        await box.add_webhook(server.url, reverse=3)
        for kind in ("new_message", "new_meeting", "chat_to_call", "app_disconnected"):
            await box.send_webhook(kind)
        await box.drain_webhooks()
        assert types(server) == ["chat_to_call", "new_meeting", "new_message", "app_disconnected"]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://192.0.2.1/",
        "http://0.0.0.0/",
        "http://127.0.0.1@example.com/",
        "http://127.0.0.1.example.com/",
        "http://localhost.example.com/",
        "http://2130706433/",
        "//127.0.0.1/",
        "/hook",
        "ftp://127.0.0.1/",
        "http://127.0.0.1\\@example.com/",
        "",
    ],
)
async def test_only_this_machine_gets_webhooks(box: Sandbox, url: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        await box.add_webhook(url)
    answer = await ask(box, "POST /_sandbox/webhooks", {"url": url or "-"}, token=None)
    assert answer.status == 400


async def test_arguments_that_make_no_sense_are_refused(box: Sandbox) -> None:
    change: Any
    for change in ({"events": ["nope"]}, {"copies": 0}, {"reverse": 0}):
        with pytest.raises(ValueError):
            await box.add_webhook("http://127.0.0.1:1/", **change)
    await box.close()
    with pytest.raises(RuntimeError, match="not open"):
        await box.send_webhook("new_message")


async def test_what_does_not_fit_in_the_queue_is_logged(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "PENDING", 2)
    async with Server(reply()) as server:
        await box.add_webhook(server.url)
        for kind in ("new_message", "new_meeting", "chat_to_call"):
            await box.send_webhook(kind)
        done = await box.drain_webhooks()
    assert types(server) == ["new_message", "new_meeting"]
    outcomes = [(one.type, one.attempt, one.delivered) for one in done]
    assert outcomes == [
        ("chat_to_call", 0, False),
        ("new_message", 1, True),
        ("new_meeting", 1, True),
    ]


async def test_closing_gives_up_at_once_and_opening_starts_clean() -> None:
    refused, status = asyncio.Event(), ["500 X"]

    def answer(number: int, got: Got) -> bytes:
        refused.set()
        return reply(b"", status[0])

    async with Server(answer) as first, Server(reply()) as second:
        async with Sandbox(webhook_retries=(60,)) as box:
            await box.add_webhook(first.url)
            await box.add_webhook(second.url, reverse=9)
            for _ in range(3):
                await box.send_webhook("new_message")
            await refused.wait()
            began = time.monotonic()
        assert time.monotonic() - began < 5
        status[0] = "200 OK"
        async with box:
            await box.send_webhook("new_meeting", changed=1)
            await box.drain_webhooks()
        assert types(second) == ["new_meeting"]
        assert types(first)[-1] == "new_meeting"


async def test_the_control_api_adds_sends_and_shows(box: Sandbox) -> None:
    async with Server(reply()) as server:
        hook = {"url": server.url, "events": ["new_message"], "copies": 2}
        assert (await ask(box, "POST /_sandbox/webhooks", hook, token=None)).status == 201
        line = "POST /_sandbox/webhooks/send"
        given = {"type": "new_message", "data": {"a": 1}}
        assert (await ask(box, line, given, token=None)).status == 202
        assert (await ask(box, line, {"type": "nope"}, token=None)).status == 400
        await box.drain_webhooks()
        shown = (await ask(box, "GET /_sandbox/webhooks", token=None)).json["deliveries"]
    assert [(one["type"], one["status"]) for one in shown] == [("new_message", 200)] * 2
    assert [json.loads(one.body)["data"] for one in server.got] == [{"a": 1}] * 2


async def test_the_blocking_face_sends_them_too() -> None:
    def work(url: str) -> int:
        with drift_async.sync.Sandbox() as box:
            box.add_webhook(url)
            box.send_webhook("new_message", body="Hi")
            return len(box.drain_webhooks())

    async with Server(reply()) as server:
        assert await asyncio.to_thread(work, server.url) == 1
    assert json.loads(server.got[0].body)["data"]["body"] == "Hi"
