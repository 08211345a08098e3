"""A loopback server that sends what it is told, byte for byte, and records what it got."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Self

import attrs

Answer = bytes | None | Callable[[int, "Got"], bytes | None]


@attrs.frozen
class Got:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Server:
    """Answers each request with bytes; None closes the connection without a word.

    After an answer without Content-Length, or one that says so, the connection is closed. With
    ``again`` the last chunk is repeated until the client has had enough, with ``tls`` it is https.
    """

    def __init__(
        self, answer: Answer = None, *, again: bytes = b"", tls: ssl.SSLContext | None = None
    ) -> None:
        self.got: list[Got] = []
        self.connections = 0
        self._answer = answer
        self._again = again
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while (got := await _read(reader)) is not None:
                self.got.append(got)
                answer = self._answer
                out = answer(len(self.got), got) if callable(answer) else answer
                if out is None:
                    break
                writer.write(out)
                await writer.drain()
                while self._again:
                    writer.write(self._again)
                    await writer.drain()
                if b"content-length" not in out.lower() or b"\r\nConnection: close" in out:
                    break
        writer.close()
        self._writers.discard(writer)


async def _read(reader: asyncio.StreamReader) -> Got | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    method, target, _ = first.split(" ", 2)
    return Got(method, target, headers, body)


def reply(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """Return a reply of HTTP/1.1; underscores in names of headers stand for dashes."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def dead_url() -> AsyncIterator[str]:
    """Give an address at which every connection is refused."""
    with socket.socket() as sock:  # bound, so that nobody else gets the port; not listening
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
