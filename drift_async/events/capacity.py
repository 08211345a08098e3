"""The bound on events and bytes that wait, and the queue of those that wait for capacity."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import attrs


@attrs.define(eq=False, repr=False)
class _Waiter:
    size: int
    granted: asyncio.Future[None]


class Capacity:
    """How many events and bytes may wait; granted first come, first served."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.events = self.bytes = 0  # in use
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._waiters: deque[_Waiter] = deque()
        self._refusal: Callable[[], Exception] | None = None

    def try_reserve(self, size: int, events: int = 1) -> bool:
        """Reserve capacity; return False if there is too little, or others wait for it."""
        if self._waiters or not self._fits(size, events):
            return False
        self.add(events, size)
        return True

    async def reserve(self, size: int, until: float) -> None:
        """Reserve capacity for one event, or raise TimeoutError at *until* on the loop's clock."""
        if self.try_reserve(size):
            return
        if self._refusal is not None:
            raise self._refusal()
        waiter = _Waiter(size, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout_at(until):
                await waiter.granted
        except (TimeoutError, asyncio.CancelledError):
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self._grant()
            elif not waiter.granted.cancelled() and not waiter.granted.exception():
                self.release(1, size)  # granted in the same moment: the next may have it
            raise

    def add(self, events: int, size: int) -> None:
        """Use capacity, even over the limit."""
        self.events += events
        self.bytes += size

    def release(self, events: int, size: int) -> None:
        """Free capacity."""
        self.events -= events
        self.bytes -= size
        if self._waiters:
            self._grant()

    def begin(self, events: int, size: int) -> None:
        """Start with so much in use, and nobody waiting."""
        self.events, self.bytes = events, size
        self._waiters.clear()

    def refuse(self, error: Callable[[], Exception] | None) -> None:
        """Raise *error* in all waiters, present and future, until this is called with None."""
        self._refusal = error
        while error is not None and self._waiters:
            granted = self._waiters.popleft().granted
            if not granted.done():
                granted.set_exception(error())

    def _fits(self, size: int, events: int = 1) -> bool:
        events += self.events
        if events == 1:
            return True  # one over the limit by itself must still come through
        return events <= self._max_events and self.bytes + size <= self._max_bytes

    def _grant(self) -> None:
        while self._waiters and self._fits(self._waiters[0].size):
            waiter = self._waiters.popleft()
            if not waiter.granted.done():
                self.add(1, waiter.size)
                waiter.granted.set_result(None)
