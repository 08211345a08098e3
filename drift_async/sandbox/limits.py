"""Rate limits: a leaky bucket for each token and event API, and a window for the report calls."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from typing import Final

REPORTS: Final = 60
WINDOW: Final = 60.0


class Limits:
    """Decides whether a call may pass. Times are seconds of one monotonic clock."""

    def __init__(self, rate: float | None, event_rate: float | None, burst: int) -> None:
        self._rates = {"default": rate, "events": event_rate, "segmentstream": event_rate}
        self._burst = burst
        self._free_at: dict[str, float] = {}
        self._reports: defaultdict[str, deque[float]] = defaultdict(deque)

    def wait(self, budget: str, token: str, clock: float) -> int:
        """Take the call into account and return 0, or return whole seconds to wait."""
        if budget == "reports":
            return self._report(token, clock)
        rate = self._rates[budget]
        if rate is None or (budget == "default" and not token):
            return 0  # without a token there are only calls that need none, such as for one
        key = token or budget
        free_at = max(self._free_at.get(key, clock), clock)
        early = free_at - clock - (self._burst - 1) / rate
        if early > 1e-9:
            return max(1, math.ceil(early - 1e-9))
        self._free_at[key] = free_at + 1 / rate
        return 0

    def _report(self, token: str, clock: float) -> int:
        calls = self._reports[token]
        while calls and calls[0] <= clock - WINDOW:
            calls.popleft()
        if len(calls) >= REPORTS:
            return max(1, math.ceil(calls[0] + WINDOW - clock))
        calls.append(clock)
        return 0
