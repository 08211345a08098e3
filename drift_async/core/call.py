"""A call: attempts until there is a reply, a refusal that stands, or no time left."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import attrs

from ..errors import (
    AuthenticationError,
    ClosedError,
    CredentialsError,
    DriftError,
    WrongLoopError,
)
from .connection import Connection
from .download import Sink
from .endpoint import Endpoint, Reply
from .hooks import Hooks, RequestInfo, ResponseInfo, RetryInfo
from .rate_limit import Limiter
from .retry import HELD, REFUSED, Failure, Quota, Reason, Retry
from .secret import Secret, bearer
from .tally import Tally

if TYPE_CHECKING:
    from .admission import BulkCaller

T = TypeVar("T")

RENEWAL_BOUND = 4.0
"""Seconds that closing a client waits for a refresh under way: its token would be lost."""

DENIED = 60.0
"""Seconds in which an operation that refused a new token too causes no other refresh."""


class Live:
    """What exists only while a client is open: connections and background tasks, in one loop."""

    def __init__(self, connection: Connection, hooks: Hooks) -> None:
        self.loop = asyncio.get_running_loop()
        self.connection = connection
        self.hooks = hooks if hooks.watch_attempts() else None
        self.tasks: set[asyncio.Task[Any]] = set()
        self.renewal: asyncio.Task[Any] | None = None

    def spawn(
        self, work: Coroutine[Any, Any, T], context: Context | None = None
    ) -> asyncio.Task[T]:
        """Start a task that ends with the client.

        Without a *context* it gets an empty one, since what it does may outlive who asked for it.
        """
        task = self.loop.create_task(work, context=Context() if context is None else context)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def attempt(
        self,
        endpoint: Endpoint[Any],
        number: int,
        target: str,
        body: bytes | None,
        now: float,
        until: float,
        sink: Sink | None = None,
        limiter: Limiter | None = None,
    ) -> Coroutine[Any, Any, Reply | Failure]:
        """Make an attempt, the call's so-manyth; see `Connection.attempt`."""
        attempt = self.connection.attempt(endpoint, target, body, now, until, sink, limiter)
        if self.hooks is None:
            return attempt
        return _told(self.hooks, endpoint.name, number, len(body or b""), attempt)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: an abandoned walk must not be reported as a lost error

    async def close(self) -> None:
        """Cancel the tasks, wait for them, close the connections.

        Cancelled itself, it leaves a refresh under way to end by itself, and does all else.
        """
        spared = self.renewal
        try:
            if spared is not None:
                await asyncio.wait([spared], timeout=RENEWAL_BOUND)
            spared = None
        finally:
            tasks = self.tasks - {spared}
            for task in tasks:
                task.cancel()
            try:
                if tasks:
                    # Not `gather`, which hands each cancellation on: a scope of anyio cancels in
                    # every turn of the loop, and would disturb what the tasks do at their end.
                    await asyncio.wait(tasks)
            finally:
                await self.connection.close()


class Auth(Protocol):
    """A token that is renewed, such as `OAuth.auth` makes. Clients that share one also share its
    refreshes. A token is told from the next by its object."""

    @property
    def secret(self) -> Secret:
        """The access token in use."""
        ...

    async def renew(self, stale: Secret, live: Live) -> None:
        """Wait for a token newer than *stale*, in a task of *live* or of another's; or raise."""
        ...

    async def keep(self, site: Site, live: Live) -> None:
        """Renew the token ahead of its end, until cancelled."""
        ...


