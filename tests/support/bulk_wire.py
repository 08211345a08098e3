"""A connection in virtual time, and contacts that are called over it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, cast

from drift_async import Retry
from drift_async.core.caller import Caller, ClientState
from drift_async.core.rate_limit import Limiter, Rate
from drift_async.core.request import Failure, Request, Response
from drift_async.core.slots import ConnectionSlots
from drift_async.resources.contacts import Contacts

T = TypeVar("T")

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
        self.loop = asyncio.get_running_loop()
        self.slots = ConnectionSlots(10_000)

    async def send(self, request: Request, seconds: float, attempt: int = 1) -> Response | Failure:
        now, method = asyncio.get_running_loop().time(), request.endpoint.method
        self.sent.append((now, method, request.target))
        status, headers = self.answer(now, method, request.target)
        self.under_way += 1
        try:
            await asyncio.sleep(min(self.latency, seconds))
        finally:
            self.under_way -= 1
        if self.latency >= seconds:
            return Failure("stalled", "no whole reply in time", True)
        contact: Any = {"id": 7}
        if method == "GET" and "?" in request.target:
            contact = []
        return Response(status, headers, json.dumps({"data": contact}).encode())

    def spawn(
        self, work: Coroutine[Any, Any, T], context: Context | None = None
    ) -> asyncio.Task[T]:
        return self.loop.create_task(work, context=context)

    def times(self) -> list[float]:
        """Return when each request left."""
        return [at for at, _, _ in self.sent]


def contacts(wire: Wire, rate: Rate | None = None, timeout: float = 10.0) -> Contacts:
    clock = asyncio.get_running_loop().time
    limiters = {"default": Limiter(rate or Rate(), clock)}
    state = ClientState(limiters, clock=clock, random=lambda: 0.5)
    state.session = cast(Any, wire)
    return Contacts(Caller(state, timeout, Retry(), attempt_timeout=30.0, max_pages=10))


def paused_until(end: float) -> Answer:
    def answer(now: float, method: str, target: str) -> tuple[int, dict[str, str]]:
        if now < end:
            return 429, {"Retry-After": str(round(end - now, 6))}
        return 200, {}

    return answer
