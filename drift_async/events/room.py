"""Room for so many events and bytes, and the line of those who wait for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import attrs


@attrs.define(eq=False, repr=False)
class _Place:
    size: int
    granted: asyncio.Future[None]


class Room:
    """How much may wait at most; first come, first served."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.events = self.bytes = 0  # in use
        self.coming = self.coming_bytes = 0  # of these, by what is not accepted yet
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.places: deque[_Place] = deque()
        self._refusal: Callable[[], Exception] | None = None

    def take(self, size: int, events: int = 1) -> bool:
        """Take room for events of a *size*; False if there is none, or others wait for it."""
        if self.places or not self._fits(size, events):
            return False
        self._grant(events, size)
        return True

    async def wait(self, size: int, until: float) -> None:
        """Take room for one event, or raise TimeoutError at *until* on the loop's clock."""
        if self.take(size):
            return
        if self._refusal is not None:
            raise self._refusal()
        place = _Place(size, asyncio.get_running_loop().create_future())
        self.places.append(place)
        try:
            async with asyncio.timeout_at(until):
                await place.granted
        except (TimeoutError, asyncio.CancelledError):
            if place in self.places:
                self.places.remove(place)
                self._admit()
            elif not place.granted.cancelled() and not place.granted.exception():
                self.give_back(1, size)  # granted in the same moment: the next may have it
            raise

    def _grant(self, events: int, size: int) -> None:
        self.add(events, size)
        self.coming += events
        self.coming_bytes += size

    def arrived(self, events: int, size: int) -> None:
        """Note that events for which room was taken are accepted."""
        self.coming -= events
        self.coming_bytes -= size

    def give_back(self, events: int, size: int) -> None:
        """Free the room that was taken for events which are not accepted."""
        self.arrived(events, size)
        self.free(events, size)

    def free(self, events: int, size: int) -> None:
        """Free the room of events that have left."""
        self.events -= events
        self.bytes -= size
        if self.places:
            self._admit()

    def add(self, events: int, size: int) -> None:
        """Use room, also where there is none."""
        self.events += events
        self.bytes += size

    def begin(self, events: int, size: int) -> None:
        """Start with so much in use, and nobody waiting."""
        self.events, self.bytes = events, size
        self.coming = self.coming_bytes = 0
        self.places.clear()

    def refuse(self, error: Callable[[], Exception] | None) -> None:
        """Let all fail who wait, or come to wait, until this is called with None."""
        self._refusal = error
        while error is not None and self.places:
            granted = self.places.popleft().granted
            if not granted.done():
                granted.set_exception(error())

    def _fits(self, size: int, events: int = 1) -> bool:
        events += self.events
        if events == 1:
            return True  # one over the limit by itself must still come through
        return events <= self.max_events and self.bytes + size <= self.max_bytes

    def _admit(self) -> None:
        while self.places and self._fits(self.places[0].size):
            place = self.places.popleft()
            if not place.granted.done():
                self._grant(1, place.size)
                place.granted.set_result(None)
