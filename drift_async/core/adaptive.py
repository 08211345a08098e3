"""Learns the rate that a server allows: arithmetic with moments handed in, in seconds of one clock.

A refusal says that the server is full, and nothing else does. So the rate is measured at refusals:
between two moments at which a server is full, the requests it let in, divided by the time, are its
limit, whether it is a leaky bucket or counts in windows. That average is too low if the server had
room to spare in between, as after a pause; from a moment at which it was surely empty on, the
requests let in less its depth, divided by the time, are a better measure. The largest of all these
is what the server has proved to allow, and the rate at the refusal is what it does not: the limit
lies between the two. Evenly spaced requests just below it are refused by no kind of server.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, Literal, NamedTuple

COST_SHARE: Final = 0.05
"""Share of the time that pauses and refusals may cost: the rest is spent holding a rate."""
REFUSAL_COST: Final = 5.0
"""A refused request costs as much as this many requests."""
HOLD: Final = (3.0, 20.0)
"""Least and most seconds of holding a rate before trying a higher one, where pauses are short."""
LONG_HOLD: Final = 12.0
"""Most seconds of holding a rate, for each second of a longer pause."""
AGREEING: Final = (4, 5)
"""Number of agreeing estimates after which a rate is held longer; the largest factor."""
SETTLE: Final = 8.0
"""Seconds of holding the first estimate, which is crude."""
MARGIN: Final = 0.002
"""Share by which to stay below the estimate, beside an error of about a third of a request."""
SEEK_DOUBLING: Final = 0.35
"""Seconds in which the rate doubles while no limit is known."""
GROW_DOUBLING: Final = 1.5
"""Seconds in which the excess over the held rate doubles while growing."""
GROW_STEP: Final = 0.01
"""The first excess, as a share of the held rate."""
NEAR: Final = 1.15
"""Below this ratio of refused rate to proved rate the limit counts as known."""
TRY: Final = 1.3
"""How far above the proved rate to try at most, as a factor."""
CUT: Final = 0.05
"""Least share by which a refused rate is lowered; doubled each time that was not enough."""
FREE_PLACE: Final = 0.9
"""Free space that a refused request found in the bucket, in requests: less than one."""
FEW: Final = 5
"""Requests that measure nothing."""
LONG_PAUSE: Final = 2.0
"""Seconds for which no bucket stays full: a server that does counts in windows."""
LATENESS: Final = 0.02
"""Seconds of late timers that a burst makes up for, as far as the server's depth allows."""
CHANCE_SAMPLE: Final = 64
"""The latest requests, of which some may be refused by chance."""
CHANCE_REFUSALS: Final = (2, 1 / 8)
"""Refusals, and share of the sample on top, from which on the server counts as full."""

Phase = Literal["free", "seek", "hold", "grow"]


class Measure(NamedTuple):
    """What a refusal says of the limit, in requests a second.

    The server has *proved* to allow so much, and so much at the *most* if it has no depth;
    *requests* prove it, in a *probe* such as were sent while growing.
    """

    proved: float
    most: float
    requests: int
    is_probe: bool


