"""The scheduler of a bulk: runs calls side by side and returns their outcomes in input order.

An item goes from the source into the buffer, with its batch to the planned calls, into a running
call, and its outcome to the caller. Only a task that asks for outcomes starts calls, so a bulk that
nobody reads starts none.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextvars import copy_context
from typing import Any, Generic

from ..errors import ClosedError, DriftError
from .caller import Caller
from .outcome import Item, Outcome, Value

Work = Callable[[Item], Coroutine[Any, Any, Value]]
"""The call made for an item."""

Plan = Callable[[Sequence[Item]], Iterable[Work[Item, Value]]]
"""Returns the call to make for each item of a batch."""

SLOW_START = 16
"""How many calls start at once. Each call that finishes admits one more, until the window is full:
where the server's limit is unknown, it would refuse most of a whole window."""

READY_WINDOWS = 16
"""How many windows of outcomes may wait for one call that is still running."""


class BulkScheduler(Generic[Item, Value]):
    """The calls of one bulk, at most *window* at a time, planned in batches of *batch* items."""

    def __init__(
        self,
        caller: Caller,
        plan: Plan[Item, Value],
        *,
        window: int,
        batch: int,
        stop_on_error: bool,
    ) -> None:
        self._caller = caller
        self._plan = plan
        self._window = window
        self._batch = batch
        self._stop_on_error = stop_on_error
        self._window_in_batches = math.ceil(window / batch) * batch
        self._buffer: deque[Item] = deque()
        self._planned: deque[tuple[Item, Work[Item, Value]]] = deque()
        self._finished: dict[int, Outcome[Item, Value]] = {}
        self._started = 0
        self._returned = 0
        self.failed = 0
        self._source: Iterator[Item] | None = None  # read on demand; None if others fill the buffer
        self._source_ended = False
        self._source_error: Exception | None = None
        self._is_stopped = False  # starts no more calls
        self._broken: BaseException | None = None  # no call can be waited for any more
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._needs_items = asyncio.Event()  # set for the reader
        self._change: asyncio.Future[None] | None = None  # set while a task waits for outcomes

    @property
    def done(self) -> int:
        """How many items are finished."""
        return self._returned + len(self._finished)

    @property
    def is_ready(self) -> bool:
        """Whether the next outcome in order is there."""
        return self._returned in self._finished

    @property
    def at_end(self) -> bool:
        """Whether all outcomes that there will be were returned."""
        has_items = self._buffer or self._planned or not self._source_ended
        return self._started == self._returned and (self._is_stopped or not has_items)

    # The source

    @property
    def is_low(self) -> bool:
        """Whether the buffer should be filled: it holds less than a batch or half a window."""
        return (
            len(self._buffer) < max(self._batch, self._window_in_batches // 2 + 1)
            and not self._has_enough_ready
            and not self._source_ended
            and not self._is_stopped
        )

    def read(self, source: Iterator[Item], *, until: float) -> None:
        """Read a window of items and as many as can start now; stop at the time *until*."""
        self._read_up_to(self._window_in_batches + self._limit - self._running, source, until)

    def read_on_demand(self, source: Iterator[Item]) -> None:
        """Read a batch of items from *source* whenever calls can start and the buffer is empty."""
        self._source = source

    def start_reader(self, source: AsyncIterator[Item]) -> None:
        """Start the one task that reads *source*: time limits in a generator need a single task."""
        self._reader = self._spawn(self._read_async(source))

    def stop_reader(self) -> None:
        """Cancel the task that reads the source. Callable from any thread."""
        reader = self._reader
        if reader is not None and not reader.done():
            with contextlib.suppress(RuntimeError):  # the loop has ended
                reader.get_loop().call_soon_threadsafe(reader.cancel)

    def pop_source_error(self) -> Exception | None:
        """Return the error of the source, once, if all items before it have been started."""
        error, self._source_error = self._source_error, None
        return None if self._buffer or self._planned else error

    def _read_up_to(self, count: int, source: Iterator[Item], until: float = math.inf) -> None:
        """Read items into the buffer until it holds *count*, or until that time."""
        try:
            while len(self._buffer) < count:
                self._buffer.append(next(source))
                if until < math.inf and self._caller.now() > until:
                    break
        except StopIteration:
            self._end_source()
        except Exception as error:
            self._end_source(error)

    async def _read_async(self, source: AsyncIterator[Item]) -> None:
        try:
            while True:
                while self._change is None or not self.is_low:
                    self._needs_items.clear()
                    await self._needs_items.wait()
                self._buffer.append(await anext(source))
                self._report_change()
        except StopAsyncIteration:
            self._end_source()
        except Exception as error:
            self._end_source(error)

    def _end_source(self, error: Exception | None = None) -> None:
        if error is not None:
            index = self._started + len(self._planned) + len(self._buffer)
            error.add_note(f"raised by the items of a bulk, in place of the item at index {index}")
            self._source_error = error
        self._source_ended = True
        self._report_change()

    # The calls

    @property
    def _running(self) -> int:
        return self._started - self.done

    @property
    def _limit(self) -> int:
        """How many calls may run now."""
        return min(self._window, SLOW_START + self.done)

    @property
    def _has_enough_ready(self) -> bool:
        return len(self._finished) >= READY_WINDOWS * self._window

    def start_more(self, *, allow_partial_batch: bool = True) -> None:
        """Start as many calls as may run now, of full batches only unless *allow_partial_batch*."""
        if not self._may_start():
            return
        try:
            self._caller.state.require_open()
        except ClosedError:
            if self.is_ready:
                return
            raise
        while self._may_start() and (self._planned or self._plan_batch(allow_partial_batch)):
            index = self._started
            self._started += 1
            self._spawn(self._run(index, *self._planned.popleft()))

    def _may_start(self) -> bool:
        return (
            self._running < self._limit
            and not self._has_enough_ready
            and not self._is_stopped
            and self._broken is None
            # A loop left at its first outcome has sent at most one window.
            and (self._returned > 0 or self._started < self._window)
        )

    def _plan_batch(self, allow_partial: bool) -> bool:
        """Plan the calls for the next batch of items; return False if it has to wait for items."""
        buffer = self._buffer
        if not buffer and self._source is not None and not self._source_ended:
            self._read_up_to(self._batch, self._source)
        if len(buffer) < (1 if allow_partial or self._source_ended else self._batch):
            return False
        items = [buffer.popleft() for _ in range(min(self._batch, len(buffer)))]
        self._planned.extend(zip(items, self._plan(items), strict=False))
        return True

    async def _run(self, index: int, item: Item, work: Work[Item, Value]) -> None:
        try:
            self._finished[index] = Outcome(index, item, await work(item))
        except Exception as error:
            error.add_note(f"the item at index {index} of a bulk")
            if isinstance(error, DriftError):
                # A report may hold many errors: the traceback would keep the frames of each call.
                error.__traceback__ = None
            self._finished[index] = Outcome(index, item, None, error)
            self.failed += 1
            self._is_stopped = self._is_stopped or self._stop_on_error
        self._report_change()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task with the context variables of the task that asks for outcomes."""
        task = self._caller.spawn(work, copy_context())
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            lost = ClosedError("the client was closed while calls of a bulk were under way")
            lost.applied = None
            self._broken = self._broken or lost
            self._report_change()
        elif (error := task.exception()) is not None:  # no call's error: a fault of the scheduler
            self._broken = error
            self._report_change()

    # The outcomes

    def pop_next(self) -> Outcome[Item, Value] | None:
        """Return the next outcome in order, or None if its call has not finished."""
        outcome = self._finished.pop(self._returned, None)
        if outcome is not None:
            self._returned += 1
        return outcome

    async def wait_for_change(self) -> None:
        """Wait until a call finishes or the source yields, ends or fails."""
        if self._broken is not None:
            raise self._broken
        if self._change is not None:
            raise RuntimeError("this bulk is being advanced already")
        self._change = asyncio.get_running_loop().create_future()
        if self.is_low:
            self._needs_items.set()
        try:
            await self._change
        except asyncio.CancelledError as stop:
            if self._running:
                stop.add_note(f"{self._running} calls of a bulk were under way, and go on")
            raise
        finally:
            self._change = None

    def _report_change(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    async def advance(
        self, *, wait: bool, allow_partial_batch: bool, is_report_due: Callable[[], bool]
    ) -> list[Outcome[Item, Value]]:
        """Start more calls and return all outcomes that are next in order.

        With *wait*, block until there is one, the buffer is low, or a progress report is due.
        *allow_partial_batch* says that the source has no more items now: start what is there.
        """
        self.start_more(allow_partial_batch=allow_partial_batch)
        while wait and not (self.is_ready or self.at_end or self.is_low or is_report_due()):
            await self.wait_for_change()
            self.start_more(allow_partial_batch=False)
        return list(iter(self.pop_next, None))

    async def close(self) -> None:
        """Start nothing more, cancel the running calls and the reader, and wait for their end."""
        self._is_stopped = True
        self._broken = self._broken or ClosedError("this bulk is closed")
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
