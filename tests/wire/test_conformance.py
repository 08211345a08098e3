"""Every operation meets every failure, on both faces, and ends as the table has it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any

import aiohttp
import pytest
import trustme

from drift_async import CallError, Rate, Retry
from drift_async.core.rate_limit import Limiter
from drift_async.sandbox import Sandbox
from tests.support.conformance import EFFECTS, FAILURES, expected
from tests.support.expected_requests import ROWS, Row
from tests.support.flavours import core
from tests.support.operations import ENDPOINTS
from tests.support.proxy import Chaos, Proxy
from tests.support.server import dead_url

pytestmark = pytest.mark.anyio

STALL = 0.8
FAULTS: dict[str, dict[str, Any]] = {
    "stalled-head": {"delay": 60},
    "stalled-body": {"pause": 60},
    "short-body": {"short": 1},
    **{status: {"status": int(status)} for status in ("429", "500", "503", "504")},
}
RESETS: dict[str, dict[str, Any]] = {
    "reset-before-send": {"connections": lambda _: Chaos(cut="before", reset=True)},
    "reset-after-send": {"requests": lambda _: Chaos(cut="after", reset=True)},
}
# The first way to call each operation that is not about errors.
CALLS = {row.call: row for row in reversed(ROWS) if not row.faults and not row.raises}


def test_the_table_has_every_operation_and_no_other() -> None:
    # Those of `OAuth` carry no token, and have a test file of their own.
    assert EFFECTS.keys() == {name for name in ENDPOINTS if not name.startswith("oauth.")}
    assert len(EFFECTS) == 44
    assert len(FAILURES) == 13
    assert EFFECTS.keys() <= CALLS.keys()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network without name service."""

    def getaddrinfo(host: Any, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def wary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand connections out only once it is seen that they are reset."""
    connect = aiohttp.TCPConnector._wrap_create_connection  # whichever loop there is

    async def create_connection(*args: Any, **kwargs: Any) -> Any:
        transport, protocol = await connect(*args, **kwargs)
        while not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # the loop itself finds out
        return transport, protocol

    monkeypatch.setattr(aiohttp.TCPConnector, "_wrap_create_connection", create_connection)


@contextlib.asynccontextmanager
async def closing(context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that closes after the hello, or after a handshake with a certificate of its own."""

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(1)
        writer.close()

    server = await asyncio.start_server(hello, "127.0.0.1", 0, ssl=context)
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@contextlib.asynccontextmanager
async def failing(failure: str, name: str, authority: trustme.CA) -> AsyncIterator[tuple[str, Any]]:
    """Give the address of something that fails so, and the sandbox behind it."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        box = Sandbox()
        match failure:
            case "refused":
                url = await enter(dead_url())
            case "dns":
                url = "https://drift.example"
            case "tls":
                url = await enter(closing())
            case "certificate":
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                authority.issue_cert("127.0.0.1").configure_cert(context)
                url = await enter(closing(context))
            case "reset-before-send" | "reset-after-send":
                await enter(box)
                port = int(box.url.rpartition(":")[2])
                url = (await enter(Proxy(port, **RESETS[failure]))).url
            case _:
                await enter(box)
                box.fail(name, **FAULTS[failure], times=None)
                url = box.url
        yield url, box


async def meet(make: Callable[..., Any], failure: str, row: Row, authority: trustme.CA) -> str:
    """Make a call that meets the failure; return its cell of the table."""
    settings = {"attempt_timeout": STALL} if failure.startswith("stalled") else {}
    async with (
        failing(failure, row.call, authority) as (url, box),
        make(box.token, base_url=url, retry=Retry(base=0, throttled_base=0), **settings) as drift,
    ):
        core(drift)._caller.site.limiters["reports"] = Limiter(Rate())  # else a request a second
        try:
            result = attrgetter(row.call)(drift)(*row.args, **row.kwargs)
            await (result.collect() if hasattr(result, "collect") else result)
        except CallError as error:
            holds = error.applied in (None, any(one.applied for one in box.seen))
            cell = f"{type(error).__name__} {error.applied} {error.attempts} {box.count}"
            return cell if holds else f"{cell}, which is not so at the server"
        return f"fine {box.count}"


@pytest.mark.parametrize("failure", FAILURES)
async def test_every_operation_ends_as_the_table_has_it(
    make: Any, failure: str, authority: trustme.CA, request: pytest.FixtureRequest
) -> None:
    for name, fixture in {"dns": "nameless", "reset-before-send": "wary"}.items():
        if failure == name:
            request.getfixturevalue(fixture)
    # The calls of the blocking face have a thread each, so that all can wait at once.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(len(EFFECTS)))
    cells = await asyncio.gather(*(meet(make, failure, CALLS[name], authority) for name in EFFECTS))
    assert dict(zip(EFFECTS, cells, strict=True)) == expected(failure)
