"""When the next request may go: a fixed pace, and pauses. Arithmetic with moments handed in."""

from __future__ import annotations

import math
from typing import ClassVar, Final

LATE: Final = 0.004
"""How late a timer may be, in seconds, without slowing those who wait."""
SLOWER: Final = 0.007
"""By which share the pace is slower than its rate. So a second in which that is made good, and the
way is a little faster than before, still holds no more than the rate and the burst."""
LONGEST_BACKOFF: Final = 5.0
AGAIN: Final = 0.1
"""How soon after a pause a request was sent that tells, refused, that the pause was too short."""


class Pace:
    """Evenly spaced requests, `burst` of them at once (GCRA), and none during a pause.

    Times are seconds of one clock.
    """

    BACKOFF: ClassVar = 0.5
    """Seconds of a pause when the server told no time; doubled while all after it is refused."""

    def __init__(self, per_second: float | None, burst: float = 1.0) -> None:
        self.per_second = per_second
        """The requests a second; None while no rate holds anything back."""
        self.burst = burst
        self.next = -math.inf
        """The moment from which the next request may go."""
        self.paused_until = -math.inf
        self._paused = 0.0
        self._backoff = 0.0
        self._last_success = -math.inf  # sent then
        self._interval = (1 + SLOWER) / per_second if per_second else 0.0
        self._slack = self._interval * (burst - 1)
        # The moment from which an evenly spaced sender would be free again.
        self._due = -math.inf

    def sent(self, now: float, waited: bool) -> None:
        """Take note of a request that goes *now*, and whether it had to wait for its turn."""
        due, turn = self._due, now
        if waited:
            turn = max(self.next, now - LATE)
        if due < turn:
            due = turn
        self._due = due = due + self._interval
        self.next = due - self._slack

    def unsent(self) -> None:
        """Take the last note back: its request did not go."""
        self._due -= self._interval
        self.next = max(self._due - self._slack, self.paused_until)

    def succeeded(self, sent_at: float) -> None:
        """Take note of a request that the server let in."""

    def refused(self, now: float, sent_at: float, wait: float | None, teaches: bool) -> None:
        """Take note of one that it did not, and pause: for *wait* seconds, if it told how long.

        *teaches* says that it was refused for the rate.
        """
        if wait:
            self._backoff = 0.0
            self.pause(now, wait)
        elif sent_at >= self.paused_until:  # else the pause is for this refusal, too
            again = sent_at <= self.paused_until + AGAIN and self._last_success < self.paused_until
            longer = 2 * self._backoff if again else 0.0
            self._backoff = min(LONGEST_BACKOFF, max(self.BACKOFF, longer))
            self.pause(now, self._backoff)

    def pause(self, now: float, seconds: float) -> None:
        """Let nothing go for so long; a shorter pause does not end a longer one."""
        until = now + seconds
        if until > self.paused_until:
            self._paused += until - max(now, self.paused_until)
            self.paused_until = until
            self.next = max(self.next, until)

    def paused_total(self, now: float) -> float:
        """Return the seconds of all pauses until *now*."""
        return self._paused - max(0.0, self.paused_until - now)
