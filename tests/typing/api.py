"""Never run, only type-checked: what users of both faces get to see."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, assert_type

import drift_async
from drift_async import (
    Account,
    Bulk,
    BulkProgress,
    BulkReport,
    ButtonClickedEvent,
    Contact,
    Conversation,
    DeadEvent,
    EventStats,
    EventType,
    Hit,
    Message,
    NewContact,
    NewMessageEvent,
    Outcome,
    Page,
    Pager,
    RateState,
    Report,
    Retry,
    ScimUser,
    Secret,
    Token,
    TokenInfo,
    Track,
    User,
    WebhookEvent,
    sync,
)


async def awaited(drift: drift_async.Drift) -> None:
    assert_type(drift_async.Drift.from_env(timeout=5), drift_async.Drift)
    async with drift as entered:
        assert_type(entered, drift_async.Drift)
    assert_type(drift.with_options(retry=Retry(attempts=1)), drift_async.Drift)
    assert_type(await drift.contacts.get(7), Contact)
    assert_type((await drift.contacts.get(7)).created_at, datetime | None)
    assert_type((await drift.contacts.get(7)).attributes.email, str | None)
    assert_type(await drift.contacts.find_by_external_id("a"), list[Contact])
    assert_type(await drift.contacts.delete(7), None)
    assert_type(await drift.users.get_many([1, 2]), dict[int, User])
    assert_type(drift.conversations.all(status="open"), Pager[Conversation])
    assert_type(await drift.conversations.all().collect(limit=3), list[Conversation])
    assert_type(await drift.conversations.all().first(), Conversation | None)
    async for message in drift.conversations.messages(7):
        assert_type(message, Message)
    async for page in drift.accounts.all().pages():
        assert_type(page, Page[Account])
        assert_type(page.next, str)
    assert_type(await drift.conversations.transcript(7), str)
    assert_type(await drift.conversations.attachment(7), bytes)
    assert_type(await drift.conversations.download_attachment(7, "a.pdf"), int)
    assert_type(await drift.scim.get("a"), ScimUser)
    assert_type(await drift.reports.conversations([], []), Report)
    assert_type((await drift.app.token_info()).access_token, Secret)
    assert_type(await drift.request("GET", "/x"), Any)
    assert_type(drift.rate, RateState)
    assert_type(drift.contacts.get_many([7]), Bulk[int, Contact])
    async for done in drift.contacts.create_many([NewContact(email="ada@example.com")]):
        assert_type(done, Outcome[NewContact, Contact])
        assert_type(done.value, Contact)
        assert_type(done.error, Exception | None)
        assert_type(done.item.email, str)
    async with drift.contacts.delete_many(iter([7])) as bulk:
        assert_type(await bulk.collect(), BulkReport[int, None])
    ids = (conversation.id async for conversation in drift.conversations.all())
    assert_type(drift.bulk(drift.conversations.transcript, ids), Bulk[int, str])
    drift.contacts.get_many(ids, progress=lambda progress: assert_type(progress, BulkProgress))
    oauth = drift_async.OAuth("id", Secret("secret"))
    assert_type(oauth.authorize_url("state", redirect_uri="https://x"), str)
    token = await oauth.exchange(oauth.code_from("/back?code=c", state="state"))
    assert_type(token, Token)
    assert_type(token.refresh_token, Secret | None)
    assert_type(await oauth.refresh(token), Token)
    drift_async.Drift(auth=oauth.auth(token, on_refresh=saved))


async def saved(token: Token) -> None: ...


def blocking(drift: sync.Drift) -> None:
    assert_type(sync.Drift.from_env(timeout=5), sync.Drift)
    with drift as entered:
        assert_type(entered, sync.Drift)
    assert_type(drift.with_options(retry=Retry(attempts=1)), sync.Drift)
    assert_type(drift.contacts.get(7), Contact)
    assert_type(drift.contacts.find_by_external_id("a"), list[Contact])
    assert_type(drift.users.get_many([1, 2]), dict[int, User])
    assert_type(drift.conversations.all(status="open"), sync.Pager[Conversation])
    assert_type(drift.conversations.all().collect(limit=3), list[Conversation])
    assert_type(drift.conversations.all().first(), Conversation | None)
    for message in drift.conversations.messages(7):
        assert_type(message, Message)
    for page in drift.accounts.all().pages():
        assert_type(page, Page[Account])
    assert_type(drift.conversations.transcript(7), str)
    assert_type(drift.app.token_info(), TokenInfo)
    oauth = sync.OAuth("id", "secret")
    assert_type(oauth.exchange("code"), Token)
    sync.Drift(auth=oauth.auth(oauth.exchange("code"), on_refresh=print))
    assert_type(drift.rate, RateState)
    assert_type(drift.contacts.get_many([7]), sync.Bulk[int, Contact])
    for done in drift.contacts.create_many([NewContact(email="ada@example.com")]):
        assert_type(done, Outcome[NewContact, Contact])
        assert_type(done.value, Contact)
    with drift.contacts.delete_many(iter([7])) as bulk:
        assert_type(bulk.collect(), BulkReport[int, None])
    ids = (conversation.id for conversation in drift.conversations.all())
    assert_type(drift.bulk(drift.conversations.transcript, ids), sync.Bulk[int, str])
    drift.contacts.get_many(ids, progress=lambda progress: assert_type(progress, BulkProgress))


def webhooks_awaited(webhooks: drift_async.Webhooks) -> None:
    @webhooks.on(NewMessageEvent)
    async def answer(event: NewMessageEvent) -> None:
        assert_type(event.data, Message)
        assert_type(event.org_id, int | None)
        assert_type(event.occurred_at, datetime | None)

    @webhooks.on(WebhookEvent)
    def note(event: WebhookEvent) -> None:
        assert_type(event.type, EventType | None)

    @webhooks.on(NewMessageEvent)  # type: ignore[arg-type]  # a handler of other events
    def other(event: ButtonClickedEvent) -> None: ...

    assert_type(answer, Callable[[NewMessageEvent], Coroutine[Any, Any, None]])
    assert_type(webhooks.parse(b"", {"a": "b"}), WebhookEvent)
    assert_type(webhooks.parse(b"", [(b"a", b"b")]), WebhookEvent)


async def webhooks_dispatched(webhooks: drift_async.Webhooks, event: WebhookEvent) -> None:
    assert_type(await webhooks.dispatch(event), bool)
    assert_type(await webhooks.drain(timeout=1), int)


def webhooks_blocking(webhooks: sync.Webhooks, event: WebhookEvent) -> None:
    @webhooks.on(NewMessageEvent)
    def note(event: NewMessageEvent) -> None:
        assert_type(event.data.body, str | None)

    @webhooks.on(NewMessageEvent)  # type: ignore[arg-type]  # async, and this is the blocking face
    async def answer(event: NewMessageEvent) -> None: ...

    assert_type(webhooks.parse(b"", {}), WebhookEvent)
    assert_type(webhooks.dispatch(event), bool)


async def events(stream: drift_async.SegmentStream, blocking: sync.DriftEvents) -> None:
    assert_type(await stream.track({"name": "x"}, user_id="u7"), None)
    assert_type(await stream.track_many([Hit({}, user_id="u7")]), int)
    assert_type(await stream.flush(), EventStats)
    assert_type(await stream.close(timeout=1), EventStats)
    assert_type(stream.stats().dropped, Mapping[str, int])
    assert_type(await stream.dead(), list[DeadEvent])
    async with stream as entered:
        assert_type(entered, drift_async.SegmentStream)
    assert_type(sync.DriftEvents.from_env(outbox="outbox", linger=0.1), sync.DriftEvents)
    assert_type(blocking.track_many(Track("x", user_id=n) for n in range(3)), int)
    assert_type(blocking.close(), EventStats)
    assert_type(blocking.replay(), int)
    blocking.track("x", when=3)  # type: ignore[call-arg]  # there is no such argument


def shared(contact: Contact) -> None:
    assert_type(drift_async.to_json(contact), dict[str, Any])
    assert_type(drift_async.from_json(Contact, {}), Contact)
    assert_type(contact.extra, Mapping[str, Any])


async def refused(drift: drift_async.Drift, blocking: sync.Drift) -> None:
    await drift.contacts.get("7")  # type: ignore[arg-type]  # an id is an int
    blocking.contacts.get("7")  # type: ignore[arg-type]  # an id is an int
    drift.contacts.get_many(["7"])  # type: ignore[list-item]  # an id is an int
    drift.bulk(drift.conversations.transcript, ["7"])  # type: ignore[arg-type]  # the same
    blocking.bulk(blocking.conversations.transcript, ["7"])  # type: ignore[arg-type]  # the same
    drift.contacts.get_many([7], windw=3)  # type: ignore[call-arg]  # there is no such option
    drift.conversations.all(limit=3)  # type: ignore[call-arg]  # there is no such argument
    (await drift.contacts.get(7)).id = 8  # type: ignore[misc]  # models are frozen
    drift_async.Drift(auth="token")  # type: ignore[arg-type]  # that is a plain token
    drift_async.Drift("token", timeout="5")  # type: ignore[arg-type]  # seconds are a number
