"""Handlers: which run, how often, and what an error in one of them does."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import json
import logging
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

import drift_async.sync
from drift_async import (
    ConversationPushEvent,
    EventType,
    InputError,
    Message,
    NewCommandMessageEvent,
    NewMessageEvent,
    UnknownEvent,
    WebhookEvent,
    Webhooks,
    from_json,
    to_json,
)
from drift_async.webhooks.webhooks import DedupCache
from tests.support.deliveries import TOKEN, Clock, body

pytestmark = pytest.mark.anyio

Make = Callable[..., Any]
Dispatch = Callable[[Any, WebhookEvent], Awaitable[bool]]


@pytest.fixture
def dispatch(face: str) -> Dispatch:
    """Return what dispatches on either face; the blocking one does it in a thread."""

    async def run(webhooks: Any, event: WebhookEvent) -> bool:
        if face == "awaited":
            good: bool = await webhooks.dispatch(event)
            return good
        return await asyncio.to_thread(webhooks.dispatch, event)

    return run


def message(number: int = 1) -> NewMessageEvent:
    return NewMessageEvent(data=Message(id=number))


async def test_handlers_get_the_events_of_their_class(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    webhooks = make_webhooks(TOKEN)
    seen: list[Any] = []
    webhooks.on(NewMessageEvent)(lambda event: seen.append(("message", event)))
    webhooks.on(UnknownEvent)(lambda event: seen.append(("unknown", event)))
    webhooks.on(WebhookEvent)(lambda event: seen.append(("any", event)))
    for event in (message(), UnknownEvent(org_id=1), ConversationPushEvent()):
        seen.clear()
        assert await dispatch(webhooks, event)
        assert all(got is event for _, got in seen)
        first = {"NewMessageEvent": ["message"], "UnknownEvent": ["unknown"]}
        assert [name for name, _ in seen] == [*first.get(type(event).__name__, []), "any"]


async def test_a_parsed_delivery_reaches_its_handler(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    webhooks = make_webhooks(TOKEN)
    seen: list[Any] = []

    @webhooks.on(NewMessageEvent)  # type: ignore[untyped-decorator]  # of either face
    def note(event: NewMessageEvent) -> None:
        seen.append(event.data.body)

    assert await dispatch(webhooks, webhooks.parse(body(), {}))
    assert seen == ["Hello"]
    assert note.__name__ == "note"


async def test_a_handler_of_several_classes_gets_an_event_once(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    webhooks = make_webhooks(TOKEN)
    seen: list[Any] = []
    for kind in (NewMessageEvent, WebhookEvent, NewCommandMessageEvent):
        webhooks.on(kind)(seen.append)
    await dispatch(webhooks, message())
    await dispatch(webhooks, ConversationPushEvent())
    assert len(seen) == 2


async def test_an_error_ends_in_its_handler_and_is_reported(
    make_webhooks: Make, dispatch: Dispatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    webhooks = make_webhooks(TOKEN, on_error=lambda *what: told.append(what))
    seen: list[WebhookEvent] = []
    error = RuntimeError("broken")

    def fail(event: WebhookEvent) -> None:
        raise error

    webhooks.on(WebhookEvent)(fail)
    webhooks.on(WebhookEvent)(seen.append)
    event = message()
    assert await dispatch(webhooks, event) is False
    assert seen == [event]
    assert told == [(error, event)]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("drift_async.webhooks", logging.ERROR)
    assert record.getMessage() == "a handler of NewMessageEvent failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_an_error_in_on_error_is_logged_too(
    make_webhooks: Make, dispatch: Dispatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    webhooks = make_webhooks(TOKEN, on_error=fail)
    webhooks.on(WebhookEvent)(fail)
    assert await dispatch(webhooks, message()) is False
    assert [record.getMessage() for record in caplog.records] == [
        "a handler of NewMessageEvent failed",
        "on_error failed",
    ]


async def test_what_failed_can_be_taken_again_and_the_rest_not(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    webhooks = make_webhooks(TOKEN)
    seen: list[Any] = []

    def fail_once(event: WebhookEvent) -> None:
        seen.append("failing")
        if seen.count("failing") == 1:
            raise RuntimeError

    webhooks.on(WebhookEvent)(fail_once)
    webhooks.on(WebhookEvent)(lambda event: seen.append("fine"))
    assert [await dispatch(webhooks, message()) for _ in range(3)] == [False, True, True]
    assert seen == ["failing", "fine", "failing"]


async def test_a_hundred_identical_deliveries_at_once_run_the_handler_once(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    webhooks = make_webhooks(TOKEN)
    seen: list[Any] = []
    webhooks.on(WebhookEvent)(seen.append)
    events = [webhooks.parse(body(), {}) for _ in range(100)]
    assert any(await asyncio.gather(*(dispatch(webhooks, event) for event in events)))
    assert len(seen) == 1
    assert all([await dispatch(webhooks, event) for event in events])
    assert len(seen) == 1


def test_threads_that_dispatch_together_run_a_handler_once() -> None:
    webhooks, seen = drift_async.sync.Webhooks(TOKEN), []
    gate = threading.Barrier(100)

    @webhooks.on(NewMessageEvent)
    def note(event: NewMessageEvent) -> None:
        seen.append(event)

    def deliver() -> None:
        gate.wait()
        webhooks.dispatch(message())

    threads = [threading.Thread(target=deliver) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1


async def test_what_comes_while_the_handler_runs_is_not_done(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    webhooks, begun, go, seen = make_webhooks(TOKEN), threading.Event(), threading.Event(), []

    def fail_once(event: WebhookEvent) -> None:
        seen.append(event)
        begun.set()
        go.wait(5)
        if len(seen) == 1:
            raise RuntimeError

    webhooks.on(WebhookEvent)(fail_once)
    webhooks.on(WebhookEvent)(seen.append)
    first = asyncio.ensure_future(dispatch(webhooks, message()))
    await asyncio.to_thread(begun.wait, 5)
    try:
        assert await dispatch(webhooks, message()) is False
        assert len(seen) == 1
    finally:
        go.set()
    assert await first is False
    assert [await dispatch(webhooks, message()) for _ in range(2)] == [True, True]
    assert len(seen) == 3


async def test_deliveries_that_come_while_the_handler_runs_do_not_wait_for_it() -> None:
    webhooks, begun = Webhooks(TOKEN), 0
    go = asyncio.Event()

    @webhooks.on(NewMessageEvent)
    async def wait(event: NewMessageEvent) -> None:
        nonlocal begun
        begun += 1
        await go.wait()

    tasks = [asyncio.create_task(webhooks.dispatch(message())) for _ in range(100)]
    await asyncio.sleep(0)
    assert [task.done() for task in tasks].count(False) == 1
    go.set()
    assert (await asyncio.gather(*tasks)).count(True) == 1
    assert begun == 1


async def test_a_repeat_after_the_window_is_a_new_event(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    clock = Clock()
    seen: list[WebhookEvent] = []
    webhooks = make_webhooks(TOKEN, dedup_window=60, clock=clock)
    webhooks.on(WebhookEvent)(seen.append)
    for clock.now, handled in ((0, 1), (59.9, 1), (60, 2), (119.9, 2), (120, 3)):
        await dispatch(webhooks, ConversationPushEvent())
        assert len(seen) == handled


async def test_without_a_window_every_delivery_counts(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    webhooks = make_webhooks(TOKEN, dedup_window=0)
    seen: list[Any] = []
    webhooks.on(WebhookEvent)(seen.append)
    for _ in range(3):
        await dispatch(webhooks, message())
    assert len(seen) == 3


async def test_no_more_is_remembered_than_allowed(make_webhooks: Make, dispatch: Dispatch) -> None:
    webhooks = make_webhooks(TOKEN, dedup_size=10)
    seen: list[Any] = []
    webhooks.on(WebhookEvent)(lambda event: seen.append(event.data.id))
    for number in [*range(100), 99, 90, 89]:
        await dispatch(webhooks, message(number))
    assert seen == [*range(100), 89]
    assert len(webhooks._dedup_cache._done) == 10


async def test_what_is_remembered_are_events_whatever_the_number_of_handlers(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    webhooks = make_webhooks(TOKEN, dedup_size=2)
    seen: list[Any] = []
    for n in range(5):
        webhooks.on(WebhookEvent)(lambda event, n=n: seen.append((n, event.data.id)))
    for number in (1, 2, 1, 2):
        assert await dispatch(webhooks, message(number))
    assert seen == [(n, number) for number in (1, 2) for n in range(5)]


async def test_an_event_is_remembered_from_the_last_time_that_a_handler_had_it(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    clock, seen = Clock(), []
    webhooks = make_webhooks(TOKEN, dedup_window=60, dedup_size=2, clock=clock)

    def fail_once(event: WebhookEvent) -> None:
        seen.append("failing")
        if seen.count("failing") == 1:
            raise RuntimeError

    webhooks.on(NewMessageEvent)(fail_once)
    webhooks.on(NewMessageEvent)(lambda event: seen.append("fine"))
    for clock.now, good in ((0, False), (50, True), (109, True)):
        assert await dispatch(webhooks, message()) is good
        await dispatch(webhooks, UnknownEvent(org_id=int(clock.now)))
    assert seen == ["failing", "fine", "failing"]
    clock.now = 110
    assert await dispatch(webhooks, message())
    assert seen[3:] == ["failing", "fine"]


def test_what_is_under_way_is_never_forgotten() -> None:
    clock = Clock()
    cache = DedupCache(10, 1, clock)
    assert cache.begin("long") == 0
    for clock.now in (5.0, 50.0, 500.0):
        assert cache.begin(str(clock.now)) == 0
        cache.end(str(clock.now), 0, 1)
        assert cache.begin("long") is None
    cache.end("long", 0, 0)
    assert cache.begin("long") == 0


async def test_an_event_that_was_stored_as_json_reaches_its_handlers(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    webhooks = make_webhooks(TOKEN)
    seen: list[Any] = []
    webhooks.on(NewMessageEvent)(seen.append)
    event = webhooks.parse(body(), {"X-Verification-Token": TOKEN})
    stored = json.dumps(to_json(event))
    assert await dispatch(webhooks, from_json(WebhookEvent, json.loads(stored)))
    assert seen == [event]


async def test_a_bare_event_is_not_handled_by_mistake(
    make_webhooks: Make, dispatch: Dispatch, caplog: pytest.LogCaptureFixture
) -> None:
    webhooks = make_webhooks(TOKEN)
    seen: list[Any] = []
    webhooks.on(NewMessageEvent)(seen.append)
    webhooks.on(WebhookEvent)(seen.append)
    bare = WebhookEvent(type=EventType.NEW_MESSAGE)
    assert await dispatch(webhooks, bare) is False
    assert seen == [bare]
    assert [record.getMessage() for record in caplog.records] == [
        "an event without the class of its type was dispatched: use from_json"
    ]
    assert await dispatch(make_webhooks(TOKEN), UnknownEvent()) is True


async def test_a_handler_that_calls_exit_has_failed_and_no_more(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    causes: list[Any] = []
    seen: list[Any] = []

    def report(error: Exception, event: WebhookEvent) -> None:
        causes.append(error.__cause__)
        sys.exit(4)

    webhooks = make_webhooks(TOKEN, on_error=report)
    webhooks.on(NewMessageEvent)(lambda event: sys.exit(3))
    webhooks.on(WebhookEvent)(seen.append)
    assert await dispatch(webhooks, message()) is False
    assert len(seen) == 1
    assert [repr(cause) for cause in causes] == ["SystemExit(3)"]


@pytest.mark.parametrize(
    "kind", [None, "new_message", Message, int, NewMessageEvent(data=Message(id=1))]
)
def test_only_classes_of_events_have_handlers(make_webhooks: Make, kind: Any) -> None:
    with pytest.raises(InputError, match="kind: must be a class of events"):
        make_webhooks(TOKEN).on(kind)


async def test_what_is_no_handler_or_no_event_is_bad_input(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    webhooks = make_webhooks(TOKEN)
    with pytest.raises(InputError, match="handler: must be a function"):
        webhooks.on(WebhookEvent)(None)
    with pytest.raises(InputError, match="event: must be what parse returned"):
        await dispatch(webhooks, {"type": "new_message"})  # type: ignore[arg-type]  # the test


# The awaited face


class Receiver:
    """A handler that is an object."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    async def __call__(self, event: WebhookEvent) -> None:
        self.seen.append(asyncio.current_task())


