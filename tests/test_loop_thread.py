"""The thread of a blocking client: how its loop is woken, and what becomes of calls otherwise."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from drift_async.sync import ClosedError
from drift_async.sync.loop import INTERRUPT_BOUND, Thread, _loop_factory

SOON = 5.0


Factory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[asyncio.SelectorEventLoop, _loop_factory()], ids=["asyncio", "fast"])
def factory(request: pytest.FixtureRequest) -> Factory:
    factory: Factory = request.param
    return factory


@pytest.fixture
def thread(factory: Factory) -> Iterator[Thread]:
    thread = Thread(factory)
    yield thread
    thread.stop()


async def same(value: int) -> int:
    return value


async def for_ever() -> None:
    await asyncio.Future()


async def tasks() -> int:
    return len(asyncio.all_tasks())


@pytest.mark.parametrize("is_before", [True, False])
def test_ctrl_c_while_the_loop_is_woken_ends_the_call_and_no_other(
    thread: Thread, monkeypatch: pytest.MonkeyPatch, is_before: bool
) -> None:
    wake = Thread._wake
    waked: list[Thread] = []

    def interrupted(self: Thread) -> None:
        waked.append(self)
        if not is_before:
            wake(self)
        if len(waked) == 1:
            raise KeyboardInterrupt
        wake(self)

    monkeypatch.setattr(Thread, "_wake", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        thread.run(for_ever())
    assert thread.run(same(2), SOON) == 2
    assert time.monotonic() - began < INTERRUPT_BOUND
    assert thread.run(tasks(), SOON) == 2  # the thread's own, and this


def test_each_call_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Thread._start
    heard: list[Thread] = []

    def counted(self: Thread) -> None:
        heard.append(self)
        start(self)

    async def turns() -> None:
        for _ in range(9):
            await asyncio.sleep(0)

    monkeypatch.setattr(Thread, "_start", counted)
    thread = Thread()
    for count in range(1, 4):
        thread.run(turns(), SOON)
        assert len(heard) == count
    thread.stop()


def test_a_busy_loop_is_rung_by_more_callers_than_it_can_hear(thread: Thread) -> None:
    held, free = threading.Event(), threading.Event()

    async def busy() -> None:
        held.set()
        while not free.is_set():
            pass

    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(thread.run, busy())
        held.wait()
        with suppress(BlockingIOError):
            while True:
                thread._bell.send(b"!")
        calls = [pool.submit(thread.run, same(n), SOON) for n in range(19)]
        free.set()
        assert [call.result() for call in calls] == list(range(19))
        first.result()
    assert thread.run(same(1), SOON) == 1


def test_a_loop_that_cannot_be_made_is_the_callers_error() -> None:
    def no_file_left() -> asyncio.AbstractEventLoop:
        raise OSError(errno.EMFILE, "too many open files")

    with pytest.raises(OSError, match="too many open files"):
        Thread(no_file_left)


def test_a_call_to_a_loop_that_is_over_is_refused(factory: Factory) -> None:
    thread = Thread(factory)
    assert thread.run(same(1), SOON) == 1
    thread._loop.call_soon_threadsafe(thread._end.set)
    thread._thread.join()
    for _ in range(2):
        with pytest.raises(ClosedError):
            thread.run(same(2), SOON)
