"""From the outbox to the server: what outcomes mean, when to go on, a worker for each lane."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import attrs

from ..core.hooks import Hooks, RetryInfo
from ..core.rate_limit import Limiter
from ..core.request import Endpoint, Failure, Request, Response
from ..core.retry import AMBIGUOUS, THROTTLED, Retry, parse_retry_after
from ..core.session import HttpSession
from .lanes import NEVER, Lane, Row
from .ledger import logger
from .outbox import Outbox

MAX_BATCH_BYTES = 1024 * 1024
SHARED_AFTER = 3
"""Failures in a row after which all lanes pause; fewer concern their own lane."""

AFTER_A_BUG = 1.0

MAX_PAUSE = 3600.0
"""Seconds for which a Retry-After is obeyed; a longer one is asked for again after that."""

Verdict = Literal["delivered", "again", "split", "singly", "refused", "unknown", "unauthorized"]


@attrs.frozen
class Route:
    """A kind of event: what its operation is called, where one goes, and where many go."""

    name: str
    one: Endpoint[Any]
    many: Endpoint[Any] | None = None
    most: int = 1


def judge(
    outcome: Response | Failure, *, size: int, in_batch: bool, repeats: bool, has_token: bool
) -> Verdict:
    """Return what an outcome means for the *size* events of a request.

    With *repeats*, what may or may not have been applied is sent again.
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


