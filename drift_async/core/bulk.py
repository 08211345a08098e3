"""Bulks: many calls of one operation, with an outcome for each item, in input order."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator, Sized
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypedDict, TypeVar

import attrs

from ..errors import ClosedError, InputError
from .caller import Caller
from .outcome import BulkProgress, BulkReport, Item, Outcome, Value
from .scheduler import BulkScheduler, Plan
from .validate import boolean, integer

T = TypeVar("T")

Items: TypeAlias = Iterable[T] | AsyncIterable[T]
"""The items that a method takes; the blocking face takes plain iterables only."""

Method = Callable[[Item], Coroutine[Any, Any, Value]]
"""A method of a group that takes one argument."""

REPORT_EVERY = 0.1
"""Seconds between two reports of progress."""


class IndexedBatch(list[T]):
    """Some consecutive items of a longer input; ``first`` is the index of its first item there."""

    def __init__(self, items: Iterable[T], first: int) -> None:
        super().__init__(items)
        self.first = first


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in order, in lists of *size*; the last may be shorter, none is empty."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


class BulkOptions(TypedDict, total=False):
    """The keyword arguments that all bulks take; `Drift.bulk` explains them."""

    window: int
    stop_on_error: bool
    progress: Callable[[BulkProgress], object] | None


class ProgressReporter:
    """Calls the user's *progress* function at the start of a bulk, now and then, and at the end."""

    def __init__(
        self,
        progress: Callable[[BulkProgress], object] | None,
        scheduler: BulkScheduler[Any, Any],
        caller: Caller,
        items: object,
    ) -> None:
        if progress is not None and not callable(progress):
            raise InputError("progress", "must be callable")
        self._progress = progress
        self._scheduler = scheduler
        self._caller = caller
        self._total = len(items) if isinstance(items, Sized) else None
        self._started: float | None = None
        self._next_report = -math.inf

    def is_due(self) -> bool:
        """Return whether it is time for a report."""
        return self._progress is not None and self._caller.now() >= self._next_report

    def report_if_due(self) -> None:
        """Report the progress if it is time; the first report marks the start of the bulk."""
        if self.is_due():
            self.report()

    def report(self) -> None:
        if self._progress is None:
            return
        now = self._caller.now()
        self._next_report = now + REPORT_EVERY
        if self._started is None:
            self._started = now
        seconds = now - self._started
        done = self._scheduler.done
        rate = done / seconds if seconds > 0 else 0.0
        failed, refusals = self._scheduler.failed, self._caller.refusals
        self._progress(BulkProgress(done, failed, self._total, rate, refusals))


class Bulk(Generic[Item, Value]):
    """Many calls of one operation, with an outcome for each item.

    ``async for outcome in bulk`` gives them in input order; one item's failure leaves the others
    alone. Calls start only while the next outcome is being waited for: leaving the loop starts
    nothing more, leaving ``async with bulk`` also cancels what is under way. Items are pulled as
    they are needed, and memory does not grow with their number. An error of the iterable is
    raised when its turn comes, with a note that names the index. A bulk is used once.
    """

    def __init__(
        self,
        caller: Caller,
        items: Items[Item],
        plan: Plan[Item, Value],
        *,
        batch: int = 1,
        window: int = 64,
        stop_on_error: bool = False,
        progress: Callable[[BulkProgress], object] | None = None,
    ) -> None:
        if not isinstance(items, Iterable | AsyncIterable) or isinstance(items, str | bytes):
            raise InputError("items", "must be an iterable of items")
        self._caller = caller
        self._items = items
        self._scheduler = BulkScheduler(
            caller,
            plan,
            window=integer("window", window, 1, 10_000),
            batch=batch,
            stop_on_error=boolean("stop_on_error", stop_on_error),
        )
        self._progress = ProgressReporter(progress, self._scheduler, caller, items)
        self._has_begun = False
        self._is_over = False

    def __aiter__(self) -> Self:
        self._require_unused()
        return self

    async def __anext__(self) -> Outcome[Item, Value]:
        outcome = await self._next()
        if outcome is None:
            raise self._scheduler.pop_source_error() or StopAsyncIteration
        return outcome

    async def collect(self) -> BulkReport[Item, Value]:
        """Do all that is left, and return the report, which holds every value.

        Neither the errors of items nor that of the iterable are raised: they are in the report.
        """
        self._require_unused()
        report: BulkReport[Item, Value] = BulkReport([], [])
        while (outcome := await self._next()) is not None:
            report.add(outcome)
        return attrs.evolve(report, items_error=self._scheduler.pop_source_error())

    async def close(self) -> None:
        """Start nothing more, and cancel what is under way."""
        await self._scheduler.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        # The reader's task would wait for ever. There is no scheduler if the constructor raised.
        if (scheduler := getattr(self, "_scheduler", None)) is not None:
            scheduler.stop_reader()

    async def _next(self) -> Outcome[Item, Value] | None:
        """Return the next outcome in order, or None at the end."""
        scheduler = self._scheduler
        if not self._has_begun:
            self._begin()
        while True:
            scheduler.start_more()
            self._progress.report_if_due()
            if (outcome := scheduler.pop_next()) is not None:
                return outcome
            if scheduler.at_end:
                self._finish()
                return None
            await scheduler.wait_for_change()

    def _begin(self) -> None:
        self._caller.state.require_open()
        self._has_begun = True
        if isinstance(self._items, AsyncIterable):
            self._scheduler.start_reader(aiter(self._items))
        else:
            self._scheduler.read_on_demand(iter(self._items))

    def _finish(self) -> None:
        """Stop the reader and make the last report of progress, once."""
        if not self._is_over:
            self._is_over = True
            self._scheduler.stop_reader()
            self._progress.report()

    def _require_unused(self) -> None:
        if self._is_over:
            raise ClosedError("this bulk is used up; make a new one")
