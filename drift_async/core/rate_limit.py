"""Rate limits: the setting, the spacing of requests, and the queue of calls that wait."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import attrs

from ..errors import ClosedError
from .adaptive import LATENESS, AdaptiveRate
from .slots import ConnectionSlots
from .validate import integer, number

logger = logging.getLogger("drift_async")

MARGIN: Final = 0.007
"""Share by which a fixed rate is sent slower than it is set: late timers that are made up for, and
a network path that gets faster, then never put more than rate + burst requests into one second."""
TOLERANCE: Final = 0.04
"""Share of an interval by which a fixed rate makes up for a late timer without a burst."""
BACKOFF: Final = 0.05
"""Seconds of the first pause after a refusal that names no time."""
MAX_BACKOFF: Final = 5.0
ANSWER_WAIT: Final = 1.0
"""Seconds to wait for the answer of a request that is sent alone, before another one is."""
TIMER_RESOLUTION: Final = 0.001
SHORT_INTERVAL: Final = 0.005
"""Seconds between requests below which a timer's resolution costs a good part of the rate."""
WARN_BELOW: Final = 0.9
"""Share of a fixed rate below which a client that is refused logs a warning."""


Place = tuple[float, int]
"""A place in a queue: when its call began, and the number of the place among all."""
_numbers = itertools.count()


def new_place(began: float) -> Place:
    """Return the place of a call that began at that moment, behind all others that did."""
    return began, next(_numbers)


@attrs.frozen
class Rate:
    """How fast a client may send: ``per_second`` requests, ``burst`` of them at once.

    A rate that you set is a ceiling. The default ``burst`` is what 20 ms hold, and at least 1
    (``max(1, per_second // 50)``); a burst of 1 sends strictly spaced requests, with no gap below
    0.95 of the interval. A client that the server refuses again and again at this rate goes below
    it, logs one WARNING on the logger ``drift_async``, and finds its way back.

    Without ``per_second`` the rate is learned: nothing is held back until the server refuses; from
    then on the client keeps just below what the server proves to allow, and now and then tries for
    more. ``burst`` has no meaning then.

    Set a little less than the limit if you know it (0.9 of it); leave it out if you do not. Raises
    `InputError` for a rate that is not above 0 or a burst below 1.
    """

    per_second: float | None = None
    burst: int = attrs.field()

    @burst.default
    def _default_burst(self) -> int:
        if self.per_second is not None:
            number("per_second", self.per_second, above=0)
        return max(1, int((self.per_second or 0) * LATENESS + 1e-9))

    def __attrs_post_init__(self) -> None:
        if self.per_second is not None:
            number("per_second", self.per_second, above=0)
        integer("burst", self.burst, 1)


@attrs.frozen
class RateState:
    """What pacing does now.

    ``per_second`` requests are sent at most (None: nothing is held back), ``burst`` of them at
    once; ``ceiling`` is the rate that was set (None: the rate is learned); ``waiting`` calls wait
    for a turn; ``paused_for`` is the time in seconds until the server may be asked again.
    """

    per_second: float | None
    burst: int
    waiting: int
    paused_for: float
    ceiling: float | None = None


