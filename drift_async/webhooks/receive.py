"""Receivers of deliveries: an ASGI application, and a handler for aiohttp.web."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import attrs

from .intake import Intake

if TYPE_CHECKING:
    from aiohttp import web

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _DisconnectedError(Exception):
    """The sender went away before the body was whole: nobody is there to be answered."""


@attrs.frozen(eq=False)
class AsgiReceiver:
    """An ASGI application that receives deliveries."""

    _intake: Intake
    _drain: Callable[[], Awaitable[object]]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            raise ValueError(f"an ASGI scope of type {scope['type']} is not known")

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        more = True

        async def read() -> bytes:
            nonlocal more
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise _DisconnectedError
                more = message.get("more_body", False)
                piece: bytes = message.get("body", b"")
                if piece:
                    return piece
            return b""

        async def answer(status: int, headers: dict[str, str]) -> None:
            text = _text(status)
            sent = {"Content-Type": "text/plain", "Content-Length": str(len(text)), **headers}
            if not scope.get("http_version", "1.1").startswith("1"):
                sent.pop("Connection", None)  # HTTP/2 closes streams, and forbids the header
            lines = [(name.lower().encode(), value.encode()) for name, value in sent.items()]
            await send({"type": "http.response.start", "status": status, "headers": lines})
            await send({"type": "http.response.body", "body": text})

        with suppress(_DisconnectedError):
            await self._intake.take(scope["method"], scope["headers"], read, answer)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await self._drain()
        await send({"type": "lifespan.shutdown.complete"})


def aiohttp_handler(intake: Intake) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler for a route of aiohttp.web that receives deliveries."""
    from aiohttp import web

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.Response()

        async def read() -> bytes:
            try:
                return await request.content.readany()
            except OSError:
                raise _DisconnectedError from None

        async def answer(status: int, headers: dict[str, str]) -> None:
            response.set_status(status)
            response.headers.update({"Content-Type": "text/plain", **headers})
            response.body = _text(status)
            with suppress(OSError):  # the sender has left
                # Left to the server, it would go out after work on the event had begun.
                await response.prepare(request)
                await response.write_eof()
            if status == HTTPStatus.REQUEST_TIMEOUT:
                request.protocol.force_close()  # or the server gives the sender ten seconds more

        with suppress(_DisconnectedError):
            await intake.take(request.method, request.headers, read, answer)
        return response

    return handle


def _text(status: int) -> bytes:
    """Return a body: none for a delivery that is taken, so that the answer is one packet."""
    return b"" if status == HTTPStatus.OK else HTTPStatus(status).phrase.encode()
