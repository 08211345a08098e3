"""Spans of calls by OpenTelemetry (extra ``otel``); loaded only where a provider is given.

A general instrumentation of the HTTP client would record filled URLs, in which Drift's own
parameters hold secrets and addresses. Here a span has the row's template and no more.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.trace import (
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
    """One client span a call, named by method and template; its retries are events in it."""

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
            # The text of an error may hold what the server says; its class is enough here.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                reply = await call
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                if isinstance(error, CallError):
                    _tell(span.set_attribute, error.status, error.attempts)
                raise
            _tell(span.set_attribute, reply.status, reply.attempts)
            return reply

    def retry(self, info: RetryInfo) -> None:
        """Put an event into the span of the call under way."""
        event: dict[str, str | int | float] = {"attempt": info.attempt, "wait": info.wait}
        if info.status is not None:
            event["http.response.status_code"] = info.status
        else:
            event["error.type"] = info.error or ""
        get_current_span().add_event("retry", event)


def _tell(put: Any, status: int | None, attempts: int) -> None:
    if status is not None:
        put("http.response.status_code", status)
    if attempts > 1:
        put("http.request.resend_count", attempts - 1)
