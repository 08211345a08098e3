"""Spans of calls, as the OpenTelemetry SDK collects them, on both faces."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from drift_async import NotFoundError, OutcomeUnknownError, Retry
from drift_async.sandbox import Sandbox
from tests.support.flavours import core

pytestmark = pytest.mark.anyio

SOMEBODY = 15_811_400_007  # in the seed of the sandbox


class Collected:
    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def one(self) -> ReadableSpan:
        (span,) = self.all()
        return span


async def test_a_call_is_a_client_span_with_the_template(make: Any, box: Sandbox) -> None:
    collected = Collected()
    async with make(box.token, base_url=box.url, tracer_provider=collected.provider) as drift:
        await drift.contacts.get(SOMEBODY)
    span = collected.one()
    assert (span.name, span.kind) == ("GET /contacts/{contact_id}", SpanKind.CLIENT)
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "url.template": "/contacts/{contact_id}",
        "server.address": "127.0.0.1",
        "server.port": int(box.url.rpartition(":")[2]),
        "http.response.status_code": 200,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert not span.events


async def test_retries_are_events_of_the_span(make: Any, box: Sandbox) -> None:
    collected = Collected()
    box.fail("contacts.get", status=503, times=2)
    async with make(
        box.token,
        base_url=box.url,
        tracer_provider=collected.provider,
        retry=Retry(throttled_base=0),
    ) as drift:
        await drift.with_options(timeout=20).contacts.get(SOMEBODY)
    span = collected.one()
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("retry", {"attempt": n, "wait": 0.0, "http.response.status_code": 503}) for n in (1, 2)
    ]
    assert (span.attributes or {})["http.request.resend_count"] == 2


async def test_a_delete_found_done_by_its_lost_first_attempt_counts_both(
    make: Any, box: Sandbox
) -> None:
    collected = Collected()
    box.fail("contacts.delete", cut="after")
    async with make(
        box.token, base_url=box.url, tracer_provider=collected.provider, retry=Retry(base=0)
    ) as drift:
        await drift.contacts.delete(SOMEBODY)
        state = core(drift)._caller.state
        assert state.retry_budget.left == state.retry_budget.size, "it has paid the retry back"
        assert state.limiter("default").last_let_in > 0
    attributes = collected.one().attributes or {}
    assert attributes["http.request.resend_count"] == 1
    assert attributes["http.response.status_code"] == 404


async def test_an_error_is_named_by_its_class_alone(make: Any, box: Sandbox) -> None:
    collected = Collected()
    async with make(box.token, base_url=box.url, tracer_provider=collected.provider) as drift:
        with pytest.raises(NotFoundError):
            await drift.scim.get("planted-4711")
    span = collected.one()
    attributes = dict(span.attributes or {})
    assert attributes["error.type"] == "NotFoundError"
    assert attributes["http.response.status_code"] == 404
    assert span.status.status_code is StatusCode.ERROR
    assert not span.events
    assert "planted" not in span.to_json()
    assert box.token not in span.to_json()


async def test_a_lost_create_has_no_status(make: Any, box: Sandbox) -> None:
    collected = Collected()
    box.fail("contacts.create", cut="after")
    async with make(box.token, base_url=box.url, tracer_provider=collected.provider) as drift:
        with pytest.raises(OutcomeUnknownError):
            await drift.contacts.create("planted@example.com")
    attributes = dict(collected.one().attributes or {})
    assert attributes["error.type"] == "OutcomeUnknownError"
    assert "http.response.status_code" not in attributes
    assert "planted" not in collected.one().to_json()


async def test_the_span_is_a_child_of_the_callers(make: Any, box: Sandbox) -> None:
    collected = Collected()
    tracer = collected.provider.get_tracer("test")
    async with make(box.token, base_url=box.url, tracer_provider=collected.provider) as drift:
        with tracer.start_as_current_span("outer") as outer:
            await drift.contacts.get(SOMEBODY)
            inner = collected.one()
    assert inner.parent is not None
    assert inner.parent.span_id == outer.get_span_context().span_id


@pytest.mark.parametrize("how", ["collect", "items", "pages", "bulk"])
async def test_the_spans_of_a_list_and_of_a_bulk_are_children_of_the_callers(
    make: Any, box: Sandbox, how: str
) -> None:
    collected = Collected()
    tracer = collected.provider.get_tracer("test")
    async with make(box.token, base_url=box.url, tracer_provider=collected.provider) as drift:
        with tracer.start_as_current_span("outer") as outer:
            pager = drift.conversations.all(page_size=10)
            if how == "collect":
                await pager.collect()
            elif how == "bulk":
                await drift.contacts.get_many([SOMEBODY] * 5, window=2).collect()
            else:
                async for _ in pager if how == "items" else pager.pages():
                    pass
    inner = [span for span in collected.all() if span.name != "outer"]
    assert len(inner) == 5
    for span in inner:
        assert span.parent is not None
        assert span.parent.span_id == outer.get_span_context().span_id


def test_without_a_provider_nothing_of_it_is_loaded() -> None:
    program = (
        "import sys, drift_async, drift_async.sync\n"
        "drift_async.Drift('t'); drift_async.sync.Drift('t')\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
