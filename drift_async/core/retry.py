"""When to retry, and after how long: pure functions, with clock and jitter handed in."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import ClassVar, Literal

import attrs

from .request import Effect, Failure, Response
from .validate import integer, number

StopReason = Literal["attempts", "deadline", "quota", "not_retryable", "retry_after"]

TIMER_RESOLUTION = 0.001
"""Seconds by which a timer may be early."""

THROTTLED = frozenset({429, 503})
"""Statuses of requests that were not applied, and may be later: all operations may be retried."""
AMBIGUOUS = frozenset({408, 500, 502, 504})
"""Statuses of requests that may have been applied; retried only where a repeat does no harm."""


@attrs.frozen(kw_only=True)
class Retry:
    """How a client tries again.

    ``attempts`` requests at most; waits are random up to ``base`` seconds (``throttled_base`` after
    a 429 or 503), doubled each time, never over ``cap``. A 429 costs no attempt if the server has
    let another call of the same rate limit in within the last ``max_retry_after`` seconds: the call
    waits for its turn again. A server's Retry-After is obeyed up to ``max_retry_after`` seconds;
    beyond that the call fails at once. ``repeat_refused`` also repeats creates that were answered
    429 or 503, on the assumption that these were not applied.
    """

    attempts: int = 3
    base: float = 0.5
    throttled_base: float = 1.0
    cap: float = 20.0
    max_retry_after: float = 60.0
    repeat_refused: bool = True

    def __attrs_post_init__(self) -> None:
        integer("attempts", self.attempts, 1)
        for name in ("base", "throttled_base", "cap", "max_retry_after"):
            number(name, getattr(self, name))

    def repeats(self, effect: Effect, outcome: Response | Failure) -> bool:
        """Return whether an operation of this effect may be retried after this outcome."""
        if isinstance(outcome, Failure):
            if outcome.kind == "closed":
                return False
            if not outcome.sent:
                return outcome.kind != "certificate"
            return effect != "once" and outcome.kind != "too_large"
        if outcome.status in THROTTLED:
            return effect != "once" or self.repeat_refused
        return effect != "once" and outcome.status in AMBIGUOUS

    def next_delay(
        self,
        effect: Effect,
        outcome: Response | Failure,
        *,
        attempts: int,
        remaining: float,
        retry_after: float | None,
        jitter: float,
    ) -> float | StopReason:
        """Return the seconds to wait before the next attempt, or why there is none.

        *remaining* are the seconds until the deadline, *retry_after* those that the server asks
        for, *jitter* is a random number from 0 to 1.
        """
        is_stalled = isinstance(outcome, Failure) and outcome.kind == "stalled"
        if is_stalled and remaining < TIMER_RESOLUTION:
            return "deadline"
        if not self.repeats(effect, outcome):
            return "not_retryable"
        if remaining <= 0:
            return "deadline"
        if attempts >= self.attempts:
            return "attempts"
        if retry_after is not None and retry_after > min(self.max_retry_after, remaining):
            return "retry_after"
        throttled = isinstance(outcome, Response) and outcome.status in THROTTLED
        base = self.throttled_base if throttled else self.base
        doubled = base * 2.0 ** min(attempts - 1, 1000)  # a float holds no more
        delay = max(retry_after or 0.0, jitter * min(self.cap, doubled))
        return delay if delay < remaining else "deadline"


@attrs.define
class RetryBudget:
    """How many retries a client may still make, so that calls fail fast during an outage.

    A retry costs some of it; a success pays the last cost of its call back (at least 1), up to
    ``size``.
    """

    size: ClassVar[int] = 500
    left: int = size

    def cost(self, outcome: Response | Failure) -> int:
        """Return the price of a retry after *outcome*: a refusal is cheaper than a breakdown."""
        return 5 if isinstance(outcome, Response) and outcome.status in THROTTLED else 14

    def try_spend(self, cost: int) -> bool:
        """Spend *cost*; return False if less than that is left."""
        if cost > self.left:
            return False
        self.left -= cost
        return True

    def refund(self, cost: int) -> None:
        """Pay back the *cost* of the last retry of a call that has succeeded."""
        self.left = min(self.size, self.left + (cost or 1))


_SECONDS = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,9})?")


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for; None if it cannot be read."""
    if text is None or len(text) > 64:
        return None
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
