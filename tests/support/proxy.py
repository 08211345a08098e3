"""A TCP proxy that breaks what passes through it, connection by connection, request by request."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Literal, Self

import attrs


@attrs.frozen(kw_only=True)
class Chaos:
    """What becomes of a connection when it is accepted, or of a request and its reply.

    ``cut`` hangs up: "before" the request is passed on, or "after" the upstream has answered it, so
    when it has been applied; a connection is cut at once either way. ``reset`` hangs up with RST;
    ``half_close`` only ends the sending side after the reply, and goes on reading. ``keep`` lets
    just the first bytes of the reply through. ``delay`` waits before the reply, ``drip`` before
    each of its bytes, both in seconds; ``throttle`` is bytes a second. ``corrupt`` inverts one byte
    of the reply, by its index.
    """

    cut: Literal["before", "after"] | None = None
    reset: bool = False
    keep: int | None = None
    delay: float = 0.0
    drip: float = 0.0
    throttle: int = 0
    corrupt: int | None = None
    half_close: bool = False

    @property
    def ends(self) -> bool:
        """Whether the connection serves nobody any more."""
        return self.cut is not None or self.half_close


Script = Callable[[int], Chaos | None]


def calm(_: int) -> None:
    """Let everything pass."""


class Proxy:
    """Passes HTTP on to *port* of this machine; messages end by their Content-Length.

    The scripts are asked with the number of the connection and, over all connections, of the
    request, both from 1. ``cuts`` counts the requests that were cut. With ``tls`` it stands for a
    server with that certificate.
    """

    def __init__(
        self,
        port: int,
        requests: Script = calm,
        connections: Script = calm,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.connections = self.requests = self.cuts = 0
        self._port = port
        self._tls = tls
        self._scripts = connections, requests
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        chaos = self._scripts[0](self.connections) or Chaos()
        try:
            await asyncio.sleep(chaos.delay)
            if not chaos.ends:
                chaos = await self._pass_on(reader, writer)
            if chaos.half_close:
                writer.write_eof()
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two ends has had enough
        finally:
            _hang_up(writer, reset=chaos.reset)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Chaos:
        """Pass requests on until one is to end the connection; return what is to become of it."""
        answers, upstream = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                request = await _message(reader)
                self.requests += 1
                chaos = self._scripts[1](self.requests) or Chaos()
                self.cuts += chaos.cut is not None
                if chaos.cut != "before":
                    upstream.write(request)
                    await _deliver(writer, await _message(answers), chaos)
                if chaos.ends:
                    return chaos
        finally:
            upstream.transport.abort()


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return head + await reader.readexactly(int(length[1]) if length else 0)


async def _deliver(writer: asyncio.StreamWriter, reply: bytes, chaos: Chaos) -> None:
    await asyncio.sleep(chaos.delay)
    out = bytearray(reply)
    if chaos.corrupt is not None:
        out[chaos.corrupt] ^= 0xFF
    if chaos.keep is not None or chaos.cut:
        del out[chaos.keep or 0 :]
    step = 1 if chaos.drip else max(1, chaos.throttle // 100 or len(out))
    for start in range(0, len(out), step):
        piece = out[start : start + step]
        await asyncio.sleep(chaos.drip or (len(piece) / chaos.throttle if chaos.throttle else 0))
        writer.write(piece)
        await writer.drain()


def _hang_up(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        peer: socket.socket = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()
