"""Reports of a client's calls: to plain callables of the user's, and to the standard log.

Reports and log lines name the URL's template. The filled URL, headers and bodies are left out,
because they hold secrets and personal data.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import attrs

from ..errors import InputError

if TYPE_CHECKING:
    from .request import Failure, Response

R = TypeVar("R")

log = logging.getLogger("drift_async")


@attrs.frozen
class RequestInfo:
    """A request that is about to be sent.

    ``operation`` is such as ``GET /contacts/{contact_id}``; ``attempt`` counts from 1, ``size`` of
    the body is in bytes.
    """

    operation: str
    attempt: int
    size: int


@attrs.frozen
class ResponseInfo:
    """An attempt is over, after ``seconds``.

    ``status`` is that of the reply; None without a whole reply, and then ``error`` is the kind of
    failure, such as ``lost`` or ``stalled``. ``size`` of the body is in bytes.
    """

    operation: str
    attempt: int
    status: int | None
    error: str | None
    seconds: float
    size: int
    request_id: str | None


@attrs.frozen
class RetryInfo:
    """Attempt number ``attempt`` failed with this ``status`` or ``error``; the next one follows in
    ``wait`` seconds."""

    operation: str
    attempt: int
    status: int | None
    error: str | None
    wait: float


class Spans(Protocol):
    """Makes a span of each call, as `drift_async.core.tracing.OpenTelemetry` does."""

    async def around(self, operation: str, call: Coroutine[Any, Any, Response]) -> Response: ...
    def retry(self, info: RetryInfo) -> None: ...


@attrs.frozen(kw_only=True)
class Hooks:
    """The callables of a client. They run on its event loop, so they must not block."""

    on_request: Callable[[RequestInfo], object] | None = None
    on_response: Callable[[ResponseInfo], object] | None = None
    on_retry: Callable[[RetryInfo], object] | None = None
    spans: Spans | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("on_request", "on_response", "on_retry"):
            if not callable(getattr(self, name) or print):
                raise InputError(name, "must be callable")

    def watch_attempts(self) -> bool:
        """Return whether each attempt has to be reported: to a callable, or in the log."""
        return bool(self.on_request or self.on_response) or log.isEnabledFor(logging.DEBUG)

    async def observe(
        self,
        operation: str,
        attempt: int,
        size: int,
        sending: Coroutine[Any, Any, Response | Failure],
    ) -> Response | Failure:
        """Send a request whose body has *size* bytes, and report its beginning and its end."""
        # Not the loop's clock: that of uvloop counts in milliseconds.
        clock = time.monotonic
        try:
            _call(self.on_request, RequestInfo(operation, attempt, size))
        except BaseException:
            sending.close()
            raise
        began = clock()
        seen: tuple[int | None, str | None] = (None, "cancelled")
        size, request_id = 0, None
        try:
            outcome = await sending
            seen = outcome.seen
            if seen[1] is None:
                response = cast("Response", outcome)
                size, request_id = len(response.body), response.headers.get("X-Request-Id")
            return outcome
        finally:
            seconds = clock() - began
            self.response(ResponseInfo(operation, attempt, *seen, seconds, size, request_id))

    def response(self, info: ResponseInfo) -> None:
        """Report the end of an attempt."""
        log.debug(
            "%s: attempt %d: %s after %.3f s",
            info.operation,
            info.attempt,
            info.status or info.error,
            info.seconds,
        )
        _call(self.on_response, info)

    def retry(self, info: RetryInfo) -> None:
        """Report that there will be another attempt."""
        log.info(
            "%s: attempt %d: %s; again in %.3f s",
            info.operation,
            info.attempt,
            info.status or info.error,
            info.wait,
        )
        _call(self.on_retry, info)
        if self.spans is not None:
            self.spans.retry(info)


def _call(hook: Callable[[R], object] | None, info: R) -> None:
    if hook is not None:
        try:
            hook(info)
        except (Exception, SystemExit):  # a faulty hook must not make a call fail
            log.exception("a hook failed on %s", type(info).__name__)
