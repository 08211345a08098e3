"""Receivers of deliveries: an ASGI application and a handler for aiohttp.web.

Both hand the request to `DeliveryReceiver`, which checks and answers it. `HandlerQueue` then runs
the handlers of its event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import attrs

from ..errors import VerificationError
from .events import WebhookEvent, log
from .verify import Headers, header_values

if TYPE_CHECKING:
    from aiohttp import web

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handle = Callable[[WebhookEvent], Awaitable[object]]
ReadBody = Callable[[], Awaitable[bytes]]
"""Returns the next piece of a body, an empty one at its end."""
SendAnswer = Callable[[int, dict[str, str]], Awaitable[None]]
"""Sends the answer: a status and headers."""

CANCEL_TIMEOUT = 1.0
"""Seconds that `HandlerQueue.drain` waits for cancelled handlers to end."""

_STATUSES = {"body": 400, "token": 401, "time": 401, "size": 413}
_HEADERS = {
    405: {"Allow": "POST"},
    408: {"Connection": "close"},  # the rest of the body may still be on its way
    413: {"Connection": "close"},
    503: {"Retry-After": "1"},
}


class HandlerQueue:
    """Accepted events: at most *max_running* are handled at once, *max_waiting* more wait."""

    def __init__(self, handle: Handle, max_running: int, max_waiting: int) -> None:
        self._handle = handle
        self._max_running = max_running
        self._capacity = max_running + max_waiting
        self._waiting: deque[tuple[WebhookEvent, asyncio.Event, Context]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = 0

    @contextmanager
    def accept(self, event: WebhookEvent) -> Iterator[bool]:
        """Queue *event* and yield True, or False if the queue is full.

        Answer the sender inside the context: the handlers start after it.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            if lost := self._forget_lost():
                log.warning("%d accepted deliveries were lost with their loop", lost)
        if self._draining or len(self._waiting) + len(self._running) >= self._capacity:
            yield False
            return
        answered = asyncio.Event()
        self._waiting.append((event, answered, copy_context()))
        self._start_waiting()
        try:
            yield True
        finally:  # also when the answer could not be sent
            answered.set()

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < self._max_running:
            event, answered, context = self._waiting.popleft()
            task = asyncio.create_task(self._run(event, answered), context=context)
            self._running.add(task)
            task.add_done_callback(self._ended)

    async def _run(self, event: WebhookEvent, answered: asyncio.Event) -> None:
        await answered.wait()
        try:
            await self._handle(event)
        except Exception:
            log.exception("a delivery of %s could not be handled", type(event).__name__)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Start the next event; a callback of the loop, so tasks that start eagerly do not nest."""
        self._running.discard(task)
        if not task.cancelled():  # nothing may start while the loop ends
            self._start_waiting()

    def _forget_lost(self) -> int:
        """Forget the tasks of closed loops, which never end; return how many there were."""
        lost = [task for task in self._running if task.get_loop().is_closed()]
        self._running.difference_update(lost)
        return len(lost)

    async def drain(self, timeout: float) -> int:
        """Wait until all accepted events are handled. Meanwhile the queue accepts nothing.

        After *timeout* seconds cancel the rest, and return how many events that were.
        """
        lost = self._forget_lost()
        self._start_waiting()
        self._draining += 1
        try:
            async with asyncio.timeout(timeout):
                while self._running:
                    await asyncio.wait(self._running)
        except TimeoutError:
            pass
        finally:
            self._draining -= 1
        unhandled = lost + len(self._waiting) + len(self._running)
        self._waiting.clear()
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=CANCEL_TIMEOUT)
        return unhandled


@attrs.frozen(eq=False)
class DeliveryReceiver:
    """Checks a request, answers it and queues its event, whichever server received it."""

    _parse: Callable[[bytes, Headers], WebhookEvent]
    _queue: HandlerQueue
    _max_body: int
    _body_timeout: float

    async def handle(
        self, method: str, headers: Headers, read: ReadBody, answer: SendAnswer
    ) -> None:
        """Answer a request; the handlers of its event start after the answer."""
        result = await self._event_or_status(method, headers, read)
        if isinstance(result, int):
            await answer(result, _HEADERS.get(result, {}))
            return
        with self._queue.accept(result) as accepted:
            status = 200 if accepted else 503
            await answer(status, _HEADERS.get(status, {}))

    async def _event_or_status(
        self, method: str, headers: Headers, read: ReadBody
    ) -> WebhookEvent | int:
        """Return the event, or the HTTP status that refuses the request."""
        status = self._status_of_head(method, headers)
        if status is not None:
            return status
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout):
                while piece := await read():
                    body += piece
                    if len(body) > self._max_body:
                        return 413
        except TimeoutError:
            return 408
        try:
            return self._parse(bytes(body), headers)
        except VerificationError as error:
            log.warning("a delivery was refused: %s", error)
            return _STATUSES[error.reason]

    def _status_of_head(self, method: str, headers: Headers) -> int | None:
        """Return the status that refuses the request before its body is read, if any."""
        if method != "POST":
            return 405
        media_types = [_first_word(value) for value in header_values(headers, "content-type")]
        codings = [_first_word(value) for value in header_values(headers, "content-encoding")]
        if media_types != ["application/json"] or codings not in ([], ["identity"]):
            return 415
        for length in header_values(headers, "content-length"):
            if length.isdecimal() and (len(length) > 15 or int(length) > self._max_body):
                return 413
        return None


class _DisconnectedError(Exception):
    """The sender closed the connection before the body was whole."""


@attrs.frozen(eq=False)
class AsgiReceiver:
    """An ASGI application that receives deliveries."""

    _receiver: DeliveryReceiver
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
            await self._receiver.handle(scope["method"], scope["headers"], read, answer)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await self._drain()
        await send({"type": "lifespan.shutdown.complete"})


def aiohttp_handler(
    receiver: DeliveryReceiver,
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
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
                # Sent by the server itself, it would go out after the handlers have begun.
                await response.prepare(request)
                await response.write_eof()
            if status == HTTPStatus.REQUEST_TIMEOUT:
                request.protocol.force_close()  # or the server gives the sender ten seconds more

        with suppress(_DisconnectedError):
            await receiver.handle(request.method, request.headers, read, answer)
        return response

    return handle


def _first_word(value: str) -> str:
    """Return a header's value without parameters, in lower case."""
    return value.partition(";")[0].strip().lower()


def _text(status: int) -> bytes:
    """Return the body of an answer: empty for 200, so that the answer is one packet."""
    return b"" if status == HTTPStatus.OK else HTTPStatus(status).phrase.encode()
