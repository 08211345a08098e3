"""How the items of a bulk come to their turn: all through one place in the queue of each budget."""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from typing import Final

import attrs

from .call import Caller
from .endpoint import Reply
from .rate_limit import Limiter, Place
from .retry import REFUSED, Failure, Reason
from .tally import Tally

RATE_PATIENCE: Final = 300.0
"""Seconds after which a refused item fails if no request was let in, or it never was."""


class SharedPlace:
    """One place in the queue of a budget, for the items of one bulk; the oldest item goes first.

    So an item that was refused goes before all that were not sent yet.
    """

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: list[tuple[Place, asyncio.Future[None]]] = []

    async def acquire(self, limiter: Limiter, place: Place) -> None:
        """Wait for a turn of *limiter*, for an item with that place among the items."""
        if self._is_taken:
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (place, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self._hand_on()  # it had come to this item in the same moment
                raise
        self._is_taken = True
        try:
            await limiter.acquire()
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


class Gate:
    """What the items of one bulk share: their place in each queue, and the count of refusals."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.places: defaultdict[int, SharedPlace] = defaultdict(SharedPlace)
        self.refusals = 0


@attrs.define(eq=False, repr=False)
class BulkCaller(Caller):
    """The caller of a bulk's items.

    Single calls wait behind one of them at most. An item's deadline starts when the budget first
    lets it through, and stands still whenever it waits for the budget again: the length of a bulk,
    and a server that asks all to wait, are no fault of the item.
    """

    gate: Gate = attrs.field(kw_only=True)

    def now(self) -> float:
        """Return the time on the clock of deadlines."""
        return self.site.clock()

    def ensure_open(self) -> None:
        """Raise the reason why nothing can be sent here, if there is one."""
        self.site.use()

    @property
    def refusals(self) -> int:
        """How many requests of the bulk were answered 429 or 503."""
        return self.gate.refusals

    async def _pace(self, limiter: Limiter, tally: Tally, deadline: float) -> float:
        left = deadline - self.site.clock()
        await self.gate.places[id(limiter)].acquire(limiter, tally.place)
        moved = self.site.clock() + left
        if self.deadline is not None:
            self.deadline = moved  # for the item's other requests
        return moved

    def _last_let_in(self, limiter: Limiter) -> float:
        return max(limiter.last_let_in, self.gate.began)

    def _rate_patience(self) -> float:
        return RATE_PATIENCE

    def _has_time_after(self, pause: float, deadline: float) -> bool:
        return True  # an item's time stands still in a pause

    def _verdict(
        self, tally: Tally, outcome: Reply | Failure, deadline: float, limiter: Limiter, sent: float
    ) -> float | Reason:
        if isinstance(outcome, Failure) or outcome.status not in REFUSED:
            return super()._verdict(tally, outcome, deadline, limiter, sent)
        self.gate.refusals += 1
        if "Retry-After" in outcome.headers:
            deadline += self.retry.max_retry_after
        verdict = super()._verdict(tally, outcome, deadline, limiter, sent)
        if isinstance(verdict, str) or not limiter.paused_for():
            return verdict
        return 0.0  # all have to wait: the item does so at its place, where its time stands still
