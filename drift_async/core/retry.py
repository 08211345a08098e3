"""When to try again, and after how long: pure functions, chance and time handed in."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final, Literal

import attrs

from ..errors import (
    CallError,
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    OutcomeUnknownError,
    ProtocolError,
    ResponseTooLargeError,
)
from .endpoint import Effect, Endpoint, Reply
from .validate import integer, number

Reason = Literal["attempts", "deadline", "quota", "not_retryable", "retry_after"]
FailureKind = Literal[
    "connect", "certificate", "lost", "stalled", "protocol", "too_large", "held", "closed"
]

_RESOLUTION = 0.001
"""Seconds by which a timer may be early."""

REFUSED = frozenset({429, 503})
"""Statuses that mean: not applied, later perhaps. So all operations may be tried again."""
TRANSIENT = frozenset({408, 500, 502, 504})
"""Statuses after which nobody knows; tried again only where a repeat does no harm."""


@attrs.frozen
class Failure:
    """An attempt without a whole reply.

    ``sent`` tells whether anything may have left, ``head`` is the 2xx status that was read before
    the body failed.
    """

    kind: FailureKind
    detail: str
    sent: bool
    head: int | None = None

    @property
    def applied(self) -> bool | None:
        """What this attempt says of the operation."""
        return True if self.head is not None else None if self.sent else False


HELD: Final = Failure("held", "not sent: the rate limit was paused", False)
"""Not an attempt at all: it has to wait for its turn again."""


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

    def repeats(self, effect: Effect, outcome: Reply | Failure) -> bool:
        """Tell whether an operation of this effect may be tried again after this outcome."""
        if isinstance(outcome, Failure):
            if outcome.kind == "closed":
                return False
            if not outcome.sent:
                return outcome.kind != "certificate"
            return effect != "once" and outcome.kind != "too_large"
        if outcome.status in REFUSED:
            return effect != "once" or self.repeat_refused
        return effect != "once" and outcome.status in TRANSIENT

    def decide(
        self,
        effect: Effect,
        outcome: Reply | Failure,
        *,
        attempts: int,
        left: float,
        asked: float | None,
        chance: float,
    ) -> float | Reason:
        """Return the seconds to wait before the next attempt, or why there is none.

        *left* are the seconds to the deadline, *asked* those of Retry-After, *chance* is a random
        number from 0 to 1.
        """
        if isinstance(outcome, Failure) and outcome.kind == "stalled" and left < _RESOLUTION:
            return "deadline"
        if not self.repeats(effect, outcome):
            return "not_retryable"
        if left <= 0:
            return "deadline"
        if attempts >= self.attempts:
            return "attempts"
        if asked is not None and asked > min(self.max_retry_after, left):
            return "retry_after"
        throttled = isinstance(outcome, Reply) and outcome.status in REFUSED
        base = self.throttled_base if throttled else self.base
        doubled = base * 2.0 ** min(attempts - 1, 1000)  # more does not fit a float
        wait = max(asked or 0.0, chance * min(self.cap, doubled))
        return wait if wait < left else "deadline"


@attrs.define
class Quota:
    """What a client may spend on trying again, so that an outage fails fast.

    A retry costs, a success pays back what its call spent last (or 1), up to ``size``.
    """

    size: ClassVar[int] = 500
    left: int = size

    def cost(self, outcome: Reply | Failure) -> int:
        """Return the price of a retry after *outcome*: a refusal is cheaper than a breakdown."""
        return 5 if isinstance(outcome, Reply) and outcome.status in REFUSED else 14

    def take(self, cost: int) -> bool:
        """Spend *cost*; False if there is not so much left."""
        if cost > self.left:
            return False
        self.left -= cost
        return True

    def give_back(self, cost: int) -> None:
        """Take note of a success, before which the call's last retry has cost so much."""
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


def failure_error(
    endpoint: Endpoint[Any], failure: Failure, *, applied: bool | None, reason: str, **call: Any
) -> CallError:
    """Return the error of a call whose last attempt brought no reply.

    *applied* is what all of its attempts say.
    """
    kind = _kind(failure, reason, sent=applied is not False)
    told: dict[str, Any] = {"operation": endpoint.name, "applied": applied, **call}
    if applied is None and endpoint.effect == "once":
        return OutcomeUnknownError(
            failure.detail, settle=endpoint.settle, reason=kind.__name__, **told
        )
    return kind(failure.detail, reason=reason, **told)


def _kind(failure: Failure, reason: str, *, sent: bool) -> type[CallError]:
    if reason == "deadline":
        return DeadlineError
    if not sent:
        return ConnectError
    match failure.kind:
        case "protocol":
            return ProtocolError
        case "too_large":
            return ResponseTooLargeError
    return ConnectionLostError
