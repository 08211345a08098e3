"""Scripted faults: which reply to break, how often, and how."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any, Final

import attrs
from aiohttp import web

from .types import ABSENT, Refusal, Reply

ANY: Final = "*"
HTML: Final = "<html><head><title>{0} {1}</title></head><body><h1>{0} {1}</h1></body></html>\n"


@attrs.define
class Fault:
    """One scripted fault; `Sandbox.fail` explains the fields."""

    status: int | None = None
    headers: Mapping[str, str] | None = None
    body: Any = None
    delay: float = 0.0
    pause: float = 0.0
    cut: str | None = None
    reset: bool = False
    short: int = 0
    raw: bytes | None = None
    drip: float = 0.0
    alter: Callable[[Any], Any] | None = None
    apply: bool | None = None
    times: int | None = 1
    skip: int = 0

    def __attrs_post_init__(self) -> None:
        if self.cut not in (None, "before", "after"):
            raise ValueError("cut must be None, 'before' or 'after'")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError("status must be 200 to 599")
        if self.times is not None and self.times < 1:
            raise ValueError("times must be at least 1, or None for ever")
        if min(self.delay, self.pause, self.drip, self.short, self.skip) < 0:
            raise ValueError("delay, pause, drip, short and skip must not be negative")
        if self.reset and self.raw is None and not self.short:
            self.cut = self.cut or "before"

    @property
    def runs(self) -> bool:
        """Whether the handler carries the request out."""
        if self.apply is not None:
            return self.apply
        return self.cut == "after" or not (self.cut or self.status or self.raw is not None)

    @property
    def silent(self) -> bool:
        """Whether no HTTP reply goes out."""
        return self.cut is not None or self.raw is not None

    def shape(self, reply: Reply | None, *, scim: bool) -> Reply:
        """Return the reply to send: a made-up one, or the true one with changes."""
        if reply is None or self.status is not None:
            reply = _made_up(self.status or 200, scim=scim)
        if self.alter is not None and reply.value is not ABSENT:
            reply.value = self.alter(reply.value)
        if self.body is not None:
            body = self.body if isinstance(self.body, bytes | str) else json.dumps(self.body)
            reply.content = body.encode() if isinstance(body, str) else body
        for name, value in (self.headers or {}).items():
            if name.lower() == "content-type":
                reply.content_type = value
            else:
                kept = [pair for pair in reply.headers if pair[0].lower() != name.lower()]
                reply.headers = [*kept, (name, value)]
        return reply

    async def send(self, request: web.BaseRequest, reply: web.Response) -> web.StreamResponse:
        """Send the reply with the fault; return the response for the server."""
        await asyncio.sleep(self.delay)
        if self.silent:
            if self.cut is None and request.transport is not None:
                request.transport.write(self.raw or b"")
            self._hang_up(request)
            return web.Response()
        if not (self.pause or self.drip or self.short):
            return reply
        body = reply.body
        assert isinstance(body, bytes)
        stream = web.StreamResponse(status=reply.status, headers=reply.headers)
        stream.content_length = len(body)
        with contextlib.suppress(ConnectionError):  # the client may have gone
            await stream.prepare(request)
            await asyncio.sleep(self.pause)
            step = 1 if self.drip else max(1, len(body))
            for start in range(0, max(0, len(body) - self.short), step):
                if self.drip:
                    await asyncio.sleep(self.drip)
                await stream.write(body[start : min(start + step, len(body) - self.short)])
        if self.short:
            self._hang_up(request)
        return stream

    def _hang_up(self, request: web.BaseRequest) -> None:
        transport = request.transport
        if transport is None:
            return
        if self.reset:
            peer: socket.socket = transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()


def _made_up(status: int, *, scim: bool) -> Reply:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unknown"
    if status in (502, 503, 504):  # these come from gateways, which speak HTML
        return Reply(
            status=status, content=HTML.format(status, phrase).encode(), content_type="text/html"
        )
    if status >= 400:
        return Refusal(status, f"{phrase} (scripted)").reply(scim=scim)
    return Reply(status=status)


class Faults:
    """The scripted faults, one queue for each of the *operations*. Safe to use from any thread."""

    def __init__(self, operations: Collection[str]) -> None:
        self._operations = operations
        self._queues: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._lock = threading.Lock()

    def add(self, operation: str, fault: Fault) -> None:
        """Queue a fault for an operation, or for every request with `*`."""
        if operation != ANY and operation not in self._operations:
            raise ValueError(f"operation: there is no {operation!r}")
        with self._lock:
            self._queues[operation].append(fault)

    def clear(self, operation: str | None) -> None:
        """Forget the faults of an operation, or all faults."""
        with self._lock:
            if operation is None:
                self._queues.clear()
            else:
                self._queues.pop(operation, None)

    def take(self, operation: str | None) -> Fault | None:
        """Return the fault for a request of this operation, if one is due."""
        if not self._queues:
            return None
        with self._lock:
            for name in (operation, ANY):
                queue = self._queues.get(name or "")
                if not queue:
                    continue
                fault = queue[0]
                if fault.skip:
                    fault.skip -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    if not fault.times:
                        queue.popleft()
                return fault
        return None
