"""How the items of a bulk come to their turn: all through one place in the queue of each budget."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import attrs

from .call import Caller
from .endpoint import Reply
from .rate import Limiter
from .retry import REFUSED, Failure, Reason
from .tally import Tally


class Gate:
    """What the items of one bulk share: their place in each queue, and the count of refusals."""

    def __init__(self) -> None:
        self.places: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.refusals = 0


@attrs.define(eq=False, repr=False)
class BulkCaller(Caller):
    """The caller of a bulk's items.

    Single calls wait behind one of them at most. An item's deadline starts when the budget first
    lets it through, and stands still whenever it waits for the budget again: the length of a bulk,
    and a server that asks all to wait, are no fault of the item.
    """

    gate: Gate = attrs.field(factory=Gate)

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
        async with self.gate.places[id(limiter)]:
            await limiter.acquire()
        moved = self.site.clock() + left
        if self.deadline is not None:
            self.deadline = moved  # for the item's other requests
        return moved

    def _verdict(
        self, tally: Tally, outcome: Reply | Failure, deadline: float, limiter: Limiter, sent: float
    ) -> float | Reason:
        if isinstance(outcome, Failure) or outcome.status not in REFUSED:
            return super()._verdict(tally, outcome, deadline, limiter, sent)
        self.gate.refusals += 1
        if "Retry-After" in outcome.headers:
            deadline += self.retry.max_retry_after
        verdict = super()._verdict(tally, outcome, deadline, limiter, sent)
        if isinstance(verdict, str) or not limiter.state().paused_for:
            return verdict
        return 0.0  # all have to wait: the item does so at its place, where its time stands still