@attrs.define(eq=False, repr=False)
class Site:
    """What all views of one client share.

    ``token`` is what requests carry that are sent from ``token_since`` on.
    """

    limiters: Mapping[str, Limiter]
    token: Secret | None = None
    auth: Auth | None = None
    token_since: float = -math.inf
    denied: dict[str, float] = attrs.field(factory=dict)
    hooks: Hooks = attrs.field(factory=Hooks)
    quota: Quota = attrs.field(factory=Quota)
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

    def carry(self, token: Secret) -> None:
        """Let requests that are sent from now on carry this token."""
        if self.live is not None and token is not self.token:
            self.token, self.token_since = token, self.clock()
            self.live.connection.authorize(bearer(token))


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

    def for_bulk(self) -> BulkCaller:
        """Return a caller for the items of one bulk, with these settings."""
        from .admission import BulkCaller, Gate  # which derives from this class

        return BulkCaller(
            self.site,
            self.timeout,
            self.retry,
            self.attempt_timeout,
            self.max_pages,
            gate=Gate(self.site.clock()),
        )

    def spawn(
        self, work: Coroutine[Any, Any, T], context: Context | None = None
    ) -> asyncio.Task[T]:
        """Start a background task that ends with the client; see `Live.spawn`."""
        return self.site.use().spawn(work, context)

    def send(
        self,
        endpoint: Endpoint[Any],
        target: str,
        body: bytes | None = None,
        *,
        sink: Sink | None = None,
        secrets: Sequence[Secret] = (),
    ) -> Coroutine[Any, Any, Reply]:
        """Return the reply of a 2xx status, or raise what stands in its way.

        *secrets* are those in *target* and *body*; no error shows them.
        """
        call = self._call(endpoint, target, body, sink, secrets)
        spans = self.site.hooks.spans
        return call if spans is None else spans.around(endpoint.name, call)

    async def _call(
        self,
        endpoint: Endpoint[Any],
        target: str,
        body: bytes | None,
        sink: Sink | None,
        secrets: Sequence[Secret],
    ) -> Reply:
        site = self.site
        live = site.live
        if live is None or live.loop is not asyncio.get_running_loop():
            live = site.use()  # says why not
        limiter = site.limiters.get(endpoint.budget) or site.limiters["default"]
        began = now = site.clock()
        deadline = self.deadline or began + self.timeout
        tally = None  # most calls need none
        while True:
            if not limiter.free and not limiter.try_acquire():
                tally = tally or Tally(endpoint, site.clock, began)
                deadline = await self._pace(limiter, tally, deadline)
                now = site.clock()
            if site.live is not live:
                raise (tally or Tally(endpoint, site.clock, began)).closed()
            until = now + self.attempt_timeout
            if until > deadline:
                until = deadline
            number = tally.attempts + 1 if tally else 1
            token = site.token  # of this attempt; another may be in use when it ends
            outcome = await live.attempt(endpoint, number, target, body, now, until, sink, limiter)
            if isinstance(outcome, Reply):
                outcome.began = began
                if 200 <= outcome.status < 300:
                    limiter.let_in(now)
                    if site.quota.left < site.quota.size:
                        site.quota.give_back(tally.cost if tally else 0)
                    if tally is not None:
                        outcome.attempts += tally.attempts
                    return outcome
            elif outcome is HELD:
                now = site.clock()
                continue
            tally = tally or Tally(endpoint, site.clock, began)
            tally.secrets = secrets if token is None else [*secrets, token]
            if isinstance(outcome, Reply) and tally.has_deleted(outcome):
                return outcome
            verdict = self._verdict(tally, outcome, deadline, limiter, now)
            if isinstance(verdict, str):
                error: DriftError | None = tally.error(outcome, verdict)
                if site.auth is not None and type(error) is AuthenticationError:
                    error = await self._renewed(site.auth, error, tally, live, now, deadline)
                if error is not None:
                    break
                verdict = 0.0
            await site.sleep(verdict)
            now = site.clock()
        raise error

    async def _renewed(
        self,
        auth: Auth,
        error: AuthenticationError,
        tally: Tally,
        live: Live,
        sent: float,
        deadline: float,
    ) -> DriftError | None:
        """Return None if the call is to be sent again, once, with a newer token; else its error."""
        site, name, now = self.site, tally.endpoint.name, self.site.clock()
        if error.status == 403 and error.type != "authentication_error":
            return error
        if tally.renewed:
            # So its age was not the reason, and the next call need not try that again.
            if len(site.denied) >= 100:
                site.denied.clear()
            site.denied[name] = now
            return error
        if now - site.denied.get(name, -math.inf) < DENIED:
            return error
        tally.renewed = True
        stale = self.token()
        try:
            async with asyncio.timeout(deadline - now):
                while auth.secret is stale and sent >= site.token_since:
                    if site.live is not live:
                        return tally.closed()
                    await auth.renew(stale, live)
        except DriftError as failure:
            failure.applied = tally.applied
            return failure
        except TimeoutError:
            return tally.too_late("no new token in time")
        site.carry(auth.secret)
        site.hooks.retry(RetryInfo(name, tally.attempts, error.status, None, 0.0))
        return None

    def _verdict(
        self, tally: Tally, outcome: Reply | Failure, deadline: float, limiter: Limiter, sent: float
    ) -> float | Reason:
        """Record a failed attempt; return the wait before the next, or why there is none."""
        tally.note(outcome)
        self._report_to_limiter(limiter, tally, outcome, sent)
        hooks, name, quota = self.site.hooks, tally.endpoint.name, self.site.quota
        if isinstance(outcome, Reply) and self._waits_for_rate(outcome, tally, limiter):
            paused_for = limiter.paused_for()
            if not self._has_time_after(paused_for, deadline):
                return "retry_after"
            tally.uncounted += 1
            hooks.retry(RetryInfo(name, tally.attempts, 429, None, paused_for))
            return 0.0  # the limiter holds the call back, at the place that it had
        verdict = self.retry.decide(
            tally.endpoint.effect,
            outcome,
            attempts=tally.attempts - tally.uncounted,
            left=deadline - self.site.clock(),
            asked=tally.retry_after,
            chance=self.site.chance(),
        )
        if isinstance(outcome, Reply) and outcome.status < 500 and verdict == "not_retryable":
            quota.give_back(tally.cost)  # the service works, and says no
        if isinstance(verdict, str):
            return verdict
        tally.cost = quota.cost(outcome)
        if not quota.take(tally.cost):
            return "quota"
        hooks.retry(RetryInfo(name, tally.attempts, *seen(outcome), verdict))
        return verdict

    def _report_to_limiter(
        self, limiter: Limiter, tally: Tally, outcome: Reply | Failure, sent: float
    ) -> None:
        """Report a reply to the rate limiter; a 429 or 503 pauses all calls of this budget."""
        if isinstance(outcome, Failure):
            return
        if outcome.status in REFUSED:
            asked = tally.retry_after
            wait = None if asked is None else min(asked, self.retry.max_retry_after)
            limiter.refused(sent, wait, is_rate_limit=outcome.status == 429)
        else:
            limiter.let_in(sent)

    def _waits_for_rate(self, reply: Reply, tally: Tally, limiter: Limiter) -> bool:
        """Return whether a refused call waits for its turn again, at the cost of no attempt.

        So it does while the server lets other requests of the budget in, and not for ever.
        """
        if reply.status != 429 or not self.retry.repeats(tally.endpoint.effect, reply):
            return False
        if (tally.retry_after or 0.0) > self.retry.max_retry_after:
            return False
        earliest = self.site.clock() - self._rate_patience()
        return self._last_let_in(limiter) >= earliest and tally.refused_since >= earliest

    def _last_let_in(self, limiter: Limiter) -> float:
        return limiter.last_let_in

    def _rate_patience(self) -> float:
        """Return for how many seconds without any request let in a refused call keeps waiting."""
        return self.retry.max_retry_after

    def _has_time_after(self, pause: float, deadline: float) -> bool:
        """Return whether the call still has time after a *pause*, in seconds."""
        return self.site.clock() + pause < deadline

    async def _pace(self, limiter: Limiter, tally: Tally, deadline: float) -> float:
        """Wait for the budget, and return the deadline; raise when it passes meanwhile."""
        # Not `timeout_at`: the loop's clock may be another, see `Watch`.
        left = deadline - self.site.clock()
        try:
            async with asyncio.timeout(left):
                await limiter.acquire(tally.place)
            return deadline
        except TimeoutError:
            pass
        if tally.refusal is not None:
            raise tally.error(tally.refusal, "deadline")
        raise tally.too_late("no turn within the rate limit in time")


async def _told(
    hooks: Hooks, name: str, number: int, size: int, attempt: Coroutine[Any, Any, Reply | Failure]
) -> Reply | Failure:
    """Make an attempt, of which the hooks hear."""
    # Not the loop's clock: that of uvloop counts in milliseconds.
    clock = time.monotonic
    hooks.request(RequestInfo(name, number, size))
    began = clock()
    met: tuple[int | None, str | None] = (None, "cancelled")
    size, request_id = 0, None
    try:
        outcome = await attempt
        met = seen(outcome)
        if isinstance(outcome, Reply):
            size, request_id = len(outcome.body), outcome.headers.get("X-Request-Id")
        return outcome
    finally:
        seconds = clock() - began
        hooks.response(ResponseInfo(name, number, *met, seconds, size, request_id))


def seen(outcome: Reply | Failure) -> tuple[int | None, str | None]:
    """Return what hooks are told of an outcome: its status, or what went wrong."""
    if isinstance(outcome, Reply):
        return outcome.status, None
    return outcome.head, outcome.kind
