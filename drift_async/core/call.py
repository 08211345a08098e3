"""A call: attempts until there is a reply, a refusal that stands, or no time left."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

import attrs

from ..errors import (
    CallError,
    ClosedError,
    CredentialsError,
    DeadlineError,
    WrongLoopError,
    reply_applied,
    reply_error,
)
from .connection import Connection, was_sent
from .download import Sink
from .endpoint import Endpoint, Reply
from .rate import Limiter
from .retry import Failure, Retry, failure_error, parse_retry_after
from .secret import Secret

T = TypeVar("T")


class Live:
    """What exists only while a client is open: connections and background tasks, in one loop."""

    def __init__(self, connection: Connection) -> None:
        self.loop = asyncio.get_running_loop()
        self.connection = connection
        self.tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that ends with the client; in a context of its own, since it serves all."""
        task = self.loop.create_task(work, context=Context())
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: an abandoned walk must not be reported as a lost error

    async def close(self) -> None:
        """Cancel the tasks, wait for them, close the connections."""
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.connection.close()


@attrs.define(eq=False, repr=False)
class Site:
    """What all views of one client share."""

    limiters: Mapping[str, Limiter]
    token: Secret | None = None
    live: Live | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep
    chance: Callable[[], float] = random.random

    def use(self) -> Live:
        """Return the live part, or raise the reason why it cannot be used here."""
        live = self.live
        if live is None:
            raise ClosedError("the client is not open: use `async with`, or await open()")
        if live.loop is not asyncio.get_running_loop():
            raise WrongLoopError("the client was opened in another event loop; open it in this one")
        return live


@attrs.define(eq=False, repr=False)
class Caller:
    """The settings of calls, and the loop over their attempts."""

    site: Site
    timeout: float
    retry: Retry
    attempt_timeout: float
    max_pages: int
    deadline: float | None = None

    def token(self) -> Secret:
        """Return the client's own token, or raise `CredentialsError`."""
        token = self.site.token
        if token is None:
            raise CredentialsError("the client has no token of its own")
        return token

    def started(self) -> Self:
        """Return a caller whose deadline is already set: one timeout for several requests."""
        if self.deadline is not None:
            return self
        return attrs.evolve(self, deadline=self.site.clock() + self.timeout)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a background task that ends with the client."""
        return self.site.use().spawn(work)

    async def send(
        self,
        endpoint: Endpoint[Any],
        target: str,
        body: bytes | None = None,
        *,
        sink: Sink | None = None,
    ) -> Reply:
        """Return the reply of a 2xx status, or raise what stands in its way."""
        site = self.site
        live = site.use()
        limiter = site.limiters.get(endpoint.budget) or site.limiters["default"]
        clock = site.clock
        began = clock()
        deadline = self.deadline or began + self.timeout
        attempts = 0
        doubt = False  # an earlier attempt may have been applied
        while True:
            if not limiter.take():
                await self._pace(limiter, endpoint, deadline, attempts, began, doubt)
            if site.live is not live:
                raise _closed(endpoint, doubt)
            attempts += 1
            until = min(deadline, clock() + self.attempt_timeout)
            try:
                outcome = await live.connection.attempt(
                    endpoint.method, target, body, until=until, sink=sink
                )
            except asyncio.CancelledError as stop:
                if endpoint.effect == "once" and was_sent():
                    stop.add_note(f"{endpoint.name}: was under way and may have been applied")
                raise
            now = clock()
            if isinstance(outcome, Reply):
                outcome.attempts, outcome.elapsed = attempts, now - began
                if 200 <= outcome.status < 300:
                    return outcome
                if outcome.status == 404 and doubt and endpoint.method == "DELETE":
                    outcome.body = b"{}"  # an attempt whose reply was lost has deleted it
                    return outcome
                asked = parse_retry_after(outcome.headers.get("Retry-After"), datetime.now(UTC))
                doubt = doubt or reply_applied(outcome.status) is None
            else:
                asked = None
                doubt = doubt or outcome.sent
            verdict = self.retry.decide(
                endpoint.effect,
                outcome,
                attempts=attempts,
                left=deadline - now,
                asked=asked,
                chance=site.chance(),
            )
            if isinstance(outcome, Reply) and outcome.status in (429, 503) and asked:
                limiter.pause(min(asked, self.retry.max_retry_after))
            if isinstance(verdict, str):
                break
            await site.sleep(verdict)
        raise _error(endpoint, outcome, asked, attempts, now - began, verdict, doubt)

    async def _pace(
        self,
        limiter: Limiter,
        endpoint: Endpoint[Any],
        deadline: float,
        attempts: int,
        began: float,
        doubt: bool,
    ) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await limiter.acquire()
            return
        except TimeoutError:
            pass
        raise DeadlineError(
            "no turn within the rate limit in time",
            operation=endpoint.name,
            applied=None if doubt else False,
            attempts=attempts,
            elapsed=self.site.clock() - began,
            reason="deadline",
        )


def _closed(endpoint: Endpoint[Any], doubt: bool) -> ClosedError:
    error = ClosedError(f"{endpoint.name}: the client was closed while the call was under way")
    error.applied = None if doubt else False
    return error


def _error(
    endpoint: Endpoint[Any],
    outcome: Reply | Failure,
    asked: float | None,
    attempts: int,
    elapsed: float,
    reason: str,
    doubt: bool,
) -> CallError:
    call: dict[str, Any] = {"attempts": attempts, "elapsed": elapsed, "reason": reason}
    if isinstance(outcome, Failure):
        return failure_error(endpoint, outcome, doubt=doubt, **call)
    return reply_error(
        outcome.status,
        outcome.headers,
        outcome.body,
        operation=endpoint.name,
        scope=endpoint.scope,
        retry_after=asked,
        applied=None if doubt else reply_applied(outcome.status),
        request_id=outcome.headers.get("X-Request-Id"),
        **call,
    )