class Pause:
    """How long to wait after a failure; clock and chance are handed in.

    A lane waits for itself. Once several requests have failed without one that did not, all wait.
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._streak = 0
        self._since = self._until = -math.inf

    def failed(
        self, attempt: int, began: float, now: float, *, throttled: bool, chance: float
    ) -> float:
        """Take note of a request sent at *began* that failed *now*, the *attempt*-th of its kind;
        return the seconds its lane has to wait."""
        base = self._retry.throttled_base if throttled else self._retry.base
        wait = chance * min(self._retry.cap, base * 2.0 ** min(attempt - 1, 64))
        self._streak += 1
        # What was under way when the pause began is the same failure once more.
        if self._streak >= SHARED_AFTER and began >= self._since:
            self._since, self._until = now, now + wait
        return wait

    def succeeded(self) -> None:
        """Take note of a request to which the server had an answer."""
        self._streak = 0

    def hurry(self) -> None:
        """Wait no longer."""
        self._until = -math.inf

    def left(self, now: float) -> float:
        """Return the seconds until the next request may be sent by any lane."""
        return self._until - now


class Delivery:
    """The workers of an open client: one for each lane, with one request in flight at a time."""

    def __init__(
        self,
        outbox: Outbox,
        session: HttpSession,
        routes: Sequence[Route],
        *,
        hooks: Hooks,
        limiter: Limiter,
        pause: Pause,
        attempt_timeout: float,
        linger: float,
        repeats_unknown: bool,
        has_token: bool,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.outbox = outbox
        self.stopped: str | None = None
        self._session = session
        self._generation = 0
        self._routes = routes
        self._most = max(route.most for route in routes)
        self._hooks = hooks
        self._limiter = limiter
        self._pause = pause
        self._attempt_timeout = attempt_timeout
        self._linger = linger
        self._hurries = 0
        self._repeats = [repeats_unknown or route.one.effect == "idempotent" for route in routes]
        self._has_token = has_token
        self._chance = chance
        self._clock = asyncio.get_running_loop().time
        self._singly: set[int] = set()  # kinds for which the server has no batches

    async def work(self, lane: Lane) -> None:
        """Deliver what comes into a lane, until cancelled."""
        while True:
            try:
                if self._linger or not lane.rows:
                    await self._gather(lane)
                if not self._may_send():
                    await self._permit(lane)
                if lane.rows:
                    kind = lane.rows[0].kind
                    most = 1 if kind in self._singly else self._routes[kind].most
                    await self._send(lane, lane.cut(most, MAX_BATCH_BYTES))
                else:
                    self._session.slots.release()
            except Exception:  # a worker must not end: its lane would stand still
                logger.exception("delivery failed; it is tried again")
                lane.recall()
                await asyncio.sleep(AFTER_A_BUG)

    async def _gather(self, lane: Lane) -> None:
        """Wait for a full batch, or a while for what there is."""
        while not lane.rows:
            await lane.wait(1)
        if self._linger and not self._hurries and len(lane.rows) < self._most:
            await lane.wait(self._most, self._linger)

    def _may_send(self) -> bool:
        """Tell whether a request may be sent at once; then it has its slot."""
        is_on = self.stopped is None and self._pause.left(self._clock()) <= 0
        return is_on and self._limiter.try_acquire(self._session.slots)

    async def _permit(self, lane: Lane) -> None:
        """Wait until a request may be sent."""
        while self.stopped or (left := self._pause.left(self._clock())) > 0:
            await lane.wait(NEVER, None if self.stopped else left)
        await self._limiter.acquire(self._session.slots)

    async def _send(self, lane: Lane, batch: list[Row]) -> None:
        """Send a batch until all of it is settled, in parts if it is refused as a whole."""
        parts = [batch]
        failures = 0
        while True:
            rows = parts.pop()
            kind = rows[0].kind
            route, repeats = self._routes[kind], self._repeats[kind]
            in_batch = route.many is not None and kind not in self._singly
            if len(rows) > 1 and not in_batch:
                parts += [[row] for row in reversed(rows)]
                continue
            endpoint = route.many if in_batch and route.many is not None else route.one
            began, generation = self._clock(), self._generation
            if not repeats:
                lane.at_risk = [*lane.at_risk, *rows]
            outcome = await self._attempt(endpoint, rows, failures + 1, in_batch=in_batch)
            if not repeats:
                lane.at_risk = lane.at_risk[: -len(rows)]
            verdict = judge(
                outcome,
                size=len(rows),
                in_batch=in_batch,
                repeats=repeats,
                has_token=self._has_token,
            )
            self._teach(outcome, began)
            failures = failures + 1 if verdict == "again" else 0
            match verdict:
                case "delivered":
                    await self.outbox.deliver(lane, rows)
                case "split":
                    half = len(rows) // 2
                    parts += [rows[half:], rows[:half]]
                case "singly":
                    self._singly.add(kind)
                    parts.append(rows)
                case "refused" | "unknown":
                    await self.outbox.bury(lane, rows, verdict, _status(outcome))
                case "unauthorized":
                    parts.append(rows)
                    if generation == self._generation:
                        self._stop()
                case "again":
                    parts.append(rows)
                    wait = self._wait_after(failures, began, outcome)
                    self._hooks.retry(RetryInfo(endpoint.name, failures, *outcome.seen, wait))
                    await lane.wait(NEVER, wait)
            if not parts:
                return
            await self._permit(lane)

    async def _attempt(
        self, endpoint: Endpoint[Any], rows: list[Row], number: int, *, in_batch: bool
    ) -> Response | Failure:
        body = rows[0].body
        if in_batch:
            body = b"[" + b",".join([row.body for row in rows]) + b"]"
        try:
            request = Request(endpoint, endpoint.path, body)
            return await self._session.send(request, self._attempt_timeout, number)
        finally:
            self._session.slots.release()

    def _teach(self, outcome: Response | Failure, began: float) -> None:
        """Let pacing and pause know how the server does."""
        if isinstance(outcome, Response) and outcome.status in THROTTLED:
            asked = parse_retry_after(outcome.headers.get("Retry-After"), datetime.now(UTC))
            wait = None if asked is None else min(asked, MAX_PAUSE)
            self._limiter.refused(began, wait, is_rate_limit=outcome.status == 429)
        elif isinstance(outcome, Response):
            self._limiter.let_in(began)
            if outcome.status < 500:
                self._pause.succeeded()  # it works, also if it says no

    def _wait_after(self, attempt: int, began: float, outcome: Response | Failure) -> float:
        throttled = isinstance(outcome, Response) and outcome.status in THROTTLED
        return self._pause.failed(
            attempt, began, self._clock(), throttled=throttled, chance=self._chance()
        )

    def paused_for(self) -> float:
        """Return the seconds until a request may be sent again."""
        return max(0.0, self._pause.left(self._clock()))

    def _stop(self) -> None:
        if self.stopped is None:
            self.stopped = "the token was refused (401)"
            logger.error("delivery stopped: %s", self.stopped)
            self.outbox.ledger.give_up_flushes()

    def go_on(self) -> None:
        """Deliver again: there is another token."""
        self._generation += 1
        self.stopped = None
        self.outbox.ledger.wake()

    async def drain(self, seconds: float) -> None:
        """Send all that waits without lingering; return once it is settled, or time is up."""
        self._hurries += 1
        self._pause.hurry()
        self.outbox.ledger.wake()
        try:
            async with asyncio.timeout(seconds):
                if self.stopped is None:
                    await self.outbox.ledger.drained()
        except TimeoutError:
            pass
        finally:
            self._hurries -= 1


def _status(outcome: Response | Failure) -> int | None:
    return outcome.status if isinstance(outcome, Response) else outcome.status_read
