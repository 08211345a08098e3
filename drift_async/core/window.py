"""The engine of bulks: calls side by side, at most so many, whose outcomes come in input order.

It starts calls only while somebody waits for the next outcome. A face keeps it supplied with items:
from a plain iterator that it pulls itself, or from a stock that others fill.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextvars import Context, copy_context
from typing import Any, Generic, Protocol, TypeVar

from ..errors import ClosedError, DriftError
from .outcome import Item, Outcome, Value

T = TypeVar("T")

Work = Callable[[Item], Coroutine[Any, Any, Value]]
"""What is done for an item."""

Plan = Callable[[Sequence[Item]], Iterable[Work[Item, Value]]]
"""Says what is to be done for each of some consecutive items."""

FIRST_FLIGHT = 16
"""How many calls start at once; one more for each that is finished, until the window is full. Where
the server's limit is not known, all at once would mostly be refused."""

AHEAD = 16
"""How many windows of outcomes may wait behind one call that is not finished."""


class Spawner(Protocol):
    """What a window needs of its caller."""

    def now(self) -> float: ...
    def ensure_open(self) -> None: ...
    def spawn(
        self, work: Coroutine[Any, Any, T], context: Context | None = None
    ) -> asyncio.Task[T]: ...


def _nothing() -> None:
    """Stand in for a signal that nobody wants."""


