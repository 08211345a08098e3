"""A connection in virtual time, and contacts that are called over it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

from drift_async import Retry
from drift_async.core.call import Caller, Live, Site
from drift_async.core.endpoint import Reply
from drift_async.core.hooks import Hooks
from drift_async.core.rate_limit import Limiter, Rate
from drift_async.core.retry import Failure
from drift_async.resources.contacts import Contacts

Answer = Callable[[float, str, str], tuple[int, dict[str, str]]]
"""What a server answers at some moment to a method and target: status and headers."""


def always(now: float, method: str, target: str) -> tuple[int, dict[str, str]]:
    return 200, {}


class Wire:
    """Stands in for the connection: notes when each request leaves, and answers after a while."""

    def __init__(self, answer: Answer = always, latency: float = 0.01) -> None:
        self.answer = answer
        self.latency = latency
        self.sent: list[tuple[float, str, str]] = []
        self.under_way = 0

    async def attempt(
        self,
        endpoint: Any,
        target: str,
        body: bytes | None,
        now: float,
        until: float,
        sink: Any,
        limiter: Limiter,
    ) -> Reply | Failure:
        self.sent.append((now, endpoint.method, target))
        status, headers = self.answer(now, endpoint.method, target)
        self.under_way += 1
        try:
            await asyncio.sleep(min(self.latency, until - now))
        finally:
            self.under_way -= 1
        if self.latency >= until - now:
            return Failure("stalled", "no whole reply in time", True)
        contact: Any = {"id": 7}
        if endpoint.method == "GET" and "?" in target:
            contact = []
        return Reply(status, headers, json.dumps({"data": contact}).encode())

    def times(self) -> list[float]:
        """Return when each request left."""
        return [at for at, _, _ in self.sent]


def contacts(wire: Wire, rate: Rate | None = None, timeout: float = 10.0) -> Contacts:
    clock = asyncio.get_running_loop().time
    site = Site({"default": Limiter(rate or Rate(), clock)}, clock=clock, chance=lambda: 0.5)
    site.live = Live(cast(Any, wire), Hooks())
    return Contacts(Caller(site, timeout, Retry(), attempt_timeout=30.0, max_pages=10))


def paused_until(end: float) -> Answer:
    def answer(now: float, method: str, target: str) -> tuple[int, dict[str, str]]:
        if now < end:
            return 429, {"Retry-After": str(round(end - now, 6))}
        return 200, {}

    return answer
