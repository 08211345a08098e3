"""From the queue to the server: what outcomes mean, when to go on, a worker for each partition."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import attrs

from ..core.hooks import Hooks, RetryInfo
from ..core.rate_limit import Limiter
from ..core.request import Endpoint, Failure, Request, Response
from ..core.retry import AMBIGUOUS, THROTTLED, Retry, parse_retry_after
from .partition import NEVER, Partition
from .queue import EventQueue, logger
from .storage import QueuedEvent

if TYPE_CHECKING:
    from ..core.session import HttpSession

MAX_BATCH_BYTES = 1024 * 1024
SHARED_AFTER = 3
"""Failures in a row after which all partitions wait; fewer concern their own partition."""

AFTER_A_BUG = 1.0

MAX_PAUSE = 3600.0
"""Seconds for which a Retry-After is obeyed; a longer one is asked for again after that."""

Action = Literal["delivered", "again", "split", "singly", "refused", "unknown", "unauthorized"]


@attrs.frozen
class Route:
    """A kind of event: its name, the operation for one event, and the operation for a batch."""

    name: str
    one: Endpoint[Any]
    many: Endpoint[Any] | None = None
    most: int = 1


def classify(
    outcome: Response | Failure, *, size: int, in_batch: bool, repeats: bool, has_token: bool
) -> Action:
    """Return what to do with the *size* events of a request.

    With *repeats*, events that may or may not have been applied are sent again.
    """
    if isinstance(outcome, Failure):
        if outcome.status_read is not None:
            return "delivered"
        return "again" if repeats or not outcome.sent else "unknown"
    status = outcome.status
    if 200 <= status < 300:
        return "delivered"
    if status in THROTTLED:
        return "again"
    if status in AMBIGUOUS:
        return "again" if repeats else "unknown"
    if status == 401 and has_token:
        return "unauthorized"
    if in_batch and status in (404, 405):
        return "singly"
    return "split" if size > 1 else "refused"


class Backoff:
    """How long to wait after a failure; clock and chance are arguments.

    A partition waits for itself. Once several requests in a row have failed, all partitions wait.
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._streak = 0
        self._since = self._until = -math.inf

    def failed(
        self, attempt: int, began: float, now: float, *, throttled: bool, jitter: float
    ) -> float:
        """Record a request sent at *began* that failed *now*, the *attempt*-th of its batch.

        Returns the seconds that its partition has to wait.
        """
        base = self._retry.throttled_base if throttled else self._retry.base
        wait = jitter * min(self._retry.cap, base * 2.0 ** min(attempt - 1, 64))
        self._streak += 1
        # A request that was under way when the wait began fails for the same cause.
        if self._streak >= SHARED_AFTER and began >= self._since:
            self._since, self._until = now, now + wait
        return wait

    def succeeded(self) -> None:
        """Record a request to which the server had an answer."""
        self._streak = 0

    def skip_wait(self) -> None:
        """Wait no longer."""
        self._until = -math.inf

    def remaining(self, now: float) -> float:
        """Return the seconds until the next request may be sent by any partition."""
        return self._until - now


