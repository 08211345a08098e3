"""Both receivers behind real servers, and a client that sends bytes as they are."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import uvicorn
from aiohttp import web

from drift_async import WebhookEvent, Webhooks
from tests.support.deliveries import TOKEN, body


@attrs.frozen
class Answer:
    """An HTTP answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


@asynccontextmanager
async def uvicorn_serves(webhooks: Webhooks) -> AsyncIterator[int]:
    """Serve the ASGI application by itself, as ``uvicorn module:app`` does; give the port."""
    sock = listening()
    settings = uvicorn.Config(webhooks.asgi(), log_config=None, lifespan="on", ws="none")
    server = uvicorn.Server(settings)
    running = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def aiohttp_serves(webhooks: Webhooks, lingering: float = 0.1) -> AsyncIterator[int]:
    """Serve the handler in an application of aiohttp.web; give the port.

    What was refused unread is read and dropped for so many seconds; by default it is ten.
    """
    sock = listening()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", webhooks.aiohttp_handler())

    async def drain(_: web.Application) -> None:
        await webhooks.drain()

    app.on_cleanup.append(drain)
    runner = web.AppRunner(app, lingering_time=lingering)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    try:
        yield sock.getsockname()[1]
    finally:
        await runner.cleanup()


SERVERS = {"asgi": uvicorn_serves, "aiohttp": aiohttp_serves}


def listening() -> socket.socket:
    """Return a socket that takes connections already."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(512)
    return sock


def request(
    sent: bytes = body(),
    *,
    method: str = "POST",
    kind: str | None = "application/json",
    token: str | None = TOKEN,
    length: int | None = None,
    **headers: str,
) -> bytes:
    """Return the bytes of a delivery; underscores in names of headers stand for dashes."""
    lines = [f"{method} /drift HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Type: {kind}"] if kind is not None else []
    lines += [f"X-Verification-Token: {token}"] if token is not None else []
    if "Transfer_Encoding" not in headers:
        lines += [f"Content-Length: {len(sent) if length is None else length}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + sent


async def post(port: int, raw: bytes) -> Answer:
    """Send bytes on a connection of their own and return what is answered."""
    async with connected(port) as (reader, writer):
        writer.write(raw)
        return await answered(reader)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answered(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    content = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(first.split(" ")[1]), headers, content)


class Kept:
    """Webhooks with a handler that keeps what it gets, and says when it has some."""

    def __init__(self, **settings: Any) -> None:
        self.webhooks = Webhooks(TOKEN, **settings)
        self.events: list[WebhookEvent] = []
        self.came = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.webhooks.on(WebhookEvent)(self._keep)

    async def _keep(self, event: WebhookEvent) -> None:
        self.events.append(event)
        self.came.set()
        await self.go.wait()
