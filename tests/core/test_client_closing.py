"""Closing a client: what becomes of the calls under way, and what is left if it is cancelled."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from drift_async import (
    ClosedError,
    DeadlineError,
    Drift,
    OAuth,
    OutcomeUnknownError,
    Retry,
    Token,
    from_json,
)
from drift_async.core.call import Live
from drift_async.sandbox import Sandbox
from tests.support.flavours import core
from tests.support.server import Got, Server, reply

pytestmark = pytest.mark.anyio

SOMEBODY = 228_225
CONVERSATION = 4_300_000_000


async def until(is_so: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def live_of(drift: Any) -> Live:
    live: Live | None = core(drift)._caller.site.live
    assert live is not None
    return live


# -- calls under way


@asynccontextmanager
async def looking_up() -> AsyncIterator[tuple[str, Callable[[], object]]]:
    """Give an address whose look-up takes until the end, and what tells that it has begun."""
    begun, over = threading.Event(), threading.Event()

    def look_up(*_: object, **__: object) -> list[object]:
        begun.set()
        over.wait()
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        try:
            yield "https://drift.example", begun.is_set
        finally:
            over.set()


@asynccontextmanager
async def shaking_hands() -> AsyncIterator[tuple[str, Callable[[], object]]]:
    """Give the address of a server that never says a word, and what tells that it was spoken to."""
    begun = threading.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        begun.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", begun.is_set
    server.close()


@pytest.mark.parametrize("where", [looking_up, shaking_hands])
async def test_a_call_that_has_no_connection_yet_ends_when_the_client_is_closed(
    make: Any, where: Any
) -> None:
    retries: list[object] = []
    async with where() as (url, is_begun):
        drift = make("token", base_url=url, on_retry=retries.append)
        await drift.open()
        calls = [asyncio.create_task(drift.users.get(SOMEBODY)) for _ in range(2)]
        running = live_of(drift).connection._watch.running
        await until(lambda: is_begun() and len(running) == 2)
        await drift.close()
        for call in calls:
            with pytest.raises(ClosedError) as caught:
                await call
            assert caught.value.applied is False
    assert not retries


async def test_calls_that_wait_for_a_connection_end_when_the_client_is_closed(
    make: Any, box: Sandbox
) -> None:
    retries: list[object] = []
    drift = make(box.token, base_url=box.url, max_connections=1, on_retry=retries.append)
    await drift.open()
    box.fail("users.get", delay=60)
    calls = [asyncio.create_task(drift.users.get(SOMEBODY))]
    await until(lambda: box.count)
    calls.append(asyncio.create_task(drift.users.get(SOMEBODY)))
    calls.append(asyncio.create_task(drift.conversations.create_message(CONVERSATION, "<p>a</p>")))
    running = live_of(drift).connection._watch.running
    await until(lambda: len(running) == 3)
    await drift.close()
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [ClosedError] * 3
    assert [error.applied for error in errors] == [None, False, False]  # type: ignore[union-attr]
    assert box.count == 1
    assert not retries


async def test_of_a_create_under_way_nobody_knows_when_the_client_is_closed(
    make: Any, box: Sandbox
) -> None:
    drift = make(box.token, base_url=box.url)
    await drift.open()
    box.fail("conversations.create_message", delay=60)
    call = asyncio.create_task(drift.conversations.create_message(CONVERSATION, "<p>a</p>"))
    await until(lambda: box.count)
    await drift.close()
    with pytest.raises(OutcomeUnknownError, match="the client was closed") as caught:
        await call
    assert caught.value.applied is None


@asynccontextmanager
async def by_timeout() -> AsyncIterator[None]:
    async with asyncio.timeout(60):
        yield


@asynccontextmanager
async def by_scope() -> AsyncIterator[None]:
    with anyio.CancelScope() as scope:
        yield
    assert not scope.cancelled_caught


@asynccontextmanager
async def by_group() -> AsyncIterator[None]:
    async with asyncio.TaskGroup():
        try:
            yield
        except ClosedError as error:
            raised = error
    raise raised


@pytest.mark.parametrize("around", [by_timeout, by_scope, by_group])
async def test_that_cancels_nothing_around_the_call(
    box: Sandbox, around: Callable[[], Any]
) -> None:
    box.fail("users.get", delay=60)
    drift = Drift(box.token, base_url=box.url)
    await drift.open()

    async def use() -> int:
        with pytest.raises(ClosedError):
            async with around():
                await drift.users.get(SOMEBODY)
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    task = asyncio.create_task(use())
    await until(lambda: box.count)
    await drift.close()
    assert await task == 0


@pytest.mark.parametrize("first", ["closing", "caller", "limit"])
async def test_a_cancellation_in_the_moment_of_closing_is_not_lost(
    box: Sandbox, first: str
) -> None:
    box.fail("users.get", delay=60)
    async with Drift(box.token, base_url=box.url) as drift:
        call = asyncio.create_task(drift.users.get(SOMEBODY))
        await until(lambda: box.count)
        watch = live_of(drift).connection._watch
        [attempt] = watch.running
        ends: dict[str, Callable[[], object]]
        ends = {"closing": watch.close, "caller": call.cancel, "limit": attempt.expire}
        ends[first]()
        for end in ends.values():
            end()
        await asyncio.wait([call])
        assert call.cancelled()


# -- closing is cancelled


def token(access: str) -> Token:
    return from_json(Token, {"access_token": access, "refresh_token": "refresh"})


async def cancel_task(closing: Callable[[], Awaitable[object]]) -> None:
    task = asyncio.ensure_future(closing())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def cancel_scope(closing: Callable[[], Awaitable[object]]) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await closing()
    assert scope.cancelled_caught


@pytest.mark.parametrize("is_renewing", [False, True])
@pytest.mark.parametrize("cancel", [cancel_task, cancel_scope])
async def test_a_client_whose_closing_is_cancelled_is_closed_all_the_same(
    cancel: Callable[..., Awaitable[None]], is_renewing: bool
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def refresh(old: Token) -> Token:
        begun.set()
        await go.wait()
        return token("second")

    async with Server(reply(b"{}")) as server:
        auth = OAuth("id", "secret", base_url=server.url).auth(token("first"))
        auth._refresh = refresh
        # A name, so that there is a thread that looks it up.
        drift = Drift(auth=auth, base_url=server.url.replace("127.0.0.1", "localhost"))
        await drift.open()
        await asyncio.gather(*(drift.request("GET", "/x") for _ in range(3)))
        live = live_of(drift)
        waiting = None
        if is_renewing:
            waiting = asyncio.create_task(auth.renew(auth.secret, live))
            await begun.wait()
        assert len(server._writers) == server.connections > 0
        threads = [t for t in threading.enumerate() if t.name == "drift-async-resolver"]

        await cancel(drift.close)
        await until(lambda: not server._writers)
        await until(lambda: live.tasks == ({live.renewal} if is_renewing else set()))
        await until(lambda: not any(thread.is_alive() for thread in threads))
        await drift.close()
        if waiting is not None:
            go.set()
            await waiting
            assert auth.secret.reveal() == "second"
        async with drift:
            await drift.request("GET", "/x")
    used = "second" if is_renewing else "first"
    assert server.got[-1].headers["authorization"] == f"Bearer {used}"


# -- a loop with another clock than its callers


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_time_limits_hold_in_a_loop_whose_clock_is_another(ahead: int) -> None:
    class Loop(asyncio.SelectorEventLoop):
        def time(self) -> float:
            return super().time() + ahead

    def answer(n: int, got: Got) -> bytes:
        return reply(b"{}") if n > 1 else reply(status="401 Unauthorized")

    async def refresh(old: Token) -> Token:
        return token("second")

    async def main() -> None:
        async with Server(answer) as server, Sandbox() as box:
            auth = OAuth("id", "secret", base_url=server.url).auth(token("first"))
            auth._refresh = refresh
            async with Drift(auth=auth, base_url=server.url, timeout=5) as drift:
                await drift.request("GET", "/x")
            assert [got.headers["authorization"] for got in server.got] == [
                "Bearer first",
                "Bearer second",
            ]
            box.fail("users.get", delay=60)
            async with Drift(box.token, base_url=box.url, timeout=0.2) as drift:
                limiter = drift._caller.site.limiters["default"]
                limiter.refused(time.monotonic(), 0.01, is_rate_limit=False)
                with pytest.raises(DeadlineError) as caught:
                    await drift.users.get(SOMEBODY)
            assert (caught.value.applied, caught.value.attempts) == (None, 1)
            assert 0.19 <= caught.value.elapsed < 3

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


# -- a connection on which the server spoke unasked


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_reply_that_came_unasked_answers_no_other_call(make: Any, method: str) -> None:
    def answer(_: int, got: Got) -> bytes:
        return reply(json.dumps(got.target).encode())

    async with (
        Server(answer) as server,
        make("token", base_url=server.url, retry=Retry(base=0)) as drift,
    ):
        assert await drift.request("GET", "/1") == "/1"
        [writer] = server._writers
        writer.write(answer(0, server.got[0]))
        [[(kept, _)]] = live_of(drift).connection._session.connector._conns.values()  # type: ignore[union-attr]
        await until(lambda: kept.should_close)  # it is there
        assert await drift.request(method, "/2") == "/2"
        assert await drift.request(method, "/3") == "/3"
    assert [got.target for got in server.got] == ["/1", "/2", "/3"]
    assert server.connections == 2
