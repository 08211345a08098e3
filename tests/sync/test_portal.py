"""The loop thread of a blocking client: how calls reach it, and how they end."""

from __future__ import annotations

import asyncio
import errno
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from drift_async.sync import ClosedError, Drift, Sandbox, WrongLoopError
from drift_async.sync.portal import CANCEL_TIMEOUT, LoopThread, PendingCall, Portal, _loop_factory

SOON = 5.0


Factory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[asyncio.SelectorEventLoop, _loop_factory()], ids=["asyncio", "fast"])
def factory(request: pytest.FixtureRequest) -> Factory:
    factory: Factory = request.param
    return factory


@pytest.fixture
def thread(factory: Factory) -> Iterator[LoopThread]:
    thread = LoopThread(factory)
    yield thread
    thread.stop()


async def same(value: int) -> int:
    return value


async def for_ever() -> None:
    await asyncio.Future()


async def tasks() -> int:
    return len(asyncio.all_tasks())


@pytest.mark.parametrize("is_before", [True, False])
def test_ctrl_c_while_a_call_is_submitted_ends_the_call_and_no_other(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch, is_before: bool
) -> None:
    submit = thread._loop.call_soon_threadsafe
    submitted: list[object] = []

    def interrupted(callback: Callable[..., object], *args: object) -> None:
        submitted.append(callback)
        if not is_before:
            submit(callback, *args)
        if len(submitted) == 1:
            raise KeyboardInterrupt
        if is_before:
            submit(callback, *args)

    monkeypatch.setattr(thread._loop, "call_soon_threadsafe", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        thread.run(for_ever())
    assert thread.run(same(2), SOON) == 2
    assert time.monotonic() - began < CANCEL_TIMEOUT
    assert thread.run(tasks(), SOON) == 2  # the thread's own, and this


def test_each_call_crosses_once(thread: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = thread._loop.call_soon_threadsafe
    submitted: list[object] = []

    def counted(callback: Callable[..., object], *args: object) -> None:
        submitted.append(callback)
        submit(callback, *args)

    async def turns() -> None:
        for _ in range(9):
            await asyncio.sleep(0)

    monkeypatch.setattr(thread._loop, "call_soon_threadsafe", counted)
    for count in range(1, 4):
        thread.run(turns(), SOON)
        assert len(submitted) == count


def test_a_busy_loop_is_woken_by_more_callers_than_its_socket_can_hold(thread: LoopThread) -> None:
    held, free = threading.Event(), threading.Event()

    async def busy() -> None:
        held.set()
        while not free.is_set():
            pass

    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(thread.run, busy())
        held.wait()
        for _ in range(999):  # more than fit
            thread._loop.call_soon_threadsafe(int)
        calls = [pool.submit(thread.run, same(n), SOON) for n in range(19)]
        free.set()
        assert [call.result() for call in calls] == list(range(19))
        first.result()
    assert thread.run(same(1), SOON) == 1


def test_a_loop_that_cannot_be_made_is_the_callers_error() -> None:
    def no_file_left() -> asyncio.AbstractEventLoop:
        raise OSError(errno.EMFILE, "too many open files")

    with pytest.raises(OSError, match="too many open files"):
        LoopThread(no_file_left)


def test_a_call_to_a_loop_that_is_over_is_refused(factory: Factory) -> None:
    thread = LoopThread(factory)
    assert thread.run(same(1), SOON) == 1
    thread._loop.call_soon_threadsafe(thread._end.set)
    thread._thread.join()
    for _ in range(2):
        with pytest.raises(ClosedError):
            thread.run(same(2), SOON)


@pytest.mark.parametrize("loop_is_first", [True, False])
def test_a_call_that_arrives_while_the_loop_ends_is_refused(
    factory: Factory, monkeypatch: pytest.MonkeyPatch, loop_is_first: bool
) -> None:
    thread = LoopThread(factory)
    ending, free, seen = threading.Event(), threading.Event(), threading.Event()
    submit = thread._loop.call_soon_threadsafe

    async def slow_to_end() -> None:
        try:
            await asyncio.Future()
        finally:
            ending.set()
            await asyncio.to_thread(free.wait)

    def seen_by_the_loop(callback: Callable[..., object], *args: object) -> None:
        submit(callback, *args)
        submit(seen.set)
        seen.wait(SOON)

    with ThreadPoolExecutor(2) as pool:
        pool.submit(thread.run, slow_to_end())
        while thread.run(tasks(), SOON) < 3:  # the thread's own, the call, and this
            pass
        stopping = pool.submit(thread.stop)
        assert ending.wait(SOON)
        if loop_is_first:
            monkeypatch.setattr(thread._loop, "call_soon_threadsafe", seen_by_the_loop)
        with pytest.raises(ClosedError) as caught:
            thread.run(same(2), SOON)
        monkeypatch.undo()
        free.set()
        stopping.result()
    assert caught.value.applied is False


def test_a_background_task_that_calls_exit_is_logged_and_calls_go_on(
    thread: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    left: list[asyncio.Task[None]] = []

    async def leave() -> None:
        sys.exit(3)

    async def begin() -> None:
        left.append(asyncio.create_task(leave()))
        await asyncio.sleep(0)

    for _ in range(2):
        thread.run(begin(), SOON)
        assert thread.run(same(1), SOON) == 1
    assert [repr(task.exception()) for task in left] == ["SystemExit(3)"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "sys.exit was called on the client's loop thread"
    ] * 2
    assert thread.run(tasks(), SOON) == 2  # the thread's own, and this


def test_a_call_that_calls_exit_ends_with_it_and_others_go_on(thread: LoopThread) -> None:
    async def leave() -> None:
        sys.exit(3)

    with pytest.raises(SystemExit):
        thread.run(leave(), SOON)
    assert thread.run(same(1), SOON) == 1


class Held:
    """A client whose closing waits until it may go on."""

    def __init__(self) -> None:
        self.is_open = False
        self.closing, self.free = threading.Event(), threading.Event()

    async def open(self) -> None:
        assert not self.is_open
        self.is_open = True

    async def close(self) -> bool:
        """Return whether it was open, as closing twice tells the second time."""
        was_open = self.is_open
        if was_open:
            self.closing.set()
            await asyncio.to_thread(self.free.wait)
            self.is_open = False
        return was_open


@pytest.fixture
def held() -> Held:
    return Held()


def test_who_closes_while_another_thread_does_waits_for_its_end(held: Held) -> None:
    portal = Portal(held)
    assert portal.run(same(1)) == 1
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(portal.close, held, held.close())
        assert held.closing.wait(SOON)
        others = [pool.submit(portal.close, held, held.close()) for _ in range(2)]
        with pytest.raises(ClosedError):
            portal.run(same(2))  # and does not wait
        assert not any(other.done() for other in others)
        held.free.set()
        assert first.result() is True
        assert [other.result() for other in others] == [False, False]


def test_who_opens_while_another_thread_closes_waits_for_its_end(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    join, waiting = LoopThread.join, threading.Event()

    def told(self: LoopThread) -> None:
        waiting.set()
        join(self)

    monkeypatch.setattr(LoopThread, "join", told)
    portal = Portal(held)
    portal.run(same(1))
    with ThreadPoolExecutor(2) as pool:
        closing = pool.submit(portal.close, held, held.close())
        assert held.closing.wait(SOON)
        opening = pool.submit(portal.open, held)
        assert waiting.wait(SOON)
        held.free.set()
        closing.result()
        opening.result()
        assert held.is_open
        assert portal.run(same(2)) == 2
        portal.close(held, held.close())


def test_a_failed_opening_leaves_it_closed(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused() -> None:
        raise ValueError("not now")

    held.free.set()
    portal = Portal(held)
    portal.run(same(1))
    portal.close(held, held.close())
    with monkeypatch.context() as patch:
        patch.setattr(held, "open", refused)
        with pytest.raises(ValueError, match="not now"):
            portal.open(held)
    with pytest.raises(ClosedError):
        portal.run(same(2))


def test_closing_on_the_clients_own_thread_is_refused_and_changes_nothing(held: Held) -> None:
    held.free.set()
    portal = Portal(held)

    async def on_the_loop() -> None:
        portal.close(held, held.close())

    with pytest.raises(WrongLoopError):
        portal.run(on_the_loop())
    assert portal.run(same(1)) == 1
    portal.close(held, held.close())


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what lets Ctrl-C come right behind the end of the next call."""
    wait = PendingCall.wait
    due: list[bool] = []

    def interrupted(self: PendingCall, seconds: float) -> bool:
        is_over = wait(self, SOON)
        if due:
            due.clear()
            raise KeyboardInterrupt
        return is_over

    monkeypatch.setattr(PendingCall, "wait", interrupted)
    return lambda: due.append(True)


def test_ctrl_c_right_behind_the_end_of_a_call_tells_what_became_of_it(
    interrupted: Callable[[], None],
) -> None:
    with Sandbox() as box, Drift(box.token, base_url=box.url) as drift:
        interrupted()
        with pytest.raises(KeyboardInterrupt) as stop:
            drift.contacts.create("ada@example.com")
        assert stop.value.__notes__ == [
            "the call had ended with its result before it could be cancelled"
        ]
        interrupted()
        with pytest.raises(KeyboardInterrupt) as stop:
            drift.contacts.get(1)
        assert stop.value.__notes__ == [
            "the call had ended with NotFoundError (applied: False) before it could be cancelled"
        ]


def test_ctrl_c_right_behind_the_end_of_a_page_or_of_outcomes_loses_none(
    interrupted: Callable[[], None],
) -> None:
    with Sandbox() as box, Drift(box.token, base_url=box.url) as drift:
        whole = [one.id for one in drift.conversations.all()]
        pages = drift.conversations.all(page_size=5).pages()
        interrupted()
        with pytest.raises(KeyboardInterrupt):
            next(pages)
        assert [one.id for page in pages for one in page.items] == whole
        bulk = drift.bulk(drift.conversations.get, whole)
        interrupted()
        with pytest.raises(KeyboardInterrupt):
            next(bulk)
        assert [outcome.item for outcome in bulk] == whole


@pytest.mark.parametrize("is_used", [True, False])
def test_leaving_a_bulk_of_a_closed_client_raises_what_the_block_raised(is_used: bool) -> None:
    def leave(drift: Drift) -> None:
        with drift.bulk(drift.contacts.get, iter(range(99))) as bulk:
            if is_used:
                next(bulk)
            drift.close()
            raise ValueError("of the block")

    with Sandbox() as box, pytest.raises(ValueError, match="of the block"):
        leave(Drift(box.token, base_url=box.url))


def test_of_a_call_that_is_cut_off_nobody_knows_what_became() -> None:
    thread = LoopThread()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(thread.run, for_ever())
        while thread.run(tasks(), SOON) < 3:  # the thread's own, the call, and this
            pass
        thread.stop()
        with pytest.raises(ClosedError) as caught:
            call.result()
    assert caught.value.applied is None


@pytest.mark.anyio
async def test_a_client_that_is_collected_in_an_event_loop_does_not_hold_it_up() -> None:
    def forget() -> threading.Thread:
        before = set(threading.enumerate())
        box = Sandbox()
        box.open()
        (thread,) = set(threading.enumerate()) - before
        return thread

    thread = await asyncio.to_thread(forget)
    gc.collect()  # what blocks a loop fails, by the guard of all tests
    await asyncio.to_thread(thread.join, SOON)
    assert not thread.is_alive()