async def test_any_kind_of_callable_is_run_where_it_belongs() -> None:
    webhooks = Webhooks(TOKEN)
    seen: list[Any] = []
    threads: list[threading.Thread] = []

    async def on_loop(events: list[Any], event: WebhookEvent) -> None:
        events.append(asyncio.current_task())

    async def later(event: WebhookEvent) -> None:
        seen.append(asyncio.current_task())

    webhooks.on(WebhookEvent)(functools.partial(on_loop, seen))
    webhooks.on(WebhookEvent)(Receiver(seen))
    webhooks.on(WebhookEvent)(lambda event: later(event))
    webhooks.on(WebhookEvent)(lambda event: threads.append(threading.current_thread()))
    assert await webhooks.dispatch(message())
    assert seen == [asyncio.current_task()] * 3
    assert threads[0] is not threading.current_thread()


TRACE = contextvars.ContextVar("TRACE", default="none")


async def test_a_handler_sees_the_context_of_the_delivery(
    make_webhooks: Make, dispatch: Dispatch
) -> None:
    webhooks = make_webhooks(TOKEN)
    seen: list[Any] = []
    webhooks.on(WebhookEvent)(lambda event: seen.append(TRACE.get()))
    TRACE.set("mine")
    await dispatch(webhooks, message())
    assert seen == ["mine"]