class GcraBucket:
    """When the next request may go: evenly spaced requests with a burst (GCRA), and pauses.

    Its rate is that of an `AdaptiveRate`, which the outcomes of the requests teach. All moments are
    handed in, in seconds of one clock.
    """

    def __init__(self, rate: AdaptiveRate) -> None:
        self.rate = rate
        self.next = -math.inf
        """The moment from which the next request may go."""
        self.paused_until = -math.inf
        self._theoretical = -math.inf  # when an evenly spaced sender would be free again
        self._backoff = 0.0
        self._last_let_in = -math.inf  # when the last request that was let in had been sent
        self._is_alone = False  # after a pause of our own length: one request asks for all
        self._restarts = False
        self._use_rate()

    @property
    def is_strict(self) -> bool:
        """Whether requests are so close, without a burst, that no timer can keep the rate."""
        return not self._slack and bool(self._tolerance) and self._interval < SHORT_INTERVAL

    def sent(self, now: float, *, waited: bool) -> None:
        """Record a request that goes *now*, and whether it had to wait for its turn."""
        rate = self.rate
        if rate.was_refused or rate.per_second is None:
            rate.sent(now, waited=waited)
        if self._restarts:
            self._restarts = False
            self._theoretical = max(self._theoretical, now + self._slack)
        earliest = now - self._tolerance if waited else now
        if self._theoretical < earliest:
            self._theoretical = earliest
        self._theoretical += self._interval
        self.next = self._theoretical - self._slack
        if self._is_alone:
            self.next = max(self.next, now + ANSWER_WAIT)

    def unsent(self) -> None:
        """Take the last record back: its request did not go."""
        self.rate.unsent()
        self._theoretical -= self._interval
        self.next = max(self._theoretical - self._slack, self.paused_until)

    def let_in(self, now: float, sent_at: float) -> bool:
        """Record a request that the server let in; return whether others may go earlier now."""
        self._last_let_in = max(self._last_let_in, sent_at)
        rate = self.rate
        before = rate.per_second
        if rate.was_refused or before is None:
            rate.succeeded(now, sent_at)
            if rate.per_second != before:
                self._use_rate()
        if not self._is_alone or sent_at < self.paused_until:
            return False
        self._is_alone, self._restarts = False, True
        self.next = max(self.paused_until, self._theoretical - self._slack)
        return True

    def refused(
        self, now: float, sent_at: float, retry_after: float | None, *, is_rate_limit: bool
    ) -> None:
        """Record a refusal and pause: for *retry_after* seconds, or for a backoff of our own.

        *is_rate_limit* says that the rate was the reason, so that it teaches.
        """
        if is_rate_limit and not retry_after and self.rate.is_by_chance():
            return
        paused_until = self.paused_until
        if retry_after:
            self._backoff, self._is_alone = 0.0, False
            self.paused_until = max(paused_until, now + retry_after)
        elif sent_at >= self.paused_until:  # else the pause is for this refusal, too
            again = self._backoff and self._last_let_in < self.paused_until
            longest = max(MAX_BACKOFF, self.rate.blocked / 8)
            first = max(BACKOFF, self.rate.blocked / 16)
            self._backoff = min(longest, 2 * self._backoff if again else first)
            self._is_alone = True
            self.paused_until = now + self._backoff
        if is_rate_limit:
            self.rate.refused(now, sent_at, self.paused_until, told=bool(retry_after))
            self._use_rate()
        if self.paused_until > paused_until:
            # A pause earns no burst.
            self._theoretical = max(self._theoretical, self.paused_until + self._slack)
            self.next = self._theoretical - self._slack

    def _use_rate(self) -> None:
        rate = self.rate
        per_second = rate.per_second
        own = per_second is not None and per_second == rate.ceiling
        self._interval = (1 + MARGIN * own) / per_second if per_second else 0.0
        self._slack = self._interval * (rate.burst - 1)
        self._tolerance = 0.0 if rate.was_refused else TOLERANCE * self._interval


