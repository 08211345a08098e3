"""The receivers behind real servers: what is taken, what is refused, and when it ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import gzip
import json
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from drift_async import NewMessageEvent, WebhookEvent, Webhooks
from tests.support import virtual
from tests.support.deliveries import FORGERIES, PAYLOADS, TOKEN, body
from tests.support.webhook_servers import (
    SERVERS,
    Answer,
    Kept,
    aiohttp_serves,
    answered,
    connected,
    post,
    request,
    uvicorn_serves,
)

pytestmark = pytest.mark.anyio

Serve = Callable[[Webhooks], AbstractAsyncContextManager[int]]


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest) -> Serve:
    """Return what serves either receiver."""
    return SERVERS[request.param]


@pytest.mark.smoke
async def test_a_delivery_is_answered_and_handled(serve: Serve) -> None:
    kept = Kept()
    async with serve(kept.webhooks) as port:
        answer = await post(port, request())
        await kept.came.wait()
    assert (answer.status, answer.body) == (200, b"")
    (event,) = kept.events
    assert isinstance(event, NewMessageEvent)
    assert event.data.body == "Hello"


async def test_every_documented_type_is_taken(serve: Serve) -> None:
    kept = Kept()
    async with serve(kept.webhooks) as port:
        for kind in PAYLOADS:
            assert (await post(port, request(body(kind), token=None))).status == 200
        await kept.webhooks.drain()
    assert [event.type for event in kept.events] == list(PAYLOADS)


async def test_the_answer_goes_out_before_the_handlers_run(serve: Serve) -> None:
    kept = Kept()
    kept.go.clear()
    async with serve(kept.webhooks) as port:
        assert (await post(port, request())).status == 200
        await kept.came.wait()
        assert await kept.webhooks.drain(timeout=0) == 1
    assert kept.webhooks._queue._running == set()


async def test_nothing_of_a_handler_runs_before_the_answer_is_sent() -> None:
    order: list[str] = []
    webhooks = Webhooks(TOKEN)

    @webhooks.on(WebhookEvent)
    async def note(event: WebhookEvent) -> None:
        order.append("handler")

    async def slow_send(message: Any) -> None:
        await asyncio.sleep(0)
        order.append(message["type"])
        await asyncio.sleep(0)

    await called(webhooks, [body()], slow_send)
    await webhooks.drain()
    assert order == ["http.response.start", "http.response.body", "handler"]


REFUSED: dict[str, tuple[dict[str, Any], int]] = {
    "GET": ({"method": "GET"}, 405),
    "PUT": ({"method": "PUT"}, 405),
    "DELETE": ({"method": "DELETE"}, 405),
    "form": ({"kind": "application/x-www-form-urlencoded"}, 415),
    "text": ({"kind": "text/plain"}, 415),
    "jsonp": ({"kind": "application/jsonp"}, 415),
    "no type": ({"kind": None}, 415),
    "empty type": ({"kind": ""}, 415),
    "gzip": ({"sent": gzip.compress(body()), "Content_Encoding": "gzip"}, 415),
    "deflate": ({"Content_Encoding": "deflate"}, 415),
    "no token": ({"token": None, "sent": b"{}"}, 401),
    "wrong token": ({"token": "x"}, 401),
    "empty token": ({"token": ""}, 401),
    "not JSON": ({"sent": b"{"}, 400),
    "empty": ({"sent": b""}, 400),
    "a list": ({"sent": b"[]"}, 400),
    "nested": ({"sent": b"[" * 100_000}, 400),
    "over the limit": ({"length": 1024 * 1024 + 1}, 413),
    "far over the limit": ({"length": 10**14}, 413),
}


async def test_what_is_no_delivery_is_refused(serve: Serve) -> None:
    kept = Kept()
    async with serve(kept.webhooks) as port:
        answers = {name: await post(port, request(**what)) for name, (what, _) in REFUSED.items()}
    assert {name: answer.status for name, answer in answers.items()} == {
        name: status for name, (_, status) in REFUSED.items()
    }
    for answer in answers.values():
        assert answer.headers.get("allow") == ("POST" if answer.status == 405 else None)
        assert TOKEN.encode() not in answer.body
    assert kept.events == []


async def test_a_content_type_may_have_parameters(serve: Serve) -> None:
    async with serve(Kept().webhooks) as port:
        for kind in ("application/json;charset=utf-8", "Application/JSON ; a=b"):
            assert (await post(port, request(kind=kind))).status == 200


async def test_a_forgery_gets_401(serve: Serve) -> None:
    # Two headers of one name are for the next test; the others could not be sent.
    unsent = {"right header, then a wrong one", "wrong header, then a right one", "lone surrogate"}
    kept, statuses = Kept(), {}
    async with serve(kept.webhooks) as port:
        for name in FORGERIES.keys() - unsent:
            sent, headers = FORGERIES[name]
            lines = {key.replace("-", "_"): value for key, value in headers.items()}
            raw = request(sent, token=lines.pop("X_Verification_Token", None), **lines)
            statuses[name] = (await post(port, raw)).status
    assert set(statuses.values()) == {401}, statuses
    assert len(statuses) >= 12
    assert kept.events == []


async def test_a_second_header_with_another_token_gets_401(serve: Serve) -> None:
    async with serve(Kept().webhooks) as port:
        for first, second in (("x", TOKEN), (TOKEN, "x")):
            raw = request(token=second, X_Verification_Token=first)
            assert (await post(port, raw)).status == 401


async def test_a_body_token_of_the_wrong_type_gets_401(serve: Serve) -> None:
    async with serve(Kept().webhooks) as port:
        wrong: list[Any] = [None, 7, True, [], [TOKEN], {}]
        for token in wrong:
            assert (await post(port, request(body(token=token)))).status == 401
            assert (await post(port, request(body(token=token), token=None))).status == 401


async def test_a_body_over_the_limit_is_refused_without_waiting_for_it(serve: Serve) -> None:
    kept = Kept(max_body=1000)
    async with serve(kept.webhooks) as port, connected(port) as (reader, writer):
        writer.write(request(b"", length=2 * 1024 * 1024))  # and not a byte of it follows
        answer = await answered(reader)
        assert answer.status == 413
        assert answer.headers["connection"] == "close"


async def test_a_body_without_a_length_is_cut_at_the_limit(serve: Serve) -> None:
    async with serve(Kept().webhooks) as port, connected(port) as (reader, writer):
        writer.write(request(b"", Transfer_Encoding="chunked"))
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        for _ in range(17):  # one more than fit; more would wait for a reader that has left
            writer.write(chunk)
        assert (await answered(reader)).status == 413


async def test_a_compressed_bomb_is_refused_unread(serve: Serve) -> None:
    bomb = gzip.compress(b" " * 20 * 1024 * 1024)
    async with serve(Kept().webhooks) as port:
        raw = request(bomb, Content_Encoding="gzip")
        assert (await post(port, raw)).status == 415


async def test_a_delivery_in_chunks_is_taken(serve: Serve) -> None:
    sent = body()
    pieces = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in sent) + b"0\r\n\r\n"
    kept = Kept()
    async with serve(kept.webhooks) as port:
        raw = request(pieces, Transfer_Encoding="chunked")
        assert (await post(port, raw)).status == 200
        await kept.came.wait()


async def test_a_body_that_does_not_come_ends_by_its_bound(serve: Serve) -> None:
    kept = Kept(body_timeout=0.05)
    async with serve(kept.webhooks) as port, connected(port) as (reader, writer):
        writer.write(request(b"", length=len(body())) + body()[:-1])
        answer = await answered(reader)
        assert answer.status == 408
        assert answer.headers["connection"] == "close"
    assert kept.events == []


async def test_a_slow_sender_is_hung_up_on() -> None:
    for serving in (
        uvicorn_serves(Webhooks(TOKEN, body_timeout=0.05)),
        aiohttp_serves(Webhooks(TOKEN, body_timeout=0.05), lingering=600),
    ):
        async with serving as port, connected(port) as (reader, writer):
            writer.write(request(b"", length=100) + b"{")
            assert (await answered(reader)).status == 408
            assert await reader.read() == b""


async def test_a_sender_that_goes_away_in_the_middle_leaves_nothing(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept()
    async with serve(kept.webhooks) as port:
        async with connected(port) as (_, writer):
            writer.write(request(b"", length=100) + b"{")
            await writer.drain()
        assert (await post(port, request())).status == 200
        await kept.came.wait()
    assert len(kept.events) == 1
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("wrong", [{"kind": "text/plain"}, {"token": "x"}, {}])
async def test_a_sender_that_does_not_wait_for_the_answer_leaves_no_error(
    serve: Serve, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any]
) -> None:
    kept = Kept()
    async with serve(kept.webhooks) as port:
        async with connected(port) as (reader, writer):
            writer.write(request(body(id=2), **wrong))
            writer.write_eof()
            await reader.read()
        await post(port, request())
    assert len(kept.events) == (1 if wrong else 2)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("begun", [b"", b"2\r\n{}\r\n"])
async def test_a_malformed_chunk_is_refused(serve: Serve, begun: bytes) -> None:
    async with serve(Kept(body_timeout=0.05).webhooks) as port:
        async with connected(port) as (reader, writer):
            writer.write(request(begun, Transfer_Encoding="chunked"))
            await writer.drain()
            writer.write(b"zz\r\n{}\r\n")
            # Where the server does not tell of the fault, the body's time is over.
            assert (await answered(reader)).status in (400, 408)
        assert (await post(port, request())).status == 200


async def test_a_hundred_identical_deliveries_at_once_run_the_handler_once(serve: Serve) -> None:
    kept = Kept()
    async with serve(kept.webhooks) as port:
        answers = await asyncio.gather(*(post(port, request()) for _ in range(100)))
        await kept.webhooks.drain()
    assert [answer.status for answer in answers] == [200] * 100
    assert len(kept.events) == 1


async def test_after_a_crash_in_the_handler_the_delivery_is_taken_again(serve: Serve) -> None:
    webhooks = Webhooks(TOKEN)
    seen = []

    @webhooks.on(NewMessageEvent)
    async def fail_once(event: NewMessageEvent) -> None:
        seen.append(event)
        if len(seen) == 1:
            raise RuntimeError

    async with serve(webhooks) as port:
        for _ in range(3):
            assert (await post(port, request())).status == 200
            await webhooks.drain()
    assert len(seen) == 2


async def test_what_is_over_the_bounds_is_put_off(serve: Serve) -> None:
    kept = Kept(max_running=2, max_waiting=3)
    kept.go.clear()
    async with serve(kept.webhooks) as port:
        answers = [await post(port, request(body(id=number))) for number in range(1, 8)]
        assert [answer.status for answer in answers] == [200] * 5 + [503] * 2
        assert answers[-1].headers["retry-after"] == "1"
        assert len(kept.events) == 2  # the others wait
        kept.go.set()
        await kept.webhooks.drain()
        assert len(kept.events) == 5
        assert (await post(port, request(body(id=7)))).status == 200


async def test_while_draining_nothing_new_is_taken(serve: Serve) -> None:
    kept = Kept()
    kept.go.clear()
    async with serve(kept.webhooks) as port:
        await post(port, request())
        await kept.came.wait()
        draining = asyncio.create_task(kept.webhooks.drain())
        await asyncio.sleep(0)
        assert (await post(port, request(body(id=2)))).status == 503
        kept.go.set()
        assert await draining == 0
        assert (await post(port, request(body(id=2)))).status == 200
        await kept.webhooks.drain()
    assert len(kept.events) == 2


async def test_no_address_in_a_payload_is_ever_asked(serve: Serve) -> None:
    visits = 0

    async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visits
        visits += 1
        writer.close()

    trap = await asyncio.start_server(count, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{trap.sockets[0].getsockname()[1]}/"

    def trapped(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: trapped(item) for key, item in value.items()}
        if isinstance(value, list):
            return [trapped(item) for item in value]
        return url if isinstance(value, str) else value

    kept = Kept()
    async with trap, serve(kept.webhooks) as port:
        for kind, data in PAYLOADS.items():
            sent = {"type": kind, "token": TOKEN, "data": trapped(data), "url": url}
            assert (await post(port, request(json.dumps(sent).encode()))).status == 200
        await kept.webhooks.drain()
    assert len(kept.events) == len(PAYLOADS)
    assert visits == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=st.data())
def test_any_request_gets_an_answer_that_is_no_500(data: st.DataObject) -> None:
    sent = data.draw(
        st.binary()
        | st.sampled_from(list(PAYLOADS)).map(body)
        | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
    )
    pieces = [*data.draw(st.lists(st.binary(max_size=20), max_size=3)), sent]
    headers = data.draw(
        st.lists(
            st.tuples(
                st.binary()
                | st.sampled_from([b"content-type", b"content-length", b"x-verification-token"]),
                st.binary() | st.sampled_from([b"application/json", TOKEN.encode(), b"9" * 5000]),
            )
        )
    )
    statuses = asyncio.run(statuses_of(pieces, headers))
    assert len(statuses) == 1
    assert statuses[0] in {200, 400, 401, 413, 415}


async def statuses_of(pieces: list[bytes], headers: list[tuple[bytes, bytes]]) -> list[int]:
    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    webhooks = Webhooks(TOKEN)
    await called(webhooks, pieces, send, headers=headers)
    await webhooks.drain()
    return statuses


# ASGI, by itself

JSON_HEADERS = [(b"content-type", b"application/json")]


async def unheard(message: Any) -> None:
    """Take what is sent, and drop it."""


async def called(
    webhooks: Webhooks, pieces: list[bytes], send: Any = unheard, receive: Any = None, **scope: Any
) -> None:
    """Call the ASGI application with a body in pieces."""
    left = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    left += [{"type": "http.request"}]

    async def next_piece() -> Any:
        return left.pop(0)

    scope = {"type": "http", "method": "POST", "headers": JSON_HEADERS, **scope}
    await webhooks.asgi()(scope, receive or next_piece, send)


def test_a_drip_ends_by_its_bound_and_a_slow_body_within_it_is_taken() -> None:
    async def run(pause: float) -> tuple[int, float]:
        webhooks = Webhooks(TOKEN)
        statuses: list[int] = []
        left = [body()[n : n + 10] for n in range(0, len(body()), 10)]

        async def drip() -> Any:
            await asyncio.sleep(pause)
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        async def send(message: Any) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        await called(webhooks, [], send, drip)
        await webhooks.drain()
        return statuses[0], asyncio.get_running_loop().time()

    assert virtual.run(run(1.0)) == (408, 10.0)
    status, seconds = virtual.run(run(0.1))
    assert status == 200
    assert seconds < 10


def test_draining_ends_by_its_bound_and_forgets_the_rest() -> None:
    async def run() -> tuple[int, float]:
        kept = Kept(max_running=2)
        kept.go.clear()
        for number in range(1, 6):
            await called(kept.webhooks, [body(id=number)])
        left = await kept.webhooks.drain(timeout=7)
        ended = asyncio.get_running_loop().time()
        kept.go.set()
        await called(kept.webhooks, [body(id=9)])
        await kept.webhooks.drain()
        ids = [event.data.id for event in kept.events if isinstance(event, NewMessageEvent)]
        assert ids == [1, 2, 9]
        return left, ended

    assert virtual.run(run()) == (5, 7.0)


def test_draining_does_not_wait_for_threads() -> None:
    over = threading.Event()

    async def run() -> tuple[int, float]:
        webhooks = Webhooks(TOKEN)

        @webhooks.on(WebhookEvent)
        def block(event: WebhookEvent) -> None:
            over.wait()

        await called(webhooks, [body()])
        left = await webhooks.drain(timeout=7)
        over.set()
        return left, asyncio.get_running_loop().time()

    assert virtual.run(run()) == (1, 7.0)


def test_an_application_served_by_itself_drains_when_it_ends() -> None:
    async def run() -> tuple[list[str], float]:
        webhooks, sent = Webhooks(TOKEN), []
        phases = ["lifespan.startup", "lifespan.shutdown"]

        @webhooks.on(WebhookEvent)
        async def take_five_seconds(event: WebhookEvent) -> None:
            await asyncio.sleep(5)

        async def receive() -> Any:
            return {"type": phases.pop(0)}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await called(webhooks, [body()])
        await called(webhooks, [], send, receive, type="lifespan")
        return sent, asyncio.get_running_loop().time()

    ended = ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert virtual.run(run()) == (ended, 5.0)


def test_a_handler_that_does_not_let_itself_be_cancelled_holds_nobody_up() -> None:
    async def run() -> tuple[int, float]:
        webhooks = Webhooks(TOKEN)

        @webhooks.on(WebhookEvent)
        async def stubborn(event: WebhookEvent) -> None:
            for _ in range(5):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    continue
                return

        await called(webhooks, [body()])
        return await webhooks.drain(timeout=7), asyncio.get_running_loop().time()

    assert virtual.run(run()) == (1, 8.0)


async def test_one_object_serves_one_loop_after_another() -> None:
    kept = []
    webhooks = Webhooks(TOKEN, max_running=1)

    @webhooks.on(WebhookEvent)
    async def keep(event: WebhookEvent) -> None:
        await asyncio.sleep(0)
        kept.append(event)

    def run(first: int) -> None:
        async def serve_some() -> None:
            for number in range(first, first + 3):
                await called(webhooks, [body(id=number)])
            if first > 1:
                await webhooks.drain()

        asyncio.run(serve_some())

    await asyncio.to_thread(run, 1)  # this loop ends before its work does
    before = len(kept)
    await asyncio.to_thread(run, 11)
    assert len(kept) >= before + 3


def test_a_loop_that_is_closed_under_its_work_takes_no_room_in_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    webhooks, seen, seconds = Webhooks(TOKEN, max_running=2, max_waiting=1), [], 60.0

    @webhooks.on(NewMessageEvent)
    async def wait(event: NewMessageEvent) -> None:
        seen.append(event.data.id)
        await asyncio.sleep(seconds)

    async def deliver(*numbers: int) -> list[int]:
        statuses: list[int] = []

        async def send(message: Any) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        for number in numbers:
            await called(webhooks, [body(id=number)], send)
        await asyncio.sleep(0)  # the handlers begin
        return statuses

    def in_a_loop_closed_at_once(*numbers: int) -> list[int]:
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(deliver(*numbers))
        finally:
            loop.close()

    assert in_a_loop_closed_at_once(1, 2, 3, 4) == [200, 200, 200, 503]
    assert in_a_loop_closed_at_once(5, 6) == [200, 200]
    said = [one.getMessage() for one in caplog.records if one.name == "drift_async.webhooks"]
    assert said == ["2 accepted deliveries were lost with their loop"]
    seconds = 0
    assert asyncio.run(webhooks.drain(timeout=1)) == 2
    assert asyncio.run(webhooks.drain(timeout=1)) == 0
    assert seen == [1, 2, 3, 5, 6]
    gc.collect()  # the tasks, of which asyncio says in the log that they were not over


# From 3.12 on a loop may run the first step of each task at once.
FACTORIES = [None, *filter(None, [getattr(asyncio, "eager_task_factory", None)])]


@pytest.mark.parametrize("factory", FACTORIES)
def test_all_that_waits_behind_a_slow_handler_is_handled(factory: Any) -> None:
    webhooks, seen = Webhooks(TOKEN, max_running=1, max_waiting=2000), []

    async def run() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        go = asyncio.Event()

        @webhooks.on(NewMessageEvent)
        async def keep(event: NewMessageEvent) -> None:
            seen.append(event.data.id)
            if len(seen) == 1:
                await go.wait()

        for number in range(1, 1001):
            await called(webhooks, [body(id=number)])
        go.set()
        assert await webhooks.drain() == 0

    asyncio.run(run())
    assert seen == list(range(1, 1001))


class OddError(BaseException):
    """An error that no `except Exception` catches."""


@pytest.mark.parametrize("error", [OddError(), SystemExit(3), RecursionError()], ids=repr)
@pytest.mark.parametrize("factory", FACTORIES)
def test_whatever_a_delivery_raises_the_others_are_handled(
    factory: Any, error: BaseException
) -> None:
    seen = []

    def fail(failure: Exception, event: WebhookEvent) -> None:
        raise OddError

    webhooks = Webhooks(TOKEN, max_running=1, on_error=fail)

    @webhooks.on(NewMessageEvent)
    async def keep(event: NewMessageEvent) -> None:
        seen.append(event.data.id)
        raise error

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        loop.set_exception_handler(lambda loop, context: None)  # asyncio logs an OddError
        for number in range(1, 6):
            await called(webhooks, [body(id=number)])
        assert await webhooks.drain() == 0
        gc.collect()

    asyncio.run(run())
    assert seen == [1, 2, 3, 4, 5]


TRACE = contextvars.ContextVar("TRACE", default="none")


async def test_a_handler_sees_the_context_of_its_own_request() -> None:
    seen = []
    webhooks = Webhooks(TOKEN, max_running=1)

    @webhooks.on(NewMessageEvent)
    async def note(event: NewMessageEvent) -> None:
        seen.append((event.data.id, TRACE.get()))

    for number in range(1, 4):
        TRACE.set(f"request {number}")
        await called(webhooks, [body(id=number)])
    await webhooks.drain()
    assert seen == [(1, "request 1"), (2, "request 2"), (3, "request 3")]


async def test_what_was_accepted_is_handled_even_if_the_answer_gets_lost() -> None:
    kept = Kept()

    async def broken(_: Any) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await called(kept.webhooks, [body()], broken)
    await kept.webhooks.drain()
    assert len(kept.events) == 1


async def test_other_kinds_of_connections_are_turned_away() -> None:
    webhooks, sent = Webhooks(TOKEN), []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await called(webhooks, [], send, receive, type="websocket")
    assert sent == ["websocket.close"]
    with pytest.raises(ValueError, match="scope of type carrier-pigeon"):
        await called(webhooks, [], send, receive, type="carrier-pigeon")


async def test_http_2_is_not_told_to_close_its_connection() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [*JSON_HEADERS, (b"content-length", b"9" * 5000)]
    await called(Webhooks(TOKEN), [], send, headers=headers, http_version="2")
    assert sent[0]["status"] == 413
    assert b"connection" not in dict(sent[0]["headers"])


@pytest.fixture(params=["async", "plain"])
async def slow_handler(request: pytest.FixtureRequest) -> AsyncIterator[Webhooks]:
    """Webhooks with a handler that takes ten seconds, or until the test is over."""
    webhooks, over = Webhooks(TOKEN), threading.Event()

    async def wait(event: WebhookEvent) -> None:
        await asyncio.sleep(10)

    def block(event: WebhookEvent) -> None:
        over.wait(10)

    webhooks.on(WebhookEvent)(wait if request.param == "async" else block)
    yield webhooks
    over.set()
    await webhooks.drain(timeout=0)


async def acknowledged(port: int, count: int) -> list[float]:
    """Return how many seconds each of *count* different deliveries waited for its answer."""
    times = []
    async with connected(port) as (reader, writer):
        for number in range(1, count + 1):
            raw = request(body(id=number))
            began = time.perf_counter()
            writer.write(raw)
            answer: Answer = await answered(reader)
            times.append(time.perf_counter() - began)
            assert answer.status == 200
    return times


async def test_a_slow_handler_does_not_hold_up_the_answer(
    serve: Serve, slow_handler: Webhooks
) -> None:
    async with serve(slow_handler) as port:
        assert statistics.median(await acknowledged(port, 50)) < 1
        await slow_handler.drain(timeout=0)


@pytest.mark.slow
async def test_the_answer_comes_within_20_ms_while_handlers_take_10_s(
    serve: Serve, slow_handler: Webhooks
) -> None:
    async with serve(slow_handler) as port:
        times = await acknowledged(port, 1000)
        await slow_handler.drain(timeout=0)
    assert statistics.quantiles(times, n=100)[98] < 0.020
