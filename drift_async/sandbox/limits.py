"""Rate limits of tokens and event APIs, by leaky buckets or fixed windows, and of report calls."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from typing import Final

REPORTS: Final = 60
WINDOW: Final = 60.0
SLACK: Final = 1e-9
"""Seconds by which sums of floats may be wrong."""

Key = tuple[str, str]


def _whole(seconds: float) -> int:
    """Return whole seconds, rounded up, for a Retry-After header."""
    return max(1, math.ceil(seconds - SLACK))


class Limits:
    """Decides whether a call may pass. Times are seconds of one monotonic clock."""

    def __init__(
        self,
        rate: float | None,
        event_rate: float | None,
        burst: int | None = None,
        window: float | None = None,
    ) -> None:
        for one in (rate, event_rate, window):
            if one is not None and not 0 < one < math.inf:
                raise ValueError("rate, event_rate and window must be above 0 and finite, or None")
        if burst is not None and burst < 1:
            raise ValueError("burst must be at least 1")
        if window is not None and burst is not None:
            raise ValueError("burst has no meaning with window")
        if window is not None and rate is None and event_rate is None:
            raise ValueError("window needs rate or event_rate")
        self._rates = {"default": rate, "events": event_rate, "segmentstream": event_rate}
        self._burst = burst
        self._window = window
        self._free_at: dict[Key, float] = {}
        self._windows: dict[Key, tuple[float, int, int]] = {}
        self._reports: defaultdict[str, deque[float]] = defaultdict(deque)

    def wait(self, budget: str, token: str, clock: float) -> int:
        """Count the call and return 0, or refuse it and return the whole seconds to wait."""
        if budget == "reports":
            return self._report(token, clock)
        rate = self._rates[budget]
        if rate is None or (budget == "default" and not token):
            return 0  # only open operations come without a token, such as the token call
        # An event API has one limit for all callers, so a token sent along does not matter.
        key = budget, token if budget == "default" else ""
        if self._window is None:
            return self._bucket(key, rate, clock)
        return self._count(key, rate, self._window, clock)

    def _bucket(self, key: Key, rate: float, clock: float) -> int:
        burst = max(1, rate // 10) if self._burst is None else self._burst
        free_at = max(self._free_at.get(key, clock), clock)
        early = free_at - clock - (burst - 1) / rate
        if early > SLACK:
            return _whole(early)
        self._free_at[key] = free_at + 1 / rate
        return 0

    def _count(self, key: Key, rate: float, window: float, clock: float) -> int:
        first, number, count = self._windows.get(key, (clock, 0, 0))
        current = math.floor((clock - first + SLACK) / window)
        if current != number:
            count = 0
        if count >= max(1, round(rate * window)):
            return _whole(first + (current + 1) * window - clock)
        self._windows[key] = first, current, count + 1
        return 0

    def _report(self, token: str, clock: float) -> int:
        calls = self._reports[token]
        while calls and calls[0] <= clock - WINDOW:
            calls.popleft()
        if len(calls) >= REPORTS:
            return _whole(calls[0] + WINDOW - clock)
        calls.append(clock)
        return 0
