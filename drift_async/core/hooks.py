"""Reports of calls: to callables of the user, and to the standard log.

Reports and log lines name the URL's template. The filled URL, headers and bodies are left out,
because they hold secrets and personal data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs

from ..errors import InputError

if TYPE_CHECKING:
    from .endpoint import Reply

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

    Without a whole reply ``status`` is None and ``error`` says why, such as ``lost`` or
    ``stalled``. The error ``held`` means that the request was not sent, because its rate limit was
    paused while it waited for a connection; the next attempt has the same number. ``size`` of the
    body is in bytes.
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
    """Makes a span for each call, as `drift_async.core.tracing.OpenTelemetry` does."""

    async def around(self, operation: str, call: Coroutine[Any, Any, Reply]) -> Reply: ...
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
        """Return whether a hook or the log wants a report of each attempt."""
        is_hooked = self.on_request is not None or self.on_response is not None
        return is_hooked or log.isEnabledFor(logging.DEBUG)

    def request(self, info: RequestInfo) -> None:
        """Report that a request is about to be sent."""
        _call_hook(self.on_request, info)

    def response(self, info: ResponseInfo) -> None:
        """Report the end of an attempt."""
        log.debug(
            "%s: attempt %d: %s after %.3f s",
            info.operation,
            info.attempt,
            info.status or info.error,
            info.seconds,
        )
        _call_hook(self.on_response, info)

    def retry(self, info: RetryInfo) -> None:
        """Report that another attempt will follow."""
        log.info(
            "%s: attempt %d: %s; again in %.3f s",
            info.operation,
            info.attempt,
            info.status or info.error,
            info.wait,
        )
        _call_hook(self.on_retry, info)
        if self.spans is not None:
            self.spans.retry(info)


def _call_hook(hook: Callable[[R], object] | None, info: R) -> None:
    if hook is not None:
        try:
            hook(info)
        except (Exception, SystemExit):  # a faulty hook must not make a call fail
            log.exception("a hook failed on %s", type(info).__name__)
