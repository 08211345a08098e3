"""Pacing: arithmetic with a clock handed in, and the queue of those who wait."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

import attrs

from .inputs import number, whole


@attrs.frozen
class Rate:
    """How fast a client may send: ``per_second`` requests, ``burst`` of them at once.

    Without ``per_second`` nothing is held back until the server refuses.
    """

    per_second: float | None = None
    burst: int = 1

    def __attrs_post_init__(self) -> None:
        if self.per_second is not None:
            number("per_second", self.per_second, above=0)
        whole("burst", self.burst, 1)


@attrs.frozen
class RateState:
    """What a limiter is doing: the rate (None: free), how many calls wait, and for how many more
    seconds the server has asked for silence."""

    per_second: float | None
    burst: int
    waiting: int
    paused_for: float


class Limiter:
    """One budget's pace, first come first served (GCRA).

    Numbers only: it outlives the client's connections. *clock* gives monotonic seconds.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._interval = 1 / rate.per_second if rate.per_second else 0.0
        self._slack = self._interval * (rate.burst - 1)
        # The moment from which an evenly spaced sender would be free again.
        self._due = -math.inf
        self._paused_until = -math.inf
        self._queue: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.learns = False

    @property
    def free(self) -> bool:
        return not self._interval and not self._queue and self._paused_until == -math.inf

    def succeeded(self, sent_at: float) -> None:
        pass

    def refused(self, sent_at: float, wait: float | None, *, teaches: bool) -> None:
        if wait:
            self.pause(wait)

    def take(self) -> bool:
        """Take a slot at once; False if one has to wait for it."""
        if not self._interval and not self._queue and self._paused_until == -math.inf:
            return True
        now = self._clock()
        if self._queue or self._wait(now) > 0:
            return False
        self._spend(now)
        return True

    async def acquire(self) -> None:
        """Wait for a slot, behind all who came before."""
        if self.take():
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._wake()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._due -= self._interval  # granted in the same moment: the next may have it
            self._wake()
            raise

    def pause(self, seconds: float) -> None:
        """Let nobody through for so long: the server's word."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        self._wake()

    def state(self) -> RateState:
        """Return what this limiter is doing now."""
        paused = max(0.0, self._paused_until - self._clock())
        waiting = sum(not turn.cancelled() for turn in self._queue)
        return RateState(self._rate.per_second, self._rate.burst, waiting, paused)

    def _wait(self, now: float) -> float:
        return max(self._paused_until, self._due - self._slack) - now

    def _spend(self, now: float) -> None:
        self._due = max(self._due, now) + self._interval
        if now >= self._paused_until:
            self._paused_until = -math.inf

    def _wake(self) -> None:
        """Let through who may go, and set the one timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue:
            if self._queue[0].cancelled():
                self._queue.popleft()
                continue
            now = self._clock()
            wait = self._wait(now)
            if wait > 0:
                loop = self._queue[0].get_loop()
                self._timer = loop.call_later(wait, self._wake)
                return
            self._spend(now)
            self._queue.popleft().set_result(None)