class AdaptiveRate:
    """The rate at which to send, learned from what is let in and what is refused.

    Without a *ceiling* nothing is held back until the first refusal (``free``). Then the rate
    starts low and doubles quickly (``seek``). The next refusal gives an estimate, just below which
    the rate stays (``hold``) for long enough that refusals cost a small share of the time; then it
    grows, ever faster, until it is refused again (``grow``). With a *ceiling* the rate begins and
    ends there. A round lasts from one pause to the next: refusals of requests sent before a pause
    belong to the congestion that caused it.
    """

    def __init__(self, ceiling: float | None = None, burst: float = 1.0) -> None:
        self.ceiling = ceiling
        self.per_second = ceiling
        """Requests a second; None while nothing is held back."""
        self.burst = burst
        """Requests at once."""
        self.was_refused = False
        self._phase: Phase = "free" if ceiling is None else "hold"
        self._limit = ceiling or 0.0
        self._evidence = 1  # the requests behind that estimate
        self._depth = max(1.0, 2 * burst)  # the requests that the server takes at once
        self._held_safely = 0.0  # a rate that was held for long without a refusal
        self._too_fast = math.inf  # a rate that was tried and refused
        self._fallback = 0.0  # the proved rate below it
        self._agreed = 0  # estimates in a row that were about the same
        self._cut = CUT
        self._period = 0.0  # seconds of a window, if the server counts in such
        self.blocked = 0.0
        """Seconds for which the server stayed full, lately."""
        # The first flight: requests let in before the first refusal.
        self._flight: list[tuple[float, int]] = []  # marks, and at last the refusal
        self._first_reply_at = 0.0
        self._flight_until = -math.inf
        self._leak_time = 0.0
        # This round.
        self._full_at = -math.inf
        self._resumed = -math.inf
        self._resumes_when_told = True
        self._total = 0  # requests let in
        self._was_long = False  # whether it stayed full for long, the last time
        self._cycle = 0.0, 0  # when the server opened after a long time, and the total then
        self._sent = 0
        self._marks: list[tuple[float, int]] = []  # moments, and the requests sent until then
        self._wants_mark = False
        self._recent: deque[float] = deque(maxlen=512)  # when requests were sent
        self._let_in = 0
        self._refusals = 0
        self._pace = 0.0  # the rate at which it was refused
        self._is_settling = False
        self._is_pressed = False  # requests wait: a higher rate would be used
        self._interval = 0.0
        self._elapsed = 0.0  # seconds under pressure in this phase, or since the last mark
        self._patience = HOLD[0]
        self._trust = 1.0
        self._base = self._excess = 0.0
        self._doubling = SEEK_DOUBLING
        # Refusals by chance.
        self._doubts = 0
        self._doubts_allowed = 4
        self._sample: deque[bool] | None = None

    def sent(self, now: float, *, waited: bool) -> None:
        """Record a request that is sent *now*, and whether it had to wait for its turn."""
        self._recent.append(now)
        if self.per_second is None:
            return
        if self._wants_mark:
            self._wants_mark = False
            self._marks.append((now, self._sent))
            del self._marks[1:-30]
        self._is_pressed = waited
        self._sent += 1

    def unsent(self) -> None:
        """Take the last record back: its request was not sent."""
        if self.per_second is not None:
            self._sent -= 1

    def succeeded(self, now: float, sent_at: float) -> None:
        """Record a request that was let in, which was sent at *sent_at* and is answered *now*."""
        self._total += 1
        if self._sample is not None:
            self._sample.append(False)
        if self._phase == "free":
            if not self._marks:
                self._first_reply_at = now
            if not self._marks or sent_at >= self._marks[-1][0] + 1:
                self._marks.append((sent_at, self._sent))
                del self._marks[:-60]
            self._sent += 1
        elif sent_at >= self._resumed:
            if not self._let_in:
                self._open(self._resumed if self._resumes_when_told else sent_at)
            self._let_in += 1
            if self._is_pressed:
                self._elapsed += self._interval
                self._speed_up()
        elif sent_at <= self._flight_until and not self._let_in and not self._limit:
            self._depth += 1  # let in before the first refusal, and answered after it

    def is_by_chance(self) -> bool:
        """Record a refusal without Retry-After; return whether to take it for chance.

        Some servers refuse a share of the requests whatever the rate. A client that has slowed down
        again and again, and is still refused, speeds up instead: a full server then refuses many.
        """
        if self._sample is None:
            return False
        self._sample.append(True)
        self._sent -= 1
        least, share = CHANCE_REFUSALS
        if sum(self._sample) < least + share * len(self._sample):
            return True
        self._sample = None
        self._doubts_allowed *= 2
        return False

    def refused(self, now: float, sent_at: float, resume_at: float, *, told: bool) -> None:
        """Record a refusal, after which nothing is sent until *resume_at*.

        *told* says that the server named that moment.
        """
        self.was_refused = True
        if sent_at >= self._resumed:
            if self._adapt(now, sent_at, resume_at, told=told):
                self._full_at = now
                self._refusals = 0
            self._start_round(max(now, resume_at), told=told)
        elif resume_at > self._resumed:
            self._start_round(resume_at, told=told)
        self._refusals += 1
        if self._limit:
            self._set_patience()

    # Rounds.

    def _start_round(self, at: float, *, told: bool) -> None:
        self._resumed, self._resumes_when_told = at, told
        self._let_in = 0
        self._elapsed = 0.0
        self._recent.clear()
        self._marks = [(at, self._sent)]
        self._wants_mark = False

    def _open(self, at: float) -> None:
        """Record that the server lets requests in again, from *at* on."""
        blocked = at - self._full_at
        self.blocked = max(blocked, self.blocked / 2)
        was_long, self._was_long = self._was_long, blocked >= LONG_PAUSE
        is_long = self._was_long
        if not self._limit and is_long and self._flight:
            if self._first_flight(at)[1] > FEW:
                self._count_in_windows(at)
                self._trust = 0.25  # at least some windows, and not long if it counts in none
                self._hold()
                self._set_patience()
        elif self._phase == "hold" and was_long and is_long and not self._resumes_when_told:
            # No bucket stays full for so long, twice: what came in since it opened is its limit.
            self._period = at - self._cycle[0]
            self._evidence = max(1, self._total - self._cycle[1])
            self._limit = min(self._limit, self._evidence / self._period)
            self._hold()
        if is_long:
            self._cycle = at, self._total

    def _set_patience(self) -> None:
        """Set for how long to hold: so long that this congestion costs a small share."""
        pause = self._resumed - self._full_at
        cost = pause + REFUSAL_COST * self._refusals / self._limit
        least, most = HOLD
        hold = min(max(most, LONG_HOLD * pause), max(least, cost / COST_SHARE))
        count, factor = AGREEING
        self._patience = hold * self._trust * min(factor, max(1.0, self._agreed / count))
        if self._is_settling:
            self._patience = SETTLE
        self._patience = max(self._patience, 3 * self._period)

    def _speed_up(self) -> None:
        if self._phase == "hold":
            if self._elapsed >= self._patience:
                self._start_growing()
            return
        self._excess *= 2 ** min(1.0, self._interval / self._doubling)
        self._set_rate(self._base + self._excess)
        if self._elapsed >= self._doubling / 5:
            self._elapsed = 0.0
            self._wants_mark = True

    def _start_growing(self) -> None:
        assert self.per_second is not None
        # What was held proves no more than this: the bucket may have filled slowly.
        proved = self.per_second - (self._depth - 1) / self._elapsed
        self._held_safely = max(self._held_safely, proved)
        self._cut = CUT
        self._doubts, self._doubts_allowed = 0, 4
        self._elapsed = 0.0
        if self.ceiling is not None and self.per_second >= self.ceiling:
            return
        self._phase = "grow"
        self._base, self._excess = self.per_second, GROW_STEP * self.per_second
        self._doubling = max(GROW_DOUBLING, self.blocked / 8)
        self._wants_mark = True

    # What a refusal says.

    def _adapt(self, now: float, sent_at: float, resume_at: float, *, told: bool) -> bool:
        """Choose how to go on after the first refusal of a congestion.

        Return whether the server had let requests in before it.
        """
        if self._phase == "free":
            self._end_first_flight(now, sent_at, resume_at)
            return True
        later = 1 + sum(at > sent_at for at in self._recent)  # with the refused request itself
        count = self._sent - later - (self._marks[0][1] if self._marks else 0)
        if count <= 2 and not self._let_in and self._marks:
            if told:  # the server is still full at the moment it named
                self._seek(max(1.0, (self.per_second or 1.0) / 8))
            return False
        if not told and self._refusals == 1 and self._phase in ("seek", "hold"):
            self._doubts += 1
            if self._doubts >= self._doubts_allowed:
                self._ignore_chance()
                return True
            if self._phase == "seek":
                return True
        self._learn(sent_at, later, count)
        return True

    def _learn(self, sent_at: float, later: int, count: int) -> None:
        """Draw a new estimate from a refusal, which ended a round of *count* requests let in."""
        assert self.per_second is not None
        self._pace = self.per_second
        measure, before = self._measure(sent_at, later, count), self._limit
        self._evidence = measure.requests
        self._trust, self._is_settling = 1.0, False
        if self._phase == "seek":
            self._settle(measure.proved, count)
        elif self._phase == "grow":
            self._bracket(measure)
        else:
            self._cut_down(measure.proved, count)
        agrees = abs(self._limit - before) <= CUT * self._limit
        self._agreed = self._agreed + 1 if agrees else 0
        self._hold()

    def _measure(self, sent_at: float, later: int, count: int) -> Measure:
        """Return what the server has proved to allow."""
        best = Measure(max(1, count) / max(0.001, sent_at - self._full_at), math.inf, count, False)
        for at, before in self._marks:
            seconds = sent_at - at - self._leak_time
            sent = self._sent - before - later
            if seconds > 0.01 and (sent + FREE_PLACE - self._depth) / seconds > best.proved:
                proved, most = (sent + FREE_PLACE - self._depth) / seconds, (sent + 1) / seconds
                best = Measure(proved, most, sent, sent >= 30 and at > self._resumed)
        proved, most = min(best.proved, self._pace), min(best.most, self._pace)
        return Measure(proved, most, max(1, best.requests), best.is_probe)

    def _end_first_flight(self, now: float, sent_at: float, resume_at: float) -> None:
        """Learn the depth from the requests let in before the first refusal; seek the limit."""
        self._flight = [*self._marks, (sent_at, self._sent)]
        self._cycle = self._flight[-3:][0]
        began, before = self._flight[-3:][0]
        seconds, count = max(0.0, sent_at - began), self._sent - before
        if self._marks and sent_at - self._marks[0][0] < 1.0:
            self._leak_time = now - self._first_reply_at
            self._flight_until = sent_at
        self._depth = max(1.0, count / (1 + seconds))
        self._seek(max(1.0, count / max(1.0, seconds, resume_at - began)))

    def _settle(self, proved: float, count: int) -> None:
        """Take the first measure for the limit."""
        leaked = proved * self._leak_time  # during the first flight, so the depth is uncertain
        self._limit = proved * (1 - min(CUT, leaked / 2 / self._evidence))
        self._is_settling = True
        self._depth = max(1.0, self._depth - leaked)
        self._leak_time = 0.0
        # As many as the first time, however fast they came: that is no bucket.
        if not self._flight:
            return
        first = self._first_flight(self._resumed)[1]
        if first > FEW and abs(count - first) <= 1 + first / 50:
            self._count_in_windows(self._resumed)
            self._limit = max(proved, self._limit)
            self._is_settling, self._trust = False, 2.0  # a whole window is an exact measure

    def _first_flight(self, opened: float) -> tuple[float, int]:
        """Return when the first flight began, and its requests: not longer ago than the server,
        which *opened* again then, was full."""
        until, count = self._flight[-1]
        earliest = until - max(1.0, opened - self._full_at)
        return next((at, count - before) for at, before in self._flight if at >= earliest)

    def _count_in_windows(self, opened: float) -> None:
        """Take the first flight for a whole window, which ended when the server *opened* again."""
        began, count = self._first_flight(opened)
        # Windows last whole seconds; what is over is the way to the server and its rounding.
        self._period = max(1.0, math.floor(opened - began))
        self._limit = (count - 0.5) / self._period
        self._evidence = count

    def _bracket(self, measure: Measure) -> None:
        """Set the limit between what is proved and the rate that was refused while growing."""
        proved, is_probe = measure.proved, measure.is_probe
        low = max(proved, self._held_safely)
        if self._too_fast <= low:
            self._too_fast = math.inf
        pace = min(measure.most, self._too_fast)
        if pace <= NEAR * proved:
            self._limit = proved if is_probe else low + (pace - low) / 3
        else:
            # A deep bucket that has filled, or a server that proves too little: a try will tell.
            self._limit = min((low + pace) / 2, TRY * low)
            self._fallback = low

    def _cut_down(self, proved: float, count: int) -> None:
        """Lower the limit, as the rate was refused while it was held."""
        if count <= FEW or self._was_long:
            proved = 0.0  # of a window, the first requests prove nothing
        cut, self._cut = self._cut, min(0.5, 2 * self._cut)
        if cut == CUT and self._limit > 1.005 * self._held_safely > 0:
            self._too_fast = self._limit
            lower = min(proved or self._fallback, self._limit * (1 - CUT))
            self._limit = max(self._held_safely, lower)
            return
        self._held_safely, self._too_fast = 0.0, math.inf
        lowest = max(proved, self._limit * (1 - cut))
        self._limit = min(self._limit * (1 - CUT), lowest)
        if self.ceiling is not None:
            self._depth = max(1.0, self._depth / 2)  # no first flight has measured it

    def _ignore_chance(self) -> None:
        """Speed up in spite of refusals, until these are too many to be by chance."""
        self._doubts = 0
        self._sample = deque(maxlen=CHANCE_SAMPLE)
        assert self.per_second is not None
        self._seek(self.per_second)

    # The rate.

    def _hold(self) -> None:
        self._phase, self._elapsed = "hold", 0.0
        self._set_rate(self._limit * (1 - MARGIN - min(CUT, 0.35 / self._evidence)))

    def _seek(self, rate: float) -> None:
        self._phase, self._elapsed = "seek", 0.0
        self._base, self._excess, self._doubling = 0.0, rate, SEEK_DOUBLING
        self._set_rate(rate)

    def _set_rate(self, rate: float) -> None:
        if self.ceiling is not None and rate >= self.ceiling:
            rate, self._phase = self.ceiling, "hold"
        self.per_second = rate
        self._interval = 1 / rate
        self.burst = max(1.0, min(LATENESS * rate, self._depth / 2))
