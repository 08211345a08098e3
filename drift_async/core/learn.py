"""A pace that learns what the server allows: arithmetic with moments handed in.

A server that limits is taken for a leaky bucket: `depth` requests go in at once, and `limit` of
them leak out a second. When it refuses one, the bucket is full: since it was last empty, `seconds`
ago, it has taken `depth + limit * seconds` requests. In longer and in shorter windows it has taken
less than that. So a refusal measures: the limit is the largest `(taken - depth) / seconds` of all
windows that end with it. The first flight of requests, which go all at once, tells the depth.

Only a refusal tells that there is not more, and it costs its pause and the requests refused. So the
learner holds just below the limit, long enough to make this cost a small share; then it speeds up,
ever faster, until the next refusal.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from .pace import Pace

SHARE: Final = 0.035
"""How much of the limit may be lost by trying for more."""
REFUSAL: Final = 5.0
"""What a refused request counts in that."""
HOLD: Final = 3.0
"""The least seconds between two tries."""
AGREED: Final = 8
"""Measures in a row that agree, from which on it is longer; with twice as many, twice as long."""
PATIENT: Final = 4.0
"""How many times as long at most."""
MARGIN: Final = 0.002
"""How far below the limit to hold, as a share of it; more after a measure with few requests."""
STEP: Final = 0.04
"""How far above the limit a try begins, as a share of it."""
DOUBLING: Final = 1.0
"""Seconds in which that doubles."""
SEEKING: Final = 0.35
"""Seconds in which the rate doubles as long as it is not known what the server allows."""
SOLID: Final = 100
"""The requests with which a measure can be trusted."""
MOST: Final = 400
"""The most that older measures weigh, in requests, so that small changes are followed."""
CUT: Final = 0.05
"""How much the limit is lowered at least when it proves wrong."""
SPARE: Final = 6.0
"""The part of the depth that is not used at once: requests arrive less evenly than they leave."""
PEAK: Final = 4.0
"""How many times faster than the limit to go when there is something to catch up."""
ROOM: Final = 0.9
"""What a refused request found free: less than one."""


class _Window:
    """The requests sent since a moment, until the next window."""

    __slots__ = ("sent", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.sent = 0


class Learner(Pace):
    """A pace that is free until the server refuses, and then follows what it measures.

    A round goes from a refusal to the next: a pause, holding, speeding up. What was sent before the
    pause belongs to the round before: its refusals are those of one congestion.
    """

    BACKOFF = 0.05  # little: what has to change is the rate

    def __init__(self) -> None:
        super().__init__(None)
        self._limit = 0.0  # not known
        self._evidence = 0  # the requests with which it was measured
        self._agreed = 0  # measures in a row that were about the same
        self._depth = 1.0
        self._flight = -math.inf  # when the first requests went, if all at once
        # This round.
        self._full_at = -math.inf
        self._began = -math.inf
        self._windows = [_Window(-math.inf)]
        self._recent: deque[float] = deque(maxlen=256)  # as many as can be in flight, and more
        self._refusals = 0  # that ended the last round
        self._taken = 0  # requests of which it is known by now
        self._pressed = False  # somebody has to wait: there is use for a higher rate
        self._held = 0.0  # seconds under pressure, while holding or since the last window
        self._patience = HOLD
        self._growing = False
        self._base = self._extra = 0.0  # the rate, while growing
        self._doubling = SEEKING

    def sent(self, now: float, waited: bool) -> None:
        if self.per_second is None:
            return
        super().sent(now, waited)
        spaced = now + self._interval / PEAK
        if self.next < spaced:
            self.next = spaced
        self._pressed = waited
        if waited:
            self._held += self._interval
            if self._growing:
                if self._held >= self._doubling / 5:
                    self._open_window(now)
            elif self._held >= self._patience:
                self._open_window(now)
                step = min(0.5, max(STEP, 1 / self._evidence))
                self._grow(self._limit, self._limit * step, DOUBLING)
        self._windows[-1].sent += 1
        self._recent.append(now)

    def unsent(self) -> None:
        super().unsent()
        if self.per_second is not None:
            self._windows[-1].sent -= 1

    def succeeded(self, sent_at: float) -> None:
        self._last_success = sent_at
        if self.per_second is None:
            window = self._windows[-1]
            if sent_at >= window.since + 1:
                window = _Window(sent_at)
                self._windows = [self._windows[-1], window]
            window.sent += 1
        elif sent_at >= self._began:
            self._taken += 1
            # Growth is by success, so that there is none while the server is away.
            if self._growing and self._pressed:
                self._extra *= 2 ** min(1.0, self._interval / self._doubling)
                self._set_rate(self._base + self._extra)
        elif sent_at <= self._flight and not self._taken:
            self._depth += 1  # it was let in before, and answered later than the first refusal

    def refused(self, now: float, sent_at: float, wait: float | None, teaches: bool) -> None:
        super().refused(now, sent_at, wait, teaches)
        if not teaches:
            return
        if sent_at >= self._began:
            self._learn(now, sent_at)
            self._full_at = now
            self._refusals = 0
            self._begin_round(max(now, self.paused_until))
        elif self.paused_until > self._began:
            self._begin_round(self.paused_until)
        self._refusals += 1
        if self._limit:
            lost = self._limit * (self._began - self._full_at) - self._depth
            cost = max(0.0, lost) + REFUSAL * self._refusals
            hold = max(HOLD, cost / (SHARE * self._limit))
            trust = min(1.0, self._evidence / SOLID)
            self._patience = hold * trust * min(PATIENT, max(1.0, self._agreed / AGREED))

    def _learn(self, now: float, sent_at: float) -> None:
        """Draw from the first refusal of a congestion how to go on."""
        if self.per_second is None:
            self._first(sent_at)
            return
        later = 1 + sum(at > sent_at for at in self._recent)  # with the refused one itself
        taken = sum(window.sent for window in self._windows) - later
        if taken <= 2 and not self._taken:
            self._seek(self.per_second / 8)  # nothing is let in: that measures nothing
            return
        holding = not self._growing
        leaked = self._limit * (sent_at - self._began)
        depth = taken + ROOM - leaked
        if holding and self.burst > 1 and depth > 1.5 and leaked < 2 * self._depth:
            # Refused while catching up, and the limit was measured just before: it is the depth.
            self._depth = depth
            holding = False
        else:
            self._adopt(*self._measure(sent_at, later))
        self._growing = False
        # Refused while holding: the next refusal had better measure from an empty bucket.
        self.burst = 1.0 if holding else max(1.0, self._depth / 2, self._depth - SPARE)
        self._set_rate(self._limit * (1 - MARGIN - min(0.05, 0.7 / self._evidence)))
        self._due = now + self._depth / self._limit
        self.next = max(self._due - self._slack, self.paused_until)

    def _begin_round(self, at: float) -> None:
        self._began = at
        self._windows = [_Window(at)]
        self._recent.clear()
        self._taken = 0
        self._held = 0.0

    def _first(self, sent_at: float) -> None:
        """Learn the depth from what went in before the first refusal, and seek the limit."""
        taken = sum(window.sent for window in self._windows)
        began = next((window.since for window in self._windows if window.sent), sent_at)
        seconds = max(0.0, sent_at - began)
        if seconds < 0.1:
            self._flight = sent_at
        self._depth = max(1.0, taken / (1 + min(seconds, 1.0)))
        self._seek(taken / max(seconds, 1.0))

    def _seek(self, rate: float) -> None:
        self.burst = 1.0
        self._due, self.next = -math.inf, self.paused_until
        self._grow(0.0, max(1.0, rate), SEEKING)

    def _grow(self, base: float, extra: float, doubling: float) -> None:
        self._growing = True
        self._base, self._extra, self._doubling = base, extra, doubling
        self._set_rate(base + extra)

    def _set_rate(self, rate: float) -> None:
        self.per_second = rate
        self._interval = 1 / rate
        self._slack = self._interval * (self.burst - 1)

    def _open_window(self, now: float) -> None:
        self._held = 0.0
        self._windows.append(_Window(now))
        if len(self._windows) > 20:
            self._windows[0].sent += self._windows.pop(1).sent

    def _measure(self, sent_at: float, later: int) -> tuple[float, int]:
        """Return the limit that a refusal tells, and the requests that tell it.

        *later* is how many were not sent before the refused one.
        """
        taken = evidence = max(1, sum(window.sent for window in self._windows) - later)
        # The bucket was full at the end of the last round, too.
        limit = taken / max(0.001, sent_at - self._full_at)
        taken = -later
        for window in reversed(self._windows):
            taken += window.sent
            seconds = sent_at - window.since
            if seconds > 0.01 and (taken + ROOM - self._depth) / seconds > limit:
                limit, evidence = (taken + ROOM - self._depth) / seconds, taken
        return min(limit, 1 / self._interval), evidence

    def _adopt(self, limit: float, evidence: int) -> None:
        """Let a measure change what is known."""
        known = self._limit
        agreed, self._agreed = self._agreed, 0
        if not known:
            self._limit, self._evidence = limit, min(evidence, MOST)
        elif not self._growing and self._held < self._patience / 2:
            # So soon, it cannot be that the measure before was a little too high.
            self._limit = max(min(limit, known * (1 - CUT)), known / 2)
            self._evidence = min(evidence, SOLID)
        elif abs(limit - known) <= 3 * known * (1 / evidence + 1 / self._evidence):
            both = self._evidence + evidence
            self._limit = (known * self._evidence + limit * evidence) / both
            self._evidence = min(both, MOST)
            self._agreed = agreed + 1
        else:
            self._limit, self._evidence = max(limit, known / 2), min(evidence, MOST)
