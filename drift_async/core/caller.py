"""The retry loop: send a request until it succeeds, fails for good, or the deadline passes."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import attrs

from ..errors import (
    AuthenticationError,
    CallError,
    CallInfo,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    CredentialsError,
    DeadlineError,
    DriftError,
    OutcomeUnknownError,
    ProtocolError,
    ResponseTooLargeError,
    WrongLoopError,
    applied_by_status,
    error_from_response,
    merge_applied,
)
from .bulk_slot import RATE_PATIENCE, BulkSlot
from .hooks import Hooks, RetryInfo
from .rate_limit import Limiter, Place, new_place
from .request import Failure, Request, Response
from .retry import THROTTLED, Retry, RetryBudget, StopReason, parse_retry_after
from .secret import Secret, bearer
from .slots import ConnectionSlots

if TYPE_CHECKING:
    from .session import HttpSession

T = TypeVar("T")

DENIED_FOR = 60.0
"""Seconds in which an operation that refused a new token too causes no other refresh."""


class Auth(Protocol):
    """A token that is renewed, such as `OAuth.auth` makes. Clients that share one also share its
    refreshes. Two tokens are the same only if they are the same object."""

    @property
    def secret(self) -> Secret:
        """The access token in use."""
        ...

    async def renew(self, stale: Secret, session: HttpSession) -> None:
        """Wait for a token newer than *stale*, in a task of *session* or of another's; or raise."""
        ...

    async def refresh_ahead(self, state: ClientState, session: HttpSession) -> None:
        """Renew the token ahead of its end, until cancelled."""
        ...


@attrs.define(eq=False, repr=False)
class ClientState:
    """The state that all views of one client share.

    Requests that are sent from ``token_since`` on carry ``token``; ``session`` is None while the
    client is closed.
    """

    limiters: Mapping[str, Limiter]
    token: Secret | None = None
    auth: Auth | None = None
    token_since: float = -math.inf
    denied: dict[str, float] = attrs.field(factory=dict)
    hooks: Hooks = attrs.field(factory=Hooks)
    retry_budget: RetryBudget = attrs.field(factory=RetryBudget)
    session: HttpSession | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep
    random: Callable[[], float] = random.random

    def require_open(self) -> HttpSession:
        """Return the session, or raise `ClosedError` or `WrongLoopError`."""
        session = self.session
        if session is None:
            raise ClosedError("the client is not open: use `async with`, or await open()")
        if session.loop is not asyncio.get_running_loop():
            raise WrongLoopError("the client was opened in another event loop; open it in this one")
        return session

    def limiter(self, budget: str) -> Limiter:
        """Return the limiter of that budget, or of all that have none of their own."""
        return self.limiters.get(budget) or self.limiters["default"]

    def set_token(self, token: Secret) -> None:
        """Send *token* with all requests that are sent from now on."""
        if self.session is not None and token is not self.token:
            self.token, self.token_since = token, self.clock()
            self.session.authorize(bearer(token))