class Window(Generic[Item, Value]):
    """The calls of one bulk: what is planned, under way, and finished but not yet given out.

    *batch* items are planned together. They come from `supply`, or from the `stock` that others
    fill up to what is `wanted`; `low` is called when it is low while an outcome is waited for.
    """

    def __init__(
        self,
        caller: Spawner,
        plan: Plan[Item, Value],
        *,
        size: int,
        batch: int,
        stop_on_error: bool,
    ) -> None:
        self._caller = caller
        self._plan = plan
        self._size = size
        self._full = batch
        self._takes_rest = True  # what is in stock, though it fills no batch
        # One at a time, pulling and planning would cost more.
        self._batch = batch if batch > 1 else max(1, size // 8)
        self._ahead = AHEAD * size
        self._room = math.ceil(size / batch) * batch
        self._little = max(batch, self._room // 2 + 1)
        self._stop_on_error = stop_on_error
        self.supply: Iterator[Item] | None = None
        self.stock: deque[Item] = deque()
        self.low: Callable[[], None] = _nothing
        self.is_due: Callable[[], bool] | None = None
        self._fault: Exception | None = None  # what the items raised instead of the next one
        self.failed = 0
        self._over = False
        self._stopped = False
        self._broken: BaseException | None = None  # why nothing goes on here
        self._planned: deque[tuple[Item, Work[Item, Value]]] = deque()
        self._finished: dict[int, Outcome[Item, Value]] = {}
        self._taken = 0
        self._given = 0
        self._running = 0  # workers that have not come to their end, unlike their tasks
        self._workers: set[asyncio.Task[None]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def done(self) -> int:
        """How many items are finished."""
        return self._given + len(self._finished)

    @property
    def at_end(self) -> bool:
        """Whether all outcomes that there will be were given out."""
        return self._taken == self._given and (
            self._stopped or (self._over and not self.stock and not self._planned)
        )

    @property
    def is_low(self) -> bool:
        """Whether more items are wanted."""
        return (
            len(self.stock) < self._little
            and len(self._finished) < self._ahead
            and not self._over
            and not self._stopped
        )

    @property
    def wanted(self) -> int:
        """How many items may be in stock: what can start at once, and a window more."""
        return self._room + self._most - self._running

    @property
    def _most(self) -> int:
        """How many calls may be under way now."""
        return min(self._size, FIRST_FLIGHT + self.done)

    # supplying items

    def pull(self, supply: Iterator[Item], most: int, until: float = math.inf) -> None:
        """Move items from *supply* to the stock until it has *most*, or until that time."""
        stock = self.stock
        try:
            while len(stock) < most:
                stock.append(next(supply))
                if until < math.inf and self._caller.now() > until:
                    break
        except StopIteration:
            self.end()
        except Exception as error:
            self.end(error)

    def feed_from(self, supply: AsyncIterator[Item]) -> None:
        """Have a task move items from *supply* to the stock as they are wanted.

        It is one task from first to last: time limits and the like inside of a generator need that.
        """
        self._feeder = self._spawn(self._feed(supply))

    def drop_feeder(self) -> None:
        """End that task, from any thread: nobody will want an item again."""
        feeder = self._feeder
        if feeder is not None and not feeder.done():
            with contextlib.suppress(RuntimeError):  # the loop has ended
                feeder.get_loop().call_soon_threadsafe(feeder.cancel)

    async def _feed(self, supply: AsyncIterator[Item]) -> None:
        wanted = asyncio.Event()
        self.low = wanted.set
        try:
            while True:
                while self._waiter is None or not self.is_low:
                    wanted.clear()
                    await wanted.wait()
                self.stock.append(await anext(supply))
                self._wake()  # who waits starts what is here once *supply* has no more at once
        except StopAsyncIteration:
            self.end()
        except Exception as error:
            self.end(error)

    def end(self, fault: Exception | None = None) -> None:
        """Expect no more items: they are over, or raised *fault* instead of the next."""
        if fault is not None:
            at = self._taken + len(self._planned) + len(self.stock)
            fault.add_note(f"raised by the items of a bulk, in place of the item at index {at}")
            self._fault = fault
        self._over = True
        self._wake()

    # going on

    def start(self) -> None:
        """Start as many calls as may be under way."""
        if self._running == self._size or self._broken is not None:
            return
        try:
            self._caller.ensure_open()
        except ClosedError:
            if self._given in self._finished:
                return
            raise
        most = self._most
        while self._running < most and (taken := self._take()) is not None:
            self._running += 1
            self._workers.add(self._spawn(self._work(*taken)))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task of this bulk, which cannot go on without it."""
        task = self._caller.spawn(work, copy_context())
        task.add_done_callback(self._ended)
        return task

    async def wait(self) -> None:
        """Wait until there is news: the next outcome, the end, or progress to tell."""
        if self._broken is not None:
            raise self._broken
        if self._waiter is not None:
            raise RuntimeError("this bulk is being advanced already")
        self._waiter = asyncio.get_running_loop().create_future()
        if self.is_low:
            self.low()
        try:
            await self._waiter
        except asyncio.CancelledError as stop:
            if self._running:
                stop.add_note(f"{self._running} calls of a bulk were under way, and go on")
            raise
        finally:
            self._waiter = None

    def next(self) -> Outcome[Item, Value] | None:
        """Return the outcome whose turn it is, if it is there."""
        outcome = self._finished.pop(self._given, None)
        if outcome is not None:
            self._given += 1
        return outcome

    async def exchange(self, *, wait: bool, brought: bool) -> list[Outcome[Item, Value]]:
        """Go on, until there is news if so wanted; return the outcomes whose turn it is.

        Who has *brought* items has no more of them at once, so that no batch gets fuller.
        """
        self._takes_rest = brought
        self.start()
        self._takes_rest = False
        if wait and self._given not in self._finished and not self.at_end and not self.is_low:
            self.low = self._wake
            await self.wait()
            if self._broken is not None and self._given not in self._finished:
                raise self._broken
        return list(iter(self.next, None))

    def take_fault(self) -> Exception | None:
        """Return, once, what the items have raised, if its turn has come."""
        fault, self._fault = self._fault, None
        return None if self.stock or self._planned else fault

    async def close(self) -> None:
        """Start nothing more, cancel what is under way, and wait for its end."""
        self._stopped = True
        self._broken = self._broken or ClosedError("this bulk is closed")
        tasks = self._workers | ({self._feeder} if self._feeder is not None else set())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _take(self) -> tuple[int, Item, Work[Item, Value]] | None:
        if self._stopped or len(self._finished) >= self._ahead:
            return None
        if not self._given and self._taken == self._size:
            return None  # a loop that is left at its first outcome has sent no more than this
        if not self._planned:
            if not self.stock and self.supply is not None and not self._over:
                self.pull(self.supply, self._batch)
            stock = self.stock
            if not stock or (len(stock) < self._full and not self._takes_rest and not self._over):
                return None
            batch = [stock.popleft() for _ in range(min(self._batch, len(stock)))]
            self._planned.extend(zip(batch, self._plan(batch), strict=False))
        index = self._taken
        self._taken += 1
        return index, *self._planned.popleft()

    async def _work(self, index: int, item: Item, work: Work[Item, Value]) -> None:
        """Do one item after the other for as long as somebody waits."""
        while True:
            try:
                value = await work(item)
            except Exception as error:
                self._fail(index, item, error)
            else:
                self._finished[index] = Outcome(index, item, value)
            if index == self._given or (self.is_due is not None and self.is_due()):
                self._wake()
            if self._waiter is None or (taken := self._take()) is None:
                self._running -= 1
                return
            index, item, work = taken
            if self.supply is None and self.is_low:  # others fill the stock
                self.low()

    def _fail(self, index: int, item: Item, error: Exception) -> None:
        error.add_note(f"the item at index {index} of a bulk")
        # It would keep the frames of the call alive. Of others' errors it tells where they come
        # from, below this task: who clears out frames would end it.
        trace = error.__traceback__
        error.__traceback__ = None if isinstance(error, DriftError) else trace and trace.tb_next
        self._finished[index] = Outcome(index, item, None, error)
        self.failed += 1
        self._stopped = self._stopped or self._stop_on_error

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._workers.discard(task)
        if task.cancelled():
            lost = ClosedError("the client was closed while calls of a bulk were under way")
            lost.applied = None
            self._broken = self._broken or lost
            self._wake()
        elif (error := task.exception()) is not None:  # not of an item, so it is a mistake of ours
            self._broken = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
