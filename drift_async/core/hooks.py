"""What a client tells of its calls: plain callables of the user's, and the standard log.

Records and log lines hold the row's template, never the filled URL, no header and no body: these
carry secrets and personal data.
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
    """A request is about to be sent: ``operation`` such as ``GET /contacts/{contact_id}``, number
    of the ``attempt`` from 1, ``size`` of the body in bytes."""

    operation: str
    attempt: int
    size: int


@attrs.frozen
class ResponseInfo:
    """An attempt is over, after ``seconds``.

    ``status`` is that of the reply. Without a whole reply it is None and ``error`` says why, such
    as ``lost`` or ``stalled``; ``held`` is one that has not left: its rate limit was paused while
    it waited for a connection, and it is tried under the same number. ``size`` of the body is in
    bytes.
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
    """There will be another attempt, ``wait`` seconds from now; ``attempt`` is the one that failed,
    with this ``status`` or ``error``."""

    operation: str
    attempt: int
    status: int | None
    error: str | None
    wait: float


class Spans(Protocol):
    """Makes a span of each call, as `drift_async.core.spans.OpenTelemetry` does."""

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
        """Tell whether anybody wants to hear of each attempt."""
        heard = self.on_request is not None or self.on_response is not None
        return heard or log.isEnabledFor(logging.DEBUG)

    def request(self, info: RequestInfo) -> None:
        """Tell that a request is about to be sent."""
        _tell(self.on_request, info)

    def response(self, info: ResponseInfo) -> None:
        """Tell what came of it."""
        log.debug(
            "%s: attempt %d: %s after %.3f s",
            info.operation,
            info.attempt,
            info.status or info.error,
            info.seconds,
        )
        _tell(self.on_response, info)

    def retry(self, info: RetryInfo) -> None:
        """Tell that there will be another attempt."""
        log.info(
            "%s: attempt %d: %s; again in %.3f s",
            info.operation,
            info.attempt,
            info.status or info.error,
            info.wait,
        )
        _tell(self.on_retry, info)
        if self.spans is not None:
            self.spans.retry(info)


def _tell(hook: Callable[[R], object] | None, info: R) -> None:
    if hook is not None:
        try:
            hook(info)
        except (Exception, SystemExit):  # a call must not fail because of its hooks
            log.exception("a hook failed on %s", type(info).__name__)
