"""What a call has met so far, and the errors that this makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from ..errors import CallError, ClosedError, DeadlineError, merged, reply_applied, reply_error
from .endpoint import Endpoint, Reply
from .rate_limit import new_place
from .retry import Failure, failure_error, parse_retry_after
from .secret import Secret


class Tally:
    """What a call has met so far."""

    __slots__ = (
        "applied",
        "attempts",
        "began",
        "clock",
        "cost",
        "endpoint",
        "place",
        "refusal",
        "refused_since",
        "renewed",
        "request_id",
        "retry_after",
        "secrets",
        "status",
        "uncounted",
    )

    def __init__(self, endpoint: Endpoint[Any], clock: Callable[[], float], began: float) -> None:
        self.endpoint = endpoint
        self.clock = clock
        self.began = began
        self.place = new_place(began)
        self.attempts = 0
        self.uncounted = 0  # attempts that the rate refused, and that cost nothing
        self.cost = 0
        self.renewed = False
        self.refused_since = math.inf  # when a 429 was its last answer for the first time
        self.refusal: Reply | None = None  # the reply of the last attempt, if that was a 429
        self.applied: bool | None = False
        self.status: int | None = None
        self.request_id: str | None = None
        self.retry_after: float | None = None
        self.secrets: Sequence[Secret] = ()  # what the last request carried

    def note(self, outcome: Reply | Failure) -> None:
        """Take note of an attempt that failed."""
        self.attempts += 1
        self.retry_after = None
        self.refusal = None
        if isinstance(outcome, Failure):
            self.applied = merged(self.applied, outcome.applied)
            self.status = outcome.head or self.status
            return
        self.applied = merged(self.applied, reply_applied(outcome.status))
        self.status = outcome.status
        if outcome.status == 429:
            self.refusal = outcome
            self.refused_since = min(self.refused_since, self.clock())
        else:
            self.refused_since = math.inf
        self.request_id = outcome.headers.get("X-Request-Id")
        header = outcome.headers.get("Retry-After")
        self.retry_after = parse_retry_after(header, datetime.now(UTC))

    def has_deleted(self, reply: Reply) -> bool:
        """Tell whether a 404 means that an attempt whose reply was lost has deleted it."""
        if reply.status != 404 or self.endpoint.method != "DELETE" or self.applied is False:
            return False
        reply.body = b"{}"
        return True

    def told(self) -> dict[str, Any]:
        """Return what an error carries of all this."""
        return {
            "attempts": self.attempts,
            "elapsed": self.clock() - self.began,
            "status": self.status,
            "request_id": self.request_id,
        }

    def closed(self) -> ClosedError:
        """Return the error of a call whose client was closed under it."""
        error = ClosedError(f"{self.endpoint.name}: the client was closed while it was under way")
        error.applied = self.applied
        return error

    def too_late(self, detail: str) -> DeadlineError:
        """Return the error of a call whose deadline has passed while it waited to be sent."""
        return DeadlineError(
            detail,
            operation=self.endpoint.name,
            applied=self.applied,
            reason="deadline",
            **self.told(),
        )

    def error(self, outcome: Reply | Failure, reason: str) -> CallError | ClosedError:
        """Return the error that the last outcome makes of the call."""
        told: dict[str, Any] = {"applied": self.applied, "reason": reason, **self.told()}
        if isinstance(outcome, Failure):
            is_unknown = self.applied is None and self.endpoint.effect == "once"
            if outcome.kind == "closed" and not is_unknown:
                return self.closed()
            return failure_error(self.endpoint, outcome, **told)
        return reply_error(
            outcome.status,
            outcome.headers,
            outcome.body,
            operation=self.endpoint.name,
            scope=self.endpoint.scope,
            retry_after=self.retry_after,
            secrets=self.secrets,
            **{key: value for key, value in told.items() if key != "status"},
        )
