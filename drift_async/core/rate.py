"""Rate limits: the settings, and the queue of those who wait for their turn."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import attrs

from .inputs import number, whole
from .learn import Learner
from .pace import Pace


@attrs.frozen
class Rate:
    """How fast a client may send: ``per_second`` requests, ``burst`` of them at once.

    Without ``per_second`` the rate is learned: nothing is held back until the server refuses; from
    then on the client keeps just below what the server proves to allow, and now and then tries for
    more. ``burst`` has no meaning then.
    """

    per_second: float | None = None
    burst: int = 1

    def __attrs_post_init__(self) -> None:
        if self.per_second is not None:
            number("per_second", self.per_second, above=0)
        whole("burst", self.burst, 1)


@attrs.frozen
class RateState:
    """What a limiter is doing: requests a second (None: nothing is held back) and how many of them
    at once, how many calls wait, and the seconds until the server may be asked again."""

    per_second: float | None
    burst: int
    waiting: int
    paused_for: float


class Limiter:
    """One budget: its pace, and who waits for a turn, first come first served.

    Numbers only, so it outlives the client's connections, and works on in another event loop.
    *clock* gives the seconds of those loops.
    """

    __slots__ = ("_clock", "_pace", "_queue", "_timer", "free", "learns", "succeeded")

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pace = Pace(rate.per_second, rate.burst) if rate.per_second else Learner()
        self._queue: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.learns = rate.per_second is None
        """Whether `succeeded` is of use."""
        self.free = self.learns
        """True while nobody has to ask: `take` would say yes."""
        self.succeeded: Callable[[float], None] = self._pace.succeeded
        """Take note of a reply that is no refusal, to a request sent at that moment."""

    def take(self) -> bool:
        """Take a slot at once; False if one has to wait for it."""
        if self.free:
            return True
        now = self._clock()
        pace = self._pace
        if self._queue or now < pace.next:
            return False
        pace.sent(now, False)
        if pace.per_second is None:
            self.free = True
        return True

    async def acquire(self) -> None:
        """Wait for a slot, behind all who came before."""
        if self.take():
            return
        loop = asyncio.get_running_loop()
        if self._queue and self._queue[0].get_loop() is not loop:
            self._queue.clear()  # left by a loop that has ended
            self._timer = None
        turn = loop.create_future()
        self._queue.append(turn)
        if self._timer is None:
            self._wake()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._pace.unsent()  # granted in the same moment: the next may have it
                self._wake()
            raise

    def refused(self, sent_at: float, wait: float | None, *, teaches: bool) -> None:
        """Let nobody through for *wait* seconds, or for a while of our own if the server told none.

        It refused a request that was sent at *sent_at*; *teaches* tells whether for the rate.
        """
        self._pace.refused(self._clock(), sent_at, wait, teaches)
        self._wake()

    def pause(self, seconds: float) -> None:
        """Let nobody through for so long."""
        self._pace.pause(self._clock(), seconds)
        self._wake()

    def paused_for(self) -> float:
        """Return for how many more seconds nobody is let through."""
        return max(0.0, self._pace.paused_until - self._clock())

    def paused_total(self) -> float:
        """Return the seconds of all pauses so far, for deadlines that stand still meanwhile."""
        return self._pace.paused_total(self._clock())

    def state(self) -> RateState:
        """Return what this limiter is doing now."""
        waiting = sum(not turn.cancelled() for turn in self._queue)
        return RateState(self._pace.per_second, int(self._pace.burst), waiting, self.paused_for())

    def _wake(self) -> None:
        """Let through who may go, and set the one timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        queue, pace = self._queue, self._pace
        self.free = False
        while queue:
            if queue[0].cancelled():
                queue.popleft()
                continue
            now = self._clock()
            if now < pace.next:
                self._timer = queue[0].get_loop().call_later(pace.next - now, self._wake)
                return
            pace.sent(now, True)
            queue.popleft().set_result(None)
        self.free = pace.per_second is None and self._clock() >= pace.next
