"""`BulkSlot`: how the items of one bulk wait for their turn, at one place in each queue."""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from typing import Final

from .rate_limit import Limiter, Place
from .slots import ConnectionSlots

RATE_PATIENCE: Final = 300.0
"""Seconds without any request let in, or of refusals of one item, after which that item fails."""


class BulkSlot:
    """The one place that a bulk has in the queue of each budget; its oldest item goes first.

    Single calls wait behind one item at most, and an item that was refused goes before all that
    were not sent yet. ``refusals`` counts the responses 429 and 503 to the bulk's requests.
    """

    def __init__(self, began: float) -> None:
        self.began = began
        self.refusals = 0
        self._places: defaultdict[int, _SharedPlace] = defaultdict(_SharedPlace)

    async def acquire(self, limiter: Limiter, slots: ConnectionSlots, place: Place) -> None:
        """Wait for a turn of *limiter*, and a slot, for the item with that place in the bulk."""
        await self._places[id(limiter)].acquire(limiter, slots, place)


class _SharedPlace:
    """A place in the queue of one budget, which one item at a time takes."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: list[tuple[Place, asyncio.Future[None]]] = []

    async def acquire(self, limiter: Limiter, slots: ConnectionSlots, place: Place) -> None:
        if self._is_taken:
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (place, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self._hand_on()  # the place had come to this item in the same moment
                raise
        self._is_taken = True
        try:
            await limiter.acquire(slots)
        finally:
            self._hand_on()

    def _hand_on(self) -> None:
        """Give the place to the oldest item that waits; it stays taken meanwhile."""
        self._is_taken = False
        while self._waiting and not self._is_taken:
            turn = heapq.heappop(self._waiting)[1]
            if not turn.done():
                turn.set_result(None)
                self._is_taken = True
