"""Tokens that are renewed: when, how often, for whom, and what is stored first; on both faces."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

import drift_async
import drift_async.sync
from drift_async import (
    APIError,
    AuthenticationError,
    CredentialsError,
    DeadlineError,
    Drift,
    OAuth,
    OutcomeUnknownError,
    Retry,
    RetryInfo,
    ScopeError,
    Secret,
    ServerError,
    Token,
    TokenNotSavedError,
    from_json,
    to_json,
)
from drift_async.core import call
from drift_async.sandbox import Sandbox
from tests.support.consent import SOMEBODY, app_of, bearers, given_out, granted, made, operations
from tests.support.errors import told
from tests.support.renewal import GET, REFRESH, ended, waits_for_token
from tests.support.server import Got, Server, reply

pytestmark = pytest.mark.anyio

ONCE = Retry(attempts=1)
GOOD = reply(b'{"data": {"id": 7}}')
BAD = reply(b'{"error": {"type": "authentication_error", "message": "no"}}', "401 Unauthorized")


def refuses_all(n: int, got: Got) -> bytes:
    """Give out tokens that are good for nothing."""
    asks = got.target == "/oauth2/token"
    return reply(given_out(f"access-{n}", f"refresh-{n}")) if asks else BAD


# -- a call that is refused for its token


@pytest.mark.smoke
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_is_renewed_and_the_call_sent_again(make: Any, status: int) -> None:
    heard: list[Any] = []
    async with Sandbox(denied_status=status) as box:
        store = await ended(box)
        auth = app_of(box).auth(store.tokens[0], on_refresh=store.save)
        async with make(auth=auth, base_url=box.url, retry=ONCE, on_retry=heard.append) as drift:
            assert (await drift.contacts.get(SOMEBODY)).id == SOMEBODY
            assert (await drift.app.token_info()).access_token == Secret(store.access())
        assert operations(box) == [GET, REFRESH, GET, "app.token_info"]
        assert bearers(box) == [store.access(0), store.access(1), store.access(1)]
    assert heard == [RetryInfo("GET /contacts/{contact_id}", 1, status, None, 0.0)]
    assert auth.token is store.tokens[1]


async def test_a_restart_goes_on_with_what_was_stored(make: Any, box: Sandbox) -> None:
    store = await ended(box)
    for generation in range(3):
        token = from_json(Token, json.loads(json.dumps(to_json(store.tokens[-1]))))
        auth = app_of(box).auth(token, on_refresh=store.save)
        async with make(auth=auth, base_url=box.url) as drift:
            await drift.contacts.get(SOMEBODY)
        box.expire(store.access())
        assert len(store.tokens) == generation + 2


@pytest.mark.parametrize("retry", [ONCE, Retry(base=0)])
async def test_a_new_token_that_is_refused_too_ends_the_call(make: Any, retry: Retry) -> None:
    async with Server(refuses_all) as server:
        auth = OAuth("id", "secret", base_url=server.url).auth(made())
        async with make(auth=auth, base_url=server.url, retry=retry) as drift:
            for _ in range(20):
                with pytest.raises(AuthenticationError) as caught:
                    await drift.contacts.get(7)
                assert caught.value.applied is False
            with pytest.raises(AuthenticationError) as other:
                await drift.users.get(7)
    assert (caught.value.attempts, other.value.attempts) == (1, 2)
    asked = [got.target for got in server.got].count("/oauth2/token")
    assert asked == 2  # one for each operation, and not one for each call


async def test_after_a_while_a_new_token_is_tried_again(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server(refuses_all) as server:
        auth = OAuth("id", "secret", base_url=server.url).auth(made())
        async with make(auth=auth, base_url=server.url) as drift:
            for wait, attempts in ((60.0, 2), (60.0, 1), (0.0, 2), (60.0, 1)):
                monkeypatch.setattr(call, "DENIED", wait)
                with pytest.raises(AuthenticationError) as caught:
                    await drift.contacts.get(7)
                assert caught.value.attempts == attempts


@pytest.mark.parametrize("raised", [True, False])
async def test_the_attempts_are_counted_and_the_others_not_forgotten(
    make: Any, box: Sandbox, raised: bool
) -> None:
    store = await ended(box)
    box.fail("contacts.update", cut="before")
    box.fail("contacts.update", status=500, skip=1, times=None)
    if raised:
        box.fail(REFRESH, status=500)
    auth = app_of(box).auth(store.tokens[0])
    async with make(auth=auth, base_url=box.url, retry=Retry(attempts=3, base=0)) as drift:
        with pytest.raises(ServerError) as caught:
            await drift.contacts.update(SOMEBODY, {"plan": "pro"})
    assert caught.value.applied is None  # the first request may have been applied
    if raised:
        assert caught.value.operation == "POST /oauth2/token"
        assert len(box.seen) == 3
    else:
        assert (caught.value.attempts, len(box.seen)) == (3, 4)


async def test_a_missing_scope_is_no_matter_of_the_token(make: Any) -> None:
    async with Sandbox(app_scopes=["contact_write"]) as box:
        auth = app_of(box).auth(await granted(box))
        async with make(auth=auth, base_url=box.url) as drift:
            with pytest.raises(ScopeError) as caught:
                await drift.contacts.get(SOMEBODY)
        assert (caught.value.scope, caught.value.attempts) == ("contact_read", 1)
        assert operations(box) == [GET]


async def test_a_403_of_another_kind_is_no_matter_of_the_token(make: Any, box: Sandbox) -> None:
    auth = app_of(box).auth(await granted(box))
    for body in ("<html>blocked</html>", {"error": {"type": "forbidden", "message": "no"}}):
        box.fail(GET, status=403, body=body)
        async with make(auth=auth, base_url=box.url) as drift:
            with pytest.raises(AuthenticationError):
                await drift.contacts.get(SOMEBODY)
    assert operations(box) == [GET, GET]


async def test_a_client_with_a_plain_token_asks_for_none(make: Any, box: Sandbox) -> None:
    async with make("wrong", base_url=box.url) as drift:
        with pytest.raises(AuthenticationError) as caught:
            await drift.contacts.get(SOMEBODY)
    assert caught.value.attempts == len(box.seen) == 1


# -- one refresh for all


async def test_500_callers_are_served_by_one_refresh(box: Sandbox) -> None:
    store = await ended(box)
    auth = app_of(box).auth(store.tokens[0], on_refresh=store.save)
    async with Drift(auth=auth, base_url=box.url) as drift:
        found = await asyncio.gather(*(drift.contacts.get(SOMEBODY) for _ in range(500)))
    assert {contact.id for contact in found} == {SOMEBODY}
    assert operations(box).count(REFRESH) == 1
    assert len(store.tokens) == 2


async def test_the_first_caller_is_cancelled_and_499_go_on(box: Sandbox) -> None:
    store, asked, go = await ended(box), asyncio.Event(), asyncio.Event()

    async def save(token: Token) -> None:
        asked.set()
        await go.wait()
        store.save(token)

    auth = app_of(box).auth(store.tokens[0], on_refresh=save)
    async with Drift(auth=auth, base_url=box.url) as drift:
        first = asyncio.create_task(drift.contacts.get(SOMEBODY))
        await asked.wait()
        others = [asyncio.create_task(drift.contacts.get(SOMEBODY)) for _ in range(499)]
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go.set()
        assert len(await asyncio.gather(*others)) == 499
    assert operations(box).count(REFRESH) == 1


async def test_clients_of_one_loop_share_a_refresh(box: Sandbox) -> None:
    store = await ended(box)
    auth = app_of(box).auth(store.tokens[0], on_refresh=store.save)
    async with Drift(auth=auth, base_url=box.url) as one, Drift(auth=auth, base_url=box.url) as two:
        await asyncio.gather(*(drift.contacts.get(SOMEBODY) for drift in (one, two) * 20))
        assert operations(box).count(REFRESH) == 1
        box.expire(store.access())
        await one.contacts.get(SOMEBODY)
        await two.contacts.get(SOMEBODY)  # learns of the new token by its own refusal
    assert operations(box).count(REFRESH) == 2


async def test_blocking_clients_and_threads_share_a_refresh(box: Sandbox) -> None:
    store = await ended(box)
    auth = app_of(box, drift_async.sync.OAuth).auth(store.tokens[0], on_refresh=store.save)
    clients = [drift_async.sync.Drift(auth=auth, base_url=box.url) for _ in range(4)]

    def use() -> None:
        barrier = threading.Barrier(16)
        errors: list[BaseException] = []

        def ask(drift: drift_async.sync.Drift) -> None:
            try:
                barrier.wait()
                drift.contacts.get(SOMEBODY)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=ask, args=(drift,)) for drift in clients * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for drift in clients:
            drift.close()
        assert not errors

    await asyncio.to_thread(use)
    assert operations(box).count(REFRESH) == 1
    assert len(store.tokens) == 2


async def test_who_asks_just_after_a_refresh_causes_no_other(box: Sandbox) -> None:
    store = await ended(box)
    auth = app_of(box).auth(store.tokens[0], on_refresh=store.save)
    stale = auth.secret
    async with Drift(auth=auth, base_url=box.url) as drift:
        live = drift._caller.site.live
        assert live is not None
        await auth.renew(stale, live)
        await auth.renew(stale, live)  # as a thread does that looked before the first was over
    assert operations(box) == [REFRESH]


async def test_a_refresh_is_not_paced_by_what_the_oauth_client_does(
    make: Any, make_oauth: Any, box: Sandbox
) -> None:
    store = await ended(box)
    async with app_of(box, make_oauth, rate=drift_async.Rate(0.001)) as oauth:
        with pytest.raises(CredentialsError):
            await oauth.exchange("code")
        async with make(auth=oauth.auth(store.tokens[0]), base_url=box.url) as drift:
            await drift.contacts.get(SOMEBODY)


async def test_what_was_sent_with_an_older_token_is_only_sent_again() -> None:
    late, arrived = asyncio.Event(), asyncio.Event()
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"/oauth2/token" in head:
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                answer = reply(given_out("access-2", "refresh-2"))
            else:
                answer = GOOD if b"Bearer access-2" in head else BAD
                if b"/contacts/8" in head and answer is BAD:
                    arrived.set()
                    await late.wait()
            asked.append(head.split(b" ")[1].decode())
            writer.write(answer)

    async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(quiet, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    auth = OAuth("id", "secret", base_url=url).auth(made())
    async with server, Drift(auth=auth, base_url=url, retry=ONCE) as drift:
        slow = asyncio.create_task(drift.contacts.get(8))
        await arrived.wait()
        await drift.contacts.get(7)
        late.set()
        await slow
    assert asked == [
        "/contacts/7",
        "/oauth2/token",
        "/contacts/7",
        "/contacts/8",
        "/contacts/8",
    ]


# -- what is stored before it is used


@pytest.mark.parametrize("kind", ["plain", "coroutine", "lambda", "object"])
async def test_no_request_uses_a_token_that_is_not_stored(box: Sandbox, kind: str) -> None:
    store, seen = await ended(box), []

    class Saver:
        async def __call__(self, token: Token) -> None:
            seen.append(len(box.seen))
            await asyncio.sleep(0)
            store.save(token)

    async def coroutine(token: Token) -> None:
        await Saver()(token)

    def plain(token: Token) -> None:
        seen.append(len(box.seen))
        store.save(token)

    savers: dict[str, Callable[[Token], object]] = {
        "plain": plain,
        "coroutine": coroutine,
        "lambda": lambda token: coroutine(token),
        "object": Saver(),
    }
    auth = app_of(box).auth(store.tokens[0], on_refresh=savers[kind])
    async with Drift(auth=auth, base_url=box.url) as drift:
        await drift.contacts.get(SOMEBODY)
    assert operations(box) == [GET, REFRESH, GET]
    assert seen == [2]
    on_loop = store.threads == [threading.current_thread()]
    assert on_loop == (kind != "plain")


async def test_on_refresh_may_block_in_a_thread_of_its_own(make: Any, box: Sandbox) -> None:
    store = await ended(box)

    def save(token: Token) -> None:
        store.save(token)
        # Were this the loop's thread, or one of its pool, nothing would come of this call.
        with drift_async.sync.Drift(box.token, base_url=box.url) as drift:
            drift.contacts.get(SOMEBODY)

    auth = app_of(box).auth(store.tokens[0], on_refresh=save)
    async with make(auth=auth, base_url=box.url) as drift:
        await drift.contacts.get(SOMEBODY)
    assert store.threads[0].name.startswith("drift-async-on-refresh")
    assert bearers(box) == [store.access(0), box.token, store.access(1)]


async def test_a_token_that_cannot_be_stored_is_kept_and_offered_again(
    make: Any, box: Sandbox
) -> None:
    store = await ended(box)
    offered: list[Token] = []

    def save(token: Token) -> None:
        offered.append(token)
        if len(offered) < 3:
            raise OSError(28, "no space left on device")
        store.save(token)

    auth = app_of(box).auth(store.tokens[0], on_refresh=save)
    async with make(auth=auth, base_url=box.url) as drift:
        for _ in range(2):
            with pytest.raises(TokenNotSavedError, match="OSError") as caught:
                await drift.contacts.get(SOMEBODY)
            assert caught.value.applied is False
            assert isinstance(caught.value.__cause__, OSError)
            assert auth.token is store.tokens[0]
        await drift.contacts.get(SOMEBODY)
    assert operations(box) == [GET, REFRESH, GET, GET, GET]
    assert set(bearers(box)[:-1]) == {store.access(0)}
    assert len({id(token) for token in offered}) == 1
    assert auth.token is offered[0]


async def test_an_exit_in_on_refresh_is_an_error_too(make: Any, box: Sandbox) -> None:
    def save(token: Token) -> None:
        sys.exit("no")

    auth = app_of(box).auth((await ended(box)).tokens[0], on_refresh=save)
    async with make(auth=auth, base_url=box.url) as drift:
        with pytest.raises(TokenNotSavedError, match="SystemExit"):
            await drift.contacts.get(SOMEBODY)


class Stopped(BaseException):
    """What ends a task by force in some frameworks, and is no Exception."""


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("raised", [asyncio.CancelledError, Stopped])
async def test_an_on_refresh_that_is_ended_by_force_has_failed_too(
    make: Any, box: Sandbox, kind: str, raised: type[BaseException]
) -> None:
    store, offered = await ended(box), []

    def plain(token: Token) -> None:
        offered.append(token)
        if len(offered) == 1:
            raise raised
        store.save(token)

    async def coroutine(token: Token) -> None:
        plain(token)

    save = plain if kind == "plain" else coroutine
    auth = app_of(box).auth(store.tokens[0], on_refresh=save)
    async with make(auth=auth, base_url=box.url, timeout=2) as drift:
        with pytest.raises(TokenNotSavedError, match=raised.__name__) as caught:
            await drift.contacts.get(SOMEBODY)
        assert isinstance(caught.value.__cause__, raised)
        assert len(offered) == 1
        await drift.contacts.get(SOMEBODY)
    assert operations(box).count(REFRESH) == 1
    assert auth.token is offered[0] is offered[1]


# -- a refresh that fails


async def test_all_who_wait_get_the_one_error_and_the_next_asks_again(box: Sandbox) -> None:
    store = await ended(box)
    gate = asyncio.Event()

    async def hold(token: Token) -> Token:
        await gate.wait()
        return cast(Token, await refresh(token))

    auth = app_of(box).auth(store.tokens[0], on_refresh=store.save)
    refresh, auth._refresh = auth._refresh, hold
    box.fail(REFRESH, status=500)
    async with Drift(auth=auth, base_url=box.url) as drift:
        calls = [asyncio.create_task(drift.contacts.get(SOMEBODY)) for _ in range(50)]
        for task in calls:
            await waits_for_token(task)
        gate.set()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {ServerError}
        assert len({str(error) for error in errors}) == 1
        assert len({id(error) for error in errors}) == 50  # each has a traceback of its own
        assert operations(box).count(REFRESH) == 1
        await drift.contacts.get(SOMEBODY)
    assert operations(box).count(REFRESH) == 2


@pytest.mark.parametrize("status", [400, 401])
async def test_a_refused_refresh_token_is_asked_about_once(
    make: Any, box: Sandbox, status: int
) -> None:
    store = await ended(box)
    box.fail(REFRESH, status=status, body={"error": "invalid_grant"}, times=None)
    auth = app_of(box).auth(store.tokens[0], on_refresh=store.save)
    for _ in range(2):
        async with make(auth=auth, base_url=box.url) as drift:
            for _ in range(5):
                with pytest.raises(CredentialsError, match=f"^POST /oauth2/token: {status}") as no:
                    await drift.contacts.get(SOMEBODY)
                assert no.value.applied is False
    assert operations(box).count(REFRESH) == 1
    box.heal()
    auth = app_of(box).auth(await granted(box), on_refresh=store.save)  # the user agrees again
    async with make(auth=auth, base_url=box.url) as drift:
        await drift.contacts.get(SOMEBODY)


@pytest.mark.parametrize("status", [403, 404, 413, 422, 500])
async def test_after_another_refusal_the_next_call_asks_again(
    make: Any, box: Sandbox, status: int
) -> None:
    store = await ended(box)
    box.fail(REFRESH, status=status, body="<html>blocked by the gateway</html>")
    auth = app_of(box).auth(store.tokens[0], on_refresh=store.save)
    async with make(auth=auth, base_url=box.url) as drift:
        with pytest.raises(APIError, match=f"^POST /oauth2/token: {status}") as caught:
            await drift.contacts.get(SOMEBODY)
        assert (caught.value.status, caught.value.applied) == (status, False)
        await drift.contacts.get(SOMEBODY)
    assert operations(box).count(REFRESH) == 2


async def test_a_refresh_whose_reply_is_lost_is_not_repeated_by_itself(
    make: Any, box: Sandbox
) -> None:
    store = await ended(box)
    box.fail(REFRESH, cut="after")
    auth = app_of(box).auth(store.tokens[0], on_refresh=store.save)
    async with make(auth=auth, base_url=box.url) as drift:
        with pytest.raises(OutcomeUnknownError) as caught:
            await drift.contacts.get(SOMEBODY)
        assert caught.value.applied is False  # of the call that was made
        assert operations(box) == [GET, REFRESH]
        with pytest.raises(CredentialsError):  # it was used up
            await drift.contacts.get(SOMEBODY)


async def test_a_refresh_that_takes_too_long_for_one_call_serves_the_next(
    make: Any, box: Sandbox
) -> None:
    store, go = await ended(box), threading.Event()

    def save(token: Token) -> None:
        assert go.wait(15)
        store.save(token)

    auth = app_of(box).auth(store.tokens[0], on_refresh=save)
    async with make(auth=auth, base_url=box.url) as drift:
        with pytest.raises(DeadlineError, match="no new token in time") as caught:
            await drift.with_options(timeout=0.3).contacts.get(SOMEBODY)
        assert (caught.value.applied, caught.value.attempts) == (False, 1)
        go.set()
        await drift.contacts.get(SOMEBODY)
    assert operations(box).count(REFRESH) == 1


@pytest.mark.parametrize("raised", [RuntimeError, asyncio.CancelledError, Stopped])
async def test_whatever_else_goes_wrong_is_a_typed_error_too(
    make: Any, raised: type[BaseException]
) -> None:
    async def refresh(token: Token) -> Token:
        raise raised("can't start new thread")

    async with Server(BAD) as server:
        auth = OAuth("id", "secret", base_url=server.url).auth(made())
        auth._refresh = refresh
        async with make(auth=auth, base_url=server.url, timeout=2) as drift:
            with pytest.raises(drift_async.DriftError, match=raised.__name__) as caught:
                await drift.contacts.get(7)
    assert isinstance(caught.value.__cause__, raised)


# -- nothing shows


async def test_no_error_of_a_call_with_auth_shows_a_token(
    make: Any, box: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = await ended(box)
    planted = [store.access(), str(to_json(store.tokens[0])["refresh_token"]), box.client_secret]
    said = ""
    for fault in ({"status": 500}, {"cut": "before"}, {"status": 400, "body": " ".join(planted)}):
        box.fail(REFRESH, **fault)
        auth = drift_async.OAuth(box.client_id, Secret(box.client_secret), base_url=box.url).auth(
            store.tokens[0]
        )
        async with make(auth=auth, base_url=box.url) as drift:
            with pytest.raises(drift_async.DriftError) as caught:
                await drift.contacts.get(SOMEBODY)
            said += told(caught.value, with_locals=True) + repr(auth) + repr(drift)
    said += caplog.text
    assert len(caplog.records) > 5
    assert not [secret for secret in planted if secret in said]


def test_the_clock_of_tokens_is_the_wall_clock() -> None:
    assert OAuth("id", "secret")._now is time.time
