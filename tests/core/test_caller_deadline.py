"""A call ends by its timeout, wherever it is stuck."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest

from drift_async import DeadlineError, Rate, Retry
from drift_async.sandbox import Sandbox
from tests.support.server import Got, Server, reply

pytestmark = pytest.mark.anyio

ROUGHLY = 2.0
"""Seconds late that are none of the library's on a machine under load."""

# Where it is stuck: what the error says is applied, attempts.
PHASES: Mapping[str, tuple[bool | None, int]] = {
    "name-lookup": (False, 1),
    "connect": (False, 1),
    "tls-handshake": (False, 1),
    "pool": (False, 1),
    "limiter": (False, 0),
    "head": (None, 1),
    "body-stalled": (True, 1),
    "body-dripping": (True, 1),
}
FAULTS: Mapping[str, dict[str, Any]] = {
    "pool": {"delay": 60},
    "limiter": {},
    "head": {"delay": 60},
    "body-stalled": {"pause": 60},
    "body-dripping": {"drip": 0.02},
}


@asynccontextmanager
async def deaf() -> AsyncIterator[str]:
    """An address at which a connection is neither made nor refused: the queue is full."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def waiting_lookups() -> Iterator[str]:
    """A name whose look-up takes until the end."""
    over = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait() and [])
        try:
            yield "https://drift.example"
        finally:
            over.set()


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """A server that never says a word."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def arrived(box: Sandbox) -> None:
    """Wait until a request is in."""
    async with asyncio.timeout(5):
        while not box.count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def stuck(make: Any, phase: str, timeout: float) -> AsyncIterator[Any]:
    """Give a client whose next call is stuck in this phase."""
    settings: dict[str, Any] = {"timeout": timeout}
    async with AsyncExitStack() as stack:
        enter, box = stack.enter_async_context, Sandbox()
        match phase:
            case "name-lookup":
                url = stack.enter_context(waiting_lookups())
            case "connect":
                url = await enter(deaf())
            case "tls-handshake":
                url = await enter(silent())
            case _:
                url = (await enter(box)).url
                box.fail("users.get", **FAULTS[phase], times=None)
        if phase == "pool":
            settings["max_connections"] = 1
        if phase == "limiter":
            settings["rate"] = Rate(0.01)
        holder = None
        async with make(box.token, base_url=url, **settings) as drift:
            if phase == "limiter":
                await drift.users.get(228_225)
            if phase == "pool":
                longer = drift.with_options(timeout=60)
                holder = asyncio.create_task(longer.users.get(228_225))
                await arrived(box)
            yield drift
            if holder is not None:
                holder.cancel()
        if holder is not None:
            await asyncio.gather(holder, return_exceptions=True)


@pytest.mark.parametrize(
    ("timeout", "late"),
    [
        (0.3, ROUGHLY),
        pytest.param(0.3, 0.25, marks=pytest.mark.slow),
        pytest.param(1.3, 0.25, marks=pytest.mark.slow),  # long enough for the coarse timer
    ],
)
@pytest.mark.parametrize("phase", PHASES)
async def test_a_call_ends_in_time_wherever_it_is_stuck(
    make: Any, phase: str, timeout: float, late: float
) -> None:
    async with stuck(make, phase, timeout) as drift:
        began = time.monotonic()
        with pytest.raises(DeadlineError) as caught:
            await drift.users.get(228_225)
        took = time.monotonic() - began
    assert time.monotonic() - began - took <= ROUGHLY  # nor does closing wait for it
    error = caught.value
    assert (error.applied, error.attempts) == PHASES[phase]
    assert error.reason == "deadline"
    assert timeout - 0.01 <= error.elapsed <= took <= timeout + late


@pytest.mark.parametrize("hours", [-1, 1])
async def test_the_wall_clock_may_be_set_in_the_middle(
    make: Any, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    real = time.time

    def answer(n: int, _: Got) -> bytes:
        monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
        return reply(status="503 Busy", Retry_After="0.1") if n == 1 else head

    retry = Retry(throttled_base=0)
    async with (
        Server(answer) as server,
        make("token", base_url=server.url, timeout=0.5, retry=retry) as drift,
    ):
        began = time.monotonic()
        with pytest.raises(DeadlineError) as caught:
            await drift.users.get(7)
        took = time.monotonic() - began
    error = caught.value
    assert (error.applied, error.attempts, len(server.got)) == (True, 2, 2)
    assert 0.49 <= error.elapsed <= took <= 0.5 + ROUGHLY
