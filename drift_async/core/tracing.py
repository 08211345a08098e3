"""OpenTelemetry spans of calls (extra ``otel``), loaded only when the user gives a provider.

A general instrumentation of the HTTP client would record filled URLs, and Drift's own parameters
hold secrets and addresses. These spans name the template of the URL only.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    get_current_span,
)

from .._version import __version__
from ..errors import CallError
from .hooks import RetryInfo
from .request import Response


class OpenTelemetry:
    """Makes one client span for each call, named by method and template, with retries as events."""

    def __init__(self, provider: TracerProvider, origin: str) -> None:
        self._tracer = provider.get_tracer("drift_async", __version__)
        parts = urlsplit(origin)
        self._server: dict[str, str | int] = {
            "server.address": parts.hostname or "",
            "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        }

    async def around(self, operation: str, call: Coroutine[Any, Any, Response]) -> Response:
        """Await *call* within a span."""
        method, _, template = operation.partition(" ")
        with self._tracer.start_as_current_span(
            operation,
            kind=SpanKind.CLIENT,
            attributes={
                "http.request.method": method,
                "url.template": template,
                **self._server,
            },
            # An error's message may quote the server's reply, so the span records only its class.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                reply = await call
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                if isinstance(error, CallError):
                    _set_result(span, error.status, error.attempts)
                raise
            _set_result(span, reply.status, reply.attempts)
            return reply

    def retry(self, info: RetryInfo) -> None:
        """Add a retry event to the span of the current call."""
        event: dict[str, str | int | float] = {"attempt": info.attempt, "wait": info.wait}
        if info.status is not None:
            event["http.response.status_code"] = info.status
        else:
            event["error.type"] = info.error or ""
        get_current_span().add_event("retry", event)


def _set_result(span: Span, status: int | None, attempts: int) -> None:
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if attempts > 1:
        span.set_attribute("http.request.resend_count", attempts - 1)