async def test_a_cancelled_handler_can_be_run_again() -> None:
    webhooks, begun = Webhooks(TOKEN), 0

    @webhooks.on(NewMessageEvent)
    async def wait(event: NewMessageEvent) -> None:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0 if begun > 1 else 60)

    task = asyncio.create_task(webhooks.dispatch(message()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await webhooks.dispatch(message())
    assert begun == 2


async def test_a_timeout_around_a_dispatch_works() -> None:
    webhooks = Webhooks(TOKEN)

    @webhooks.on(NewMessageEvent)
    async def wait(event: NewMessageEvent) -> None:
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await webhooks.dispatch(message())


async def test_a_cancel_scope_does_not_wait_for_a_thread() -> None:
    webhooks = Webhooks(TOKEN)
    over, done = threading.Event(), []

    @webhooks.on(NewMessageEvent)
    def block(event: NewMessageEvent) -> None:
        over.wait(5)
        done.append(event)

    with anyio.move_on_after(0.01) as scope:
        await webhooks.dispatch(message())
    assert scope.cancelled_caught
    assert done == []
    over.set()


async def test_a_handler_that_awaits_something_cancelled_has_failed_and_no_more() -> None:
    webhooks = Webhooks(TOKEN)
    seen: list[Any] = []

    @webhooks.on(NewMessageEvent)
    async def wait(event: NewMessageEvent) -> None:
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone

    webhooks.on(WebhookEvent)(seen.append)
    assert await webhooks.dispatch(message()) is False
    assert len(seen) == 1


async def test_an_async_handler_that_calls_exit_has_failed_and_no_more() -> None:
    causes: list[Any] = []
    webhooks = Webhooks(TOKEN, on_error=lambda error, event: causes.append(error.__cause__))
    seen: list[Any] = []

    @webhooks.on(NewMessageEvent)
    async def leave(event: NewMessageEvent) -> None:
        await asyncio.sleep(0)
        sys.exit(3)

    webhooks.on(WebhookEvent)(seen.append)
    assert await webhooks.dispatch(message()) is False
    assert len(seen) == 1
    assert [repr(cause) for cause in causes] == ["SystemExit(3)"]


# The blocking face


async def returned_later(event: WebhookEvent) -> None: ...


def test_what_returns_a_coroutine_to_the_blocking_face_has_failed() -> None:
    told: list[Exception] = []
    webhooks = drift_async.sync.Webhooks(TOKEN, on_error=lambda error, _: told.append(error))
    coroutines: list[Any] = []

    @webhooks.on(NewMessageEvent)
    def begin(event: NewMessageEvent) -> None:
        coroutines.append(returned_later(event))
        return coroutines[-1]  # type: ignore[no-any-return]  # the test

    assert [webhooks.dispatch(message()) for _ in range(2)] == [False, False]
    assert [inspect.getcoroutinestate(one) for one in coroutines] == [inspect.CORO_CLOSED] * 2
    assert str(told[0]) == "the handler returned an awaitable: it must be a plain function"


def test_the_blocking_face_takes_plain_handlers_only() -> None:
    webhooks = drift_async.sync.Webhooks(TOKEN)

    async def handler(event: WebhookEvent) -> None: ...

    with pytest.raises(InputError, match="must be a plain function on the blocking face"):
        webhooks.on(WebhookEvent)(handler)  # type: ignore[arg-type]  # the test
    with pytest.raises(InputError, match="must be a plain function"):
        webhooks.on(WebhookEvent)(Receiver([]))  # type: ignore[arg-type]  # the test


def test_the_blocking_face_runs_handlers_in_the_callers_thread() -> None:
    webhooks, seen = drift_async.sync.Webhooks(TOKEN), []

    @webhooks.on(NewMessageEvent)
    def note(event: NewMessageEvent) -> None:
        seen.append(threading.current_thread())

    webhooks.dispatch(message())
    assert seen == [threading.current_thread()]


def test_ctrl_c_in_a_blocking_handler_leaves_the_event_to_be_taken_again() -> None:
    webhooks, seen = drift_async.sync.Webhooks(TOKEN), []

    @webhooks.on(NewMessageEvent)
    def note(event: NewMessageEvent) -> None:
        seen.append(event)
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        webhooks.dispatch(message())
    assert webhooks.dispatch(message())
    assert len(seen) == 2