@attrs.define(eq=False, repr=False)
class Caller:
    """The settings of calls, and the loop over their attempts.

    ``deadline`` is set for several requests that share one timeout, ``bulk`` for those of a bulk.
    """

    state: ClientState
    timeout: float
    retry: Retry
    attempt_timeout: float
    max_pages: int
    deadline: float | None = None
    bulk: BulkSlot | None = None

    def token(self) -> Secret:
        """Return the client's own token, or raise `CredentialsError`."""
        token = self.state.token
        if token is None:
            raise CredentialsError("the client has no token of its own")
        return token

    def now(self) -> float:
        """Return the time on the clock of deadlines, in seconds."""
        return self.state.clock()

    def with_deadline(self) -> Self:
        """Return a caller whose deadline is set: one timeout for several requests."""
        if self.deadline is not None:
            return self
        return attrs.evolve(self, deadline=self.now() + self.timeout)

    def for_bulk(self) -> Self:
        """Return a caller for the items of one bulk, with these settings."""
        return attrs.evolve(self, deadline=None, bulk=BulkSlot(self.now()))

    @property
    def refusals(self) -> int:
        """How many requests of the bulk were answered 429 or 503."""
        return self.bulk.refusals if self.bulk else 0

    def spawn(
        self, work: Coroutine[Any, Any, T], context: Context | None = None
    ) -> asyncio.Task[T]:
        """Start a background task that ends with the client; see `HttpSession.spawn`."""
        return self.state.require_open().spawn(work, context)

    def send(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Send the request, with retries. Return the 2xx response or raise `CallError`.

        Raises `ClosedError` when the client is closed meanwhile.
        """
        call, spans = self._send(request), self.state.hooks.spans
        return call if spans is None else spans.around(request.endpoint.name, call)

    async def _send(self, request: Request) -> Response:
        state = self.state
        session = state.require_open()
        limiter = state.limiter(request.endpoint.budget)
        call = CallState(request, state.clock, self.timeout)
        if self.deadline is not None:
            call.deadline = self.deadline
        while True:
            if state.session is not session:
                raise call.closed_error()
            if not limiter.try_acquire(session.slots):
                await self._wait_for_turn(call, limiter, session.slots)
            call.token = state.token
            try:
                seconds = call.begin_attempt(self.attempt_timeout)
                outcome = await session.send(request, seconds, call.attempts + 1)
            finally:
                session.slots.release()
            if isinstance(outcome, Response) and (
                outcome.is_success or call.is_already_deleted(outcome)
            ):
                limiter.let_in(call.sent_at)
                state.retry_budget.refund(call.cost)
                return call.finished(outcome)
            call.record_failure(outcome)
            delay = self._next_delay(call, outcome, limiter)
            if isinstance(delay, str):
                error = call.error(outcome, delay)
                stands = await self._refresh_token(call, error, session)
                if stands is not None:
                    raise stands
                delay = 0.0
            await state.sleep(delay)

    async def _wait_for_turn(
        self, call: CallState, limiter: Limiter, slots: ConnectionSlots
    ) -> None:
        """Wait until the rate limit lets a request go and a connection slot is free; take both.

        A bulk's item waits at the place of its bulk, and its time stands still meanwhile.
        """
        remaining = call.remaining()
        try:
            if self.bulk is None:
                # Not `timeout_at`: the loop's clock may be another than ours.
                async with asyncio.timeout(remaining):
                    await limiter.acquire(slots, call.place)
                return
            await self.bulk.acquire(limiter, slots, call.place)
        except ClosedError:
            raise call.closed_error() from None
        except TimeoutError:
            raise call.error_of_waiting("no turn within the rate limit in time") from None
        call.deadline = self.now() + remaining
        if self.deadline is not None:
            self.deadline = call.deadline  # for the item's other requests

    def _next_delay(
        self, call: CallState, outcome: Response | Failure, limiter: Limiter
    ) -> float | StopReason:
        """Return the seconds to wait before the next attempt, or why there is none."""
        state, retry = self.state, self.retry
        is_refused = isinstance(outcome, Response) and outcome.status in THROTTLED
        if isinstance(outcome, Response):
            self._report_to_limiter(call, outcome, limiter)
        if isinstance(outcome, Response) and self._waits_for_rate(call, outcome, limiter):
            paused_for = limiter.paused_for()
            if self.bulk is None and paused_for >= call.remaining():
                return "retry_after"
            call.uncounted += 1
            self._report_retry(call, outcome, paused_for)
            return 0.0  # the limiter holds the call back, at the place that it had
        remaining = call.remaining()
        if self.bulk is not None and is_refused and call.retry_after is not None:
            remaining += retry.max_retry_after  # an item's time stands still in a pause
        delay = retry.next_delay(
            call.request.endpoint.effect,
            outcome,
            attempts=call.attempts - call.uncounted,
            remaining=remaining,
            retry_after=call.retry_after,
            jitter=state.random(),
        )
        if isinstance(outcome, Response) and outcome.status < 500 and delay == "not_retryable":
            state.retry_budget.refund(call.cost)  # the service works, and says no
        if isinstance(delay, str):
            return delay
        call.cost = state.retry_budget.cost(outcome)
        if not state.retry_budget.try_spend(call.cost):
            return "quota"
        self._report_retry(call, outcome, delay)
        if self.bulk is not None and is_refused and limiter.paused_for():
            return 0.0  # all have to wait: the item does so at its place
        return delay

    def _report_to_limiter(self, call: CallState, response: Response, limiter: Limiter) -> None:
        """Report a response to the rate limiter; a 429 or 503 pauses all calls of this budget."""
        if response.status not in THROTTLED:
            limiter.let_in(call.sent_at)
            return
        if self.bulk is not None:
            self.bulk.refusals += 1
        asked = call.retry_after
        wait = None if asked is None else min(asked, self.retry.max_retry_after)
        limiter.refused(call.sent_at, wait, is_rate_limit=response.status == 429)

    def _waits_for_rate(self, call: CallState, response: Response, limiter: Limiter) -> bool:
        """Return whether a refused call waits for its turn again, at the cost of no attempt.

        It does so while the server lets other requests of the budget in, but not for ever.
        """
        if response.status != 429 or not self.retry.repeats(call.request.endpoint.effect, response):
            return False
        patience = longest = self.retry.max_retry_after
        last_let_in = limiter.last_let_in
        if self.bulk is not None:
            patience, last_let_in = RATE_PATIENCE, max(last_let_in, self.bulk.began)
        earliest = self.now() - patience
        is_short = (call.retry_after or 0.0) <= longest
        return is_short and last_let_in >= earliest and call.refused_since >= earliest

    def _report_retry(self, call: CallState, outcome: Response | Failure, delay: float) -> None:
        status, kind = outcome.seen
        name = call.request.endpoint.name
        self.state.hooks.retry(RetryInfo(name, call.attempts, status, kind, delay))

    async def _refresh_token(
        self, call: CallState, error: DriftError, session: HttpSession
    ) -> DriftError | None:
        """Refresh the token after a 401. Return None to retry the call, else the error to raise."""
        state, auth = self.state, self.state.auth
        if auth is None or type(error) is not AuthenticationError:
            return error
        if error.status == 403 and error.type != "authentication_error":
            return error
        name, now = call.request.endpoint.name, self.now()
        if call.has_new_token:
            # Its age was not the reason, so the next call need not try that again.
            if len(state.denied) >= 100:
                state.denied.clear()
            state.denied[name] = now
            return error
        if now - state.denied.get(name, -math.inf) < DENIED_FOR:
            return error
        call.has_new_token = True
        stale = self.token()
        try:
            async with asyncio.timeout(call.remaining()):
                while auth.secret is stale and call.sent_at >= state.token_since:
                    if state.session is not session:
                        return call.closed_error()
                    await auth.renew(stale, session)
        except DriftError as failure:
            failure.applied = call.applied
            return failure
        except TimeoutError:
            return call.error_of_waiting("no new token in time")
        state.set_token(auth.secret)
        state.hooks.retry(RetryInfo(name, call.attempts, error.status, None, 0.0))
        return None


class CallState:
    """State of one call across its attempts, and the exceptions built from it."""

    token: Secret | None = None  # of the last attempt; another may be in use when it ends
    attempts = 0
    uncounted = 0  # attempts that the rate refused, and that cost nothing
    cost = 0  # of the last retry
    has_new_token = False
    refused_since = math.inf  # when the last answers began to be 429
    throttled: Response | None = None  # the response of the last attempt, if that was 429
    applied: bool | None = False
    status: int | None = None
    request_id: str | None = None
    retry_after: float | None = None

    def __init__(self, request: Request, clock: Callable[[], float], timeout: float) -> None:
        self.request = request
        self.began = self.sent_at = clock()
        self.deadline = self.began + timeout
        self._clock = clock

    @cached_property
    def place(self) -> Place:
        """The place of the call in each queue that it waits in."""
        return new_place(self.began)

    def remaining(self) -> float:
        """Return the seconds until the deadline."""
        return self.deadline - self._clock()

    def begin_attempt(self, attempt_timeout: float) -> float:
        """Record that a request is sent now; return for how many seconds it may last."""
        self.sent_at = self._clock()
        return min(attempt_timeout, self.deadline - self.sent_at)

    def record_failure(self, outcome: Response | Failure) -> None:
        """Record a failed attempt."""
        self.attempts += 1
        self.retry_after = None
        self.throttled = None
        if isinstance(outcome, Failure):
            self.applied = merge_applied(self.applied, outcome.applied)
            self.status = outcome.status_read or self.status
            return
        self.applied = merge_applied(self.applied, applied_by_status(outcome.status))
        self.status = outcome.status
        if outcome.status == 429:
            self.throttled = outcome
            self.refused_since = min(self.refused_since, self._clock())
        else:
            self.refused_since = math.inf
        self.request_id = outcome.headers.get("X-Request-Id")
        self.retry_after = parse_retry_after(outcome.headers.get("Retry-After"), datetime.now(UTC))

    def is_already_deleted(self, response: Response) -> bool:
        """Return whether a 404 means that an earlier attempt, whose response was lost, deleted."""
        is_delete = self.request.endpoint.method == "DELETE"
        return response.status == 404 and is_delete and self.applied is not False

    def finished(self, response: Response) -> Response:
        """Return the response that ends the call, with its attempts and its beginning."""
        if response.status == 404:  # already deleted: its body says that there is no such thing
            response.body = b"{}"
        response.attempts = self.attempts + 1
        response.began = self.began
        return response

    def call_info(self, reason: str) -> CallInfo:
        """Return the fields common to all call errors."""
        return CallInfo(
            operation=self.request.endpoint.name,
            applied=self.applied,
            attempts=self.attempts,
            elapsed=self._clock() - self.began,
            status=self.status,
            request_id=self.request_id,
            reason=reason,
        )

    def closed_error(self) -> ClosedError:
        """Return the error of a call whose client was closed meanwhile."""
        name = self.request.endpoint.name
        error = ClosedError(f"{name}: the client was closed while it was under way")
        error.applied = self.applied
        return error

    def error_of_waiting(self, detail: str) -> CallError | ClosedError:
        """Return the error of a call whose deadline has passed while it waited."""
        if self.throttled is not None:
            return self.error(self.throttled, "deadline")
        return DeadlineError(detail, self.call_info("deadline"))

    def error(self, outcome: Response | Failure, reason: StopReason) -> CallError | ClosedError:
        """Return the error that the last outcome makes of the call."""
        endpoint, info = self.request.endpoint, self.call_info(reason)
        if isinstance(outcome, Response):
            secrets: Sequence[Secret] = self.request.secrets
            return error_from_response(
                info,
                outcome.headers,
                outcome.body,
                scope=endpoint.scope,
                retry_after=self.retry_after,
                secrets=secrets if self.token is None else [*secrets, self.token],
            )
        if self.applied is None and endpoint.effect == "once":
            return OutcomeUnknownError(
                outcome.detail,
                info,
                failure=outcome.kind,
                settle=endpoint.settle,
                settle_hint=endpoint.settle_hint,
            )
        if outcome.kind == "closed":
            return self.closed_error()
        return self._failure_class(outcome, reason)(outcome.detail, info)

    def _failure_class(self, failure: Failure, reason: StopReason) -> type[CallError]:
        if reason == "deadline":
            return DeadlineError
        if self.applied is False:
            return ConnectError
        match failure.kind:
            case "protocol":
                return ProtocolError
            case "too_large":
                return ResponseTooLargeError
        return ConnectionLostError