class Delivery:
    """The workers of an open client: one a partition, each with one request in flight at a time."""

    def __init__(
        self,
        queue: EventQueue,
        session: HttpSession,
        routes: Sequence[Route],
        *,
        hooks: Hooks,
        limiter: Limiter,
        backoff: Backoff,
        attempt_timeout: float,
        linger: float,
        repeats_unknown: bool,
        has_token: bool,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.queue = queue
        self.stopped: str | None = None
        self._session = session
        self._generation = 0
        self._routes = routes
        self._most = max(route.most for route in routes)
        self._hooks = hooks
        self._limiter = limiter
        self._backoff = backoff
        self._attempt_timeout = attempt_timeout
        self._linger = linger
        self._flushing = 0
        self._repeats = [repeats_unknown or route.one.effect == "idempotent" for route in routes]
        self._has_token = has_token
        self._jitter = jitter
        self._clock = asyncio.get_running_loop().time
        self._singly: set[int] = set()  # kinds for which the server has no batches

    async def run(self, partition: Partition) -> None:
        """Deliver the events of a partition, until cancelled."""
        while True:
            holds_slot = False
            try:
                if self._linger or not partition.waiting:
                    await self._gather(partition)
                if not self._may_send():
                    await self._permit(partition)
                holds_slot = True
                if partition.waiting:
                    kind = partition.waiting[0].kind
                    most = 1 if kind in self._singly else self._routes[kind].most
                    batch = partition.take_batch(most, MAX_BATCH_BYTES)
                    holds_slot = False  # each attempt releases it
                    await self._send(partition, batch)
            except Exception:  # a worker must not end: its partition would stand still
                logger.exception("delivery failed; it is tried again")
                partition.requeue()
                await asyncio.sleep(AFTER_A_BUG)
            finally:
                if holds_slot:
                    self._session.slots.release()

    async def _gather(self, partition: Partition) -> None:
        """Wait for a full batch, or for the linger time once there is an event."""
        while not partition.waiting:
            await partition.wait(1)
        if self._linger and not self._flushing and len(partition.waiting) < self._most:
            await partition.wait(self._most, self._linger)

    def _may_send(self) -> bool:
        """Return whether a request may be sent at once; then it has its turn, with a slot."""
        is_on = self.stopped is None and self._backoff.remaining(self._clock()) <= 0
        return is_on and self._limiter.try_acquire(self._session.slots)

    async def _permit(self, partition: Partition) -> None:
        """Wait until a request may be sent; it has its turn then, with a connection slot."""
        while self.stopped or (left := self._backoff.remaining(self._clock())) > 0:
            await partition.wait(NEVER, None if self.stopped else left)
        await self._limiter.acquire(self._session.slots)

    async def _send(self, partition: Partition, batch: list[QueuedEvent]) -> None:
        """Send a batch until all of it is settled, in parts if it is refused as a whole."""
        parts = [batch]
        failures = 0
        while True:
            events = parts.pop()
            kind = events[0].kind
            route, repeats = self._routes[kind], self._repeats[kind]
            in_batch = route.many is not None and kind not in self._singly
            if len(events) > 1 and not in_batch:
                parts += [[event] for event in reversed(events)]
                continue
            endpoint = route.many if in_batch and route.many is not None else route.one
            began, generation = self._clock(), self._generation
            if not repeats:
                partition.unrepeatable = [*partition.unrepeatable, *events]
            outcome = await self._attempt(endpoint, events, failures + 1, in_batch=in_batch)
            if not repeats:
                partition.unrepeatable = partition.unrepeatable[: -len(events)]
            action = classify(
                outcome,
                size=len(events),
                in_batch=in_batch,
                repeats=repeats,
                has_token=self._has_token,
            )
            self._report_to_limiter(outcome, began)
            failures = failures + 1 if action == "again" else 0
            match action:
                case "delivered":
                    await self.queue.settle(partition, events)
                case "split":
                    half = len(events) // 2
                    parts += [events[half:], events[:half]]
                case "singly":
                    self._singly.add(kind)
                    parts.append(events)
                case "refused" | "unknown":
                    await self.queue.dead_letter(partition, events, action, _status(outcome))
                case "unauthorized":
                    parts.append(events)
                    if generation == self._generation:
                        self._stop()
                case "again":
                    parts.append(events)
                    wait = self._wait_after(failures, began, outcome)
                    self._hooks.retry(RetryInfo(endpoint.name, failures, *outcome.seen, wait))
                    await partition.wait(NEVER, wait)
            if not parts:
                return
            await self._permit(partition)

    async def _attempt(
        self, endpoint: Endpoint[Any], events: list[QueuedEvent], number: int, *, in_batch: bool
    ) -> Response | Failure:
        body = events[0].body
        if in_batch:
            body = b"[" + b",".join([event.body for event in events]) + b"]"
        try:
            request = Request(endpoint, endpoint.path, body)
            return await self._session.send(request, self._attempt_timeout, number)
        finally:
            self._session.slots.release()

    def _report_to_limiter(self, outcome: Response | Failure, began: float) -> None:
        """Report a reply to the rate limiter and to the backoff."""
        if isinstance(outcome, Response) and outcome.status in THROTTLED:
            asked = parse_retry_after(outcome.headers.get("Retry-After"), datetime.now(UTC))
            wait = None if asked is None else min(asked, MAX_PAUSE)
            self._limiter.refused(began, wait, is_rate_limit=outcome.status == 429)
        elif isinstance(outcome, Response):
            self._limiter.let_in(began)
            if outcome.status < 500:
                self._backoff.succeeded()  # the server works, also if it refuses

    def _wait_after(self, attempt: int, began: float, outcome: Response | Failure) -> float:
        throttled = isinstance(outcome, Response) and outcome.status in THROTTLED
        return self._backoff.failed(
            attempt, began, self._clock(), throttled=throttled, jitter=self._jitter()
        )

    def paused_for(self) -> float:
        """Return the seconds until a request may be sent again."""
        return max(0.0, self._backoff.remaining(self._clock()))

    def _stop(self) -> None:
        if self.stopped is None:
            self.stopped = "the token was refused (401)"
            logger.error("delivery stopped: %s", self.stopped)
            self.queue.give_up_flushes()

    def resume(self) -> None:
        """Deliver again, because there is another token."""
        self._generation += 1
        self.stopped = None
        self._wake()

    def _wake(self) -> None:
        for partition in self.queue.partitions:
            partition.wake()

    async def drain(self, seconds: float) -> None:
        """Send what waits without lingering; return once it is settled, or time is up."""
        self._flushing += 1
        self._backoff.skip_wait()
        self._wake()
        try:
            async with asyncio.timeout(seconds):
                if self.stopped is None:
                    await self.queue.flushed()
        except TimeoutError:
            pass
        finally:
            self._flushing -= 1


def _status(outcome: Response | Failure) -> int | None:
    return outcome.status if isinstance(outcome, Response) else outcome.status_read
