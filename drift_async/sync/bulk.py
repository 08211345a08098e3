"""The blocking counterpart of a bulk, written by hand.

The caller's thread reads the items and reports progress; the calls run side by side on the loop
thread. One crossing brings all outcomes that are ready.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self

import attrs

from ..core import bulk as _async
from ..core.outcome import BulkReport, Item, Outcome, Value
from ..errors import InputError
from .portal import Portal

Method = Callable[[Item], Value]
"""A method of a group that takes one argument."""

ADVANCE_EVERY = 0.005
"""Seconds that the caller may spend on items or outcomes before more calls are started."""


class Bulk(Generic[Item, Value]):
    """Many calls of one operation, with an outcome for each item.

    ``for outcome in bulk`` gives them in input order; one item's failure leaves the others
    alone. Calls start only while the next outcome is being waited for: leaving the loop starts
    nothing more, leaving ``with bulk`` also cancels what is under way. Items are pulled as
    they are needed, and memory does not grow with their number. An error of the iterable is
    raised when its turn comes, with a note that names the index. A bulk is used once.
    """

    def __init__(self, core: _async.Bulk[Item, Value], portal: Portal) -> None:
        if not isinstance(core._items, Iterable):
            raise InputError("items", "must be a plain iterable")
        self._core = core
        self._portal = portal
        self._scheduler = core._scheduler
        self._progress = core._progress
        self._now = core._caller.now
        self._items = core._items
        self._source: Iterator[Item] | None = None
        self._ready: deque[Outcome[Item, Value]] = deque()
        self._advanced = 0.0

    def __iter__(self) -> Self:
        self._core._require_unused()
        return self

    def __next__(self) -> Outcome[Item, Value]:
        outcome = self._next()
        if outcome is None:
            raise self._scheduler.pop_source_error() or StopIteration
        return outcome

    def collect(self) -> BulkReport[Item, Value]:
        """Do all that is left, and return the report, which holds every value.

        Neither the errors of items nor that of the iterable are raised: they are in the report.
        """
        self._core._require_unused()
        report: BulkReport[Item, Value] = BulkReport([], [])
        while (outcome := self._next()) is not None:
            report.add(outcome)
        return attrs.evolve(report, items_error=self._scheduler.pop_source_error())

    def close(self) -> None:
        """Start nothing more, and cancel what is under way."""
        self._portal.run_if_open(self._core.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _next(self) -> Outcome[Item, Value] | None:
        """Return the next outcome in order, or None at the end."""
        ready = self._ready
        if ready and self._now() - self._advanced > ADVANCE_EVERY:
            self._advance(wait=False)
        while not ready:
            if self._scheduler.at_end:
                self._core._finish()
                return None
            self._advance(wait=True)
        return ready.popleft()

    def _advance(self, *, wait: bool) -> None:
        """Read more items if needed, start calls, and fetch all outcomes that are ready."""
        if self._source is None:
            self._source = iter(self._items)
        self._progress.report_if_due()
        has_read = self._scheduler.is_low
        if has_read:
            self._scheduler.read(self._source, until=self._now() + ADVANCE_EVERY)
        self._portal.run(self._fetch_ready(wait, has_read))
        self._advanced = self._now()

    async def _fetch_ready(self, wait: bool, has_read: bool) -> None:
        # Appends on the loop thread: Ctrl-C in the caller's thread must not lose these outcomes.
        self._ready += await self._scheduler.advance(
            wait=wait, allow_partial_batch=has_read, is_report_due=self._progress.is_due
        )


def to_awaitable(method: Callable[[Item], Value]) -> Any:
    """Return the coroutine method behind a blocking method; any other callable unchanged."""
    if isinstance(method, partial):
        return partial(to_awaitable(method.func), *method.args, **method.keywords)
    group = getattr(method, "__self__", None)
    return getattr(getattr(group, "_core", None), getattr(method, "__name__", ""), method)
