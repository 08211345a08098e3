"""Many calls of one operation: bounded, paced, with an outcome for each item, in input order."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Sized
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypedDict

import attrs

from ..errors import ClosedError, InputError
from .batch import Items
from .outcome import BulkProgress, BulkReport, Item, Outcome, Value
from .validate import boolean, integer
from .window import Plan, Spawner, Window

Method = Callable[[Item], Coroutine[Any, Any, Value]]
"""A method of a group that takes one argument."""

TELLING = 0.1
"""Seconds between two reports of progress."""


class BulkOptions(TypedDict, total=False):
    """The keyword arguments that all bulks take; `Drift.bulk` explains them."""

    window: int
    stop_on_error: bool
    progress: Callable[[BulkProgress], object] | None


class BulkCaller(Spawner, Protocol):
    """What a bulk needs of `drift_async.core.admission.BulkCaller`; that loads the HTTP library."""

    @property
    def refusals(self) -> int: ...


class Bar:
    """Tells a callable how far a bulk is: now and then, and at the end."""

    def __init__(
        self,
        call: Callable[[BulkProgress], object],
        window: Window[Any, Any],
        caller: BulkCaller,
        items: object,
    ) -> None:
        if not callable(call):
            raise InputError("progress", "must be callable")
        self._call = call
        self._window = window
        self._caller = caller
        self._total = len(items) if isinstance(items, Sized) else None
        self._began: float | None = None
        self._next = -math.inf
        window.is_due = self.is_due

    def is_due(self) -> bool:
        """Tell whether it is time to tell."""
        return self._caller.now() >= self._next

    def look(self) -> None:
        """Tell how far the bulk is if it is time; the first look is its start."""
        if self._began is None:
            self._began = self._caller.now()
        if self.is_due():
            self.tell()

    def tell(self) -> None:
        """Tell how far the bulk is."""
        now = self._caller.now()
        self._next = now + TELLING
        done = self._window.done
        seconds = now - (now if self._began is None else self._began)
        rate = done / seconds if seconds > 0 else 0.0
        refusals = self._caller.refusals
        self._call(BulkProgress(done, self._window.failed, self._total, rate, refusals))


class Bulk(Generic[Item, Value]):
    """Many calls of one operation, with an outcome for each item.

    ``async for outcome in bulk`` gives them in input order; one item's failure leaves the others
    alone. Calls start only while the next outcome is being waited for: leaving the loop starts
    nothing more, leaving ``async with bulk`` also cancels what is under way. Items are pulled as
    they are needed, and memory does not grow with their number. What the items raise is raised
    when its turn comes, with a note that names the index. A bulk is used once.
    """

    def __init__(
        self,
        caller: BulkCaller,
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
        self._window = Window(
            caller,
            plan,
            size=integer("window", window, 1, 10_000),
            batch=batch,
            stop_on_error=boolean("stop_on_error", stop_on_error),
        )
        self._bar = None if progress is None else Bar(progress, self._window, caller, items)
        self._is_begun = False
        self._is_over = False

    def __aiter__(self) -> Self:
        self._refuse_second_use()
        return self

    async def __anext__(self) -> Outcome[Item, Value]:
        outcome = await self._next()
        if outcome is None:
            raise self._window.take_fault() or StopAsyncIteration
        return outcome

    async def collect(self) -> BulkReport[Item, Value]:
        """Do all that is left, and return the report, which holds every value.

        Neither the errors of items nor that of the iterable are raised: they are in the report.
        """
        self._refuse_second_use()
        report: BulkReport[Item, Value] = BulkReport([], [])
        while (outcome := await self._next()) is not None:
            report.add(outcome)
        return attrs.evolve(report, items_error=self._window.take_fault())

    async def close(self) -> None:
        """Start nothing more, and cancel what is under way."""
        await self._window.close()

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
        # The task that pulls items would wait for ever, with nobody to wait for it.
        if (window := getattr(self, "_window", None)) is not None:
            window.drop_feeder()

    async def _next(self) -> Outcome[Item, Value] | None:
        """Return the next outcome; None at the end."""
        window, bar = self._window, self._bar
        if not self._is_begun:
            self._caller.ensure_open()
            self._is_begun = True
            if isinstance(self._items, AsyncIterable):
                window.feed_from(aiter(self._items))
            else:
                window.supply = iter(self._items)
        while True:
            window.start()
            if bar is not None:
                bar.look()
            if (outcome := window.next()) is not None:
                return outcome
            if window.at_end:
                self._finish()
                return None
            await window.wait()

    def _finish(self) -> None:
        """Take note of the end, and tell of it once."""
        if not self._is_over:
            self._is_over = True
            self._window.drop_feeder()
            if self._bar is not None:
                self._bar.tell()

    def _refuse_second_use(self) -> None:
        if self._is_over:
            raise ClosedError("this bulk is used up; make a new one")
