"""What is done with a request, whichever server has it: bounds, verdict, answer, and then work."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import cast

import attrs

from ..errors import VerificationError
from .events import WebhookEvent, log
from .verify import Headers, header_values

GRACE = 1.0
"""Seconds that draining gives what it has cancelled."""

_STATUSES = {"body": 400, "token": 401, "time": 401, "size": 413}
_EXTRA = {
    405: {"Allow": "POST"},
    408: {"Connection": "close"},  # what else is on its way is not for us
    413: {"Connection": "close"},
    503: {"Retry-After": "1"},
}


class Backlog:
    """Events that were accepted: so many are worked on at once, so many more wait."""

    def __init__(
        self, work: Callable[[WebhookEvent], Awaitable[object]], max_running: int, max_waiting: int
    ) -> None:
        self._work = work
        self._max_running = max_running
        self._most = max_running + max_waiting
        self._waiting: deque[tuple[WebhookEvent, asyncio.Event, Context]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = 0

    @contextmanager
    def place(self, event: WebhookEvent) -> Iterator[bool]:
        """Tell whether there is room for *event*; work on it begins after the context."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            if lost := self._forget_lost():
                log.warning("%d accepted deliveries were lost with their loop", lost)
        if self._draining or len(self._waiting) + len(self._running) >= self._most:
            yield False
            return
        answered = asyncio.Event()
        self._waiting.append((event, answered, copy_context()))
        self._fill()
        try:
            yield True
        finally:  # also when the answer could not be sent
            answered.set()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._max_running:
            event, answered, context = self._waiting.popleft()
            task = asyncio.create_task(self._run(event, answered), context=context)
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, event: WebhookEvent, answered: asyncio.Event) -> None:
        await answered.wait()
        await self._work(event)
        # Not when cancelled: at the end of a loop, nothing is to begin.
        self._running.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        self._fill()

    def _forget_lost(self) -> int:
        """Forget the tasks of closed loops, which never end; return how many there were."""
        lost = [task for task in list(self._running) if task.get_loop().is_closed()]
        self._running.difference_update(lost)
        return len(lost)

    async def drain(self, timeout: float) -> int:
        """Wait for all that was accepted, cancel the rest, and return how many that were."""
        lost = self._forget_lost()
        self._fill()
        self._draining += 1
        try:
            async with asyncio.timeout(timeout):
                while self._running:
                    await asyncio.wait(self._running)
        except TimeoutError:
            pass
        finally:
            self._draining -= 1
        left = lost + len(self._waiting) + len(self._running)
        self._waiting.clear()
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=GRACE)
        return left


@attrs.frozen(eq=False)
class Intake:
    """Judges requests, answers them, and places their events in the backlog."""

    _parse: Callable[[bytes, Headers], WebhookEvent]
    _backlog: Backlog
    _max_body: int
    _timeout: float

    async def take(
        self,
        method: str,
        headers: Headers,
        read: Callable[[], Awaitable[bytes]],
        answer: Callable[[int, dict[str, str]], Awaitable[None]],
    ) -> None:
        """Answer a request, and have its event worked on after that.

        *read* gives the next piece of the body, an empty one at its end.
        """
        verdict = await self._judge(method, headers, read)
        if isinstance(verdict, int):
            await answer(verdict, _EXTRA.get(verdict, {}))
            return
        with self._backlog.place(verdict) as there_is_room:
            status = 200 if there_is_room else 503
            await answer(status, _EXTRA.get(status, {}))

    async def _judge(
        self, method: str, headers: Headers, read: Callable[[], Awaitable[bytes]]
    ) -> WebhookEvent | int:
        """Return the event, or the status to refuse with."""
        status = self._refusal(method, headers)
        if status is not None:
            return status
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeout):
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

    def _refusal(self, method: str, headers: Headers) -> int | None:
        """Return the status to refuse with before the body is read."""
        if method != "POST":
            return 405
        kinds = [_word(kind) for kind in header_values(headers, "content-type")]
        codings = [_word(coding) for coding in header_values(headers, "content-encoding")]
        if kinds != ["application/json"] or codings not in ([], ["identity"]):
            return 415
        for length in header_values(headers, "content-length"):
            if length.isdecimal() and (len(length) > 15 or int(length) > self._max_body):
                return 413
        return None


def _word(value: str) -> str:
    return value.partition(";")[0].strip().lower()