class Limiter:
    """One budget: its bucket, and the calls that wait for a turn, first come first served.

    A turn is a moment of the bucket and a connection slot, taken together: no call holds one of
    them while it waits for the other. The limiter holds numbers only, so it outlives the client's
    connections, and works on in another event loop. *clock* gives the seconds of those loops.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bucket = GcraBucket(AdaptiveRate(rate.per_second, rate.burst))
        self._queue: list[tuple[Place, asyncio.Future[None], ConnectionSlots]] = []
        self._timer: asyncio.Handle | None = None
        self._slots_asked: ConnectionSlots | None = None  # that will give a slot to the head
        self._refusals = 0
        self._has_warned = False
        self.last_let_in = -math.inf
        """When the server last let a request in: with any answer but 429 and 503."""
        self._is_free = rate.per_second is None  # whether the bucket holds nothing back

    def try_acquire(self, slots: ConnectionSlots) -> bool:
        """Take a turn, and a slot for it, at once; return False if that is not possible now."""
        if self._queue or not slots.try_take():
            return False
        if not self._is_free:
            now = self._clock()
            if now < self._bucket.next:
                slots.release()
                return False
            self._bucket.sent(now, waited=False)
            self._set_free(now)
        return True

    async def acquire(self, slots: ConnectionSlots, place: Place | None = None) -> None:
        """Wait for a turn, and a slot for it, behind all calls with an earlier *place*.

        Raises `ClosedError` when `close` is called meanwhile.
        """
        if self.try_acquire(slots):
            return
        loop = asyncio.get_running_loop()
        if self._queue and self._queue[0][1].get_loop() is not loop:
            self._forget()  # left by a loop that has ended
        turn = loop.create_future()
        heapq.heappush(self._queue, (place or new_place(self._clock()), turn, slots))
        if self._timer is None:
            self._wake()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:
                # Granted in the same moment: the next call may have both.
                self._bucket.unsent()
                slots.release()
                self._wake()
            raise

    def close(self) -> None:
        """Wake all calls that wait with `ClosedError`: there will be no connection for them."""
        queue = self._queue
        self._forget()
        for _, turn, _ in queue:
            if not turn.done():
                turn.set_exception(ClosedError("the client was closed"))
        self._set_free(self._clock())

    def let_in(self, sent_at: float) -> None:
        """Record that a request sent at *sent_at* was let in: any answer but 429 and 503."""
        self.last_let_in = now = self._clock()
        if self._bucket.let_in(now, sent_at):
            self._wake()

    def refused(self, sent_at: float, retry_after: float | None, *, is_rate_limit: bool) -> None:
        """Pause all calls of this budget: a request sent at *sent_at* was answered 429 or 503.

        The pause lasts *retry_after* seconds, or a backoff of our own without one.
        """
        self._bucket.refused(self._clock(), sent_at, retry_after, is_rate_limit=is_rate_limit)
        if is_rate_limit:
            self._refusals += 1
            self._warn()
        self._wake()

    def paused_for(self) -> float:
        """Return for how many more seconds no call gets a turn."""
        return max(0.0, self._bucket.paused_until - self._clock())

    def state(self) -> RateState:
        """Return what this limiter is doing now."""
        rate = self._bucket.rate
        waiting = sum(not turn.cancelled() for _, turn, _ in self._queue)
        per_second, burst = rate.per_second, int(rate.burst)
        return RateState(per_second, burst, waiting, self.paused_for(), rate.ceiling)

    def _warn(self) -> None:
        """Log, once, that the server does not allow the rate that was set."""
        rate = self._bucket.rate
        own, sends = rate.ceiling, rate.per_second
        if self._has_warned or own is None or sends is None or sends > WARN_BELOW * own:
            return
        self._has_warned = True
        message = "refused %d times at your own rate of %.3g/s; sending %.3g/s"
        logger.warning(message, self._refusals, own, sends)

    def _set_free(self, now: float) -> None:
        self._is_free = self._bucket.rate.per_second is None and now >= self._bucket.next

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._queue, self._timer, self._slots_asked = [], None, None

    def _wake(self) -> None:
        """Give turns to the calls that may go; then wait for the next moment, or for a slot."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_free = False
        while (head := self._head()) is not None:
            if self._slots_asked is not None:
                return
            turn, slots = head
            now = self._clock()
            if now < self._bucket.next:
                self._timer = self._wake_in(self._bucket.next - now, turn.get_loop())
                return
            if not slots.try_take():
                self._slots_asked = slots
                slots.take_later(partial(self._use_slot, slots))
                return
            self._grant(turn, now)
        self._set_free(self._clock())

    def _use_slot(self, slots: ConnectionSlots) -> None:
        """Use a slot that has become free for the head of the queue, or give it back.

        A pause may have begun meanwhile, and all that waited may be gone, or their session.
        """
        if self._slots_asked is not slots:
            slots.release()
            return
        self._slots_asked = None
        head, now = self._head(), self._clock()
        if head is not None and now >= self._bucket.next:
            self._grant(head[0], now)
        else:
            slots.release()
        self._wake()

    def _head(self) -> tuple[asyncio.Future[None], ConnectionSlots] | None:
        """Return the first call that still waits."""
        while self._queue:
            _, turn, slots = self._queue[0]
            if not turn.cancelled():
                return turn, slots
            heapq.heappop(self._queue)
        return None

    def _grant(self, turn: asyncio.Future[None], now: float) -> None:
        self._bucket.sent(now, waited=True)
        heapq.heappop(self._queue)
        turn.set_result(None)

    def _wake_in(self, seconds: float, loop: asyncio.AbstractEventLoop) -> asyncio.Handle:
        if not self._bucket.is_strict:
            return loop.call_later(seconds, self._wake)
        # A timer is late by up to its resolution: sleep less, and ask again in each turn then.
        if seconds <= TIMER_RESOLUTION:
            return loop.call_soon(self._wake)
        return loop.call_later(seconds - TIMER_RESOLUTION, self._wake)
