"""The blocking counterpart of a bulk, written by hand.

Items are pulled and progress is told in the caller's thread; the calls run side by side on the loop
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

PAUSE = 0.005
"""Seconds that the caller may be busy, with items or outcomes, before the calls get more to do."""


class Bulk(Generic[Item, Value]):
    """Many calls of one operation, with an outcome for each item.

    ``for outcome in bulk`` gives them in input order; one item's failure leaves the others
    alone. Calls start only while the next outcome is being waited for: leaving the loop starts
    nothing more, leaving ``with bulk`` also cancels what is under way. Items are pulled as
    they are needed, and memory does not grow with their number. What the items raise is raised
    when its turn comes, with a note that names the index. A bulk is used once.
    """

    def __init__(self, core: _async.Bulk[Item, Value], portal: Portal) -> None:
        if not isinstance(core._items, Iterable):
            raise InputError("items", "must be a plain iterable")
        self._core = core
        self._portal = portal
        self._now = core._caller.now
        self._items = core._items
        self._supply: Iterator[Item] | None = None
        self._ready: deque[Outcome[Item, Value]] = deque()
        self._crossed = 0.0

    def __iter__(self) -> Self:
        self._core._refuse_second_use()
        return self

    def __next__(self) -> Outcome[Item, Value]:
        outcome = self._next()
        if outcome is None:
            raise self._core._window.take_fault() or StopIteration
        return outcome

    def collect(self) -> BulkReport[Item, Value]:
        """Do all that is left, and return the report, which holds every value.

        Neither the errors of items nor that of the iterable are raised: they are in the report.
        """
        self._core._refuse_second_use()
        report: BulkReport[Item, Value] = BulkReport([], [])
        while (outcome := self._next()) is not None:
            report.add(outcome)
        return attrs.evolve(report, items_error=self._core._window.take_fault())

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
        """Return the next outcome; None at the end."""
        ready = self._ready
        if ready:
            if self._now() - self._crossed > PAUSE:
                self._exchange(wait=False)
            return ready.popleft()
        while not ready:
            if self._core._window.at_end:
                self._core._finish()
                return None
            self._exchange(wait=True)
        return ready.popleft()

    def _exchange(self, *, wait: bool) -> None:
        """Bring more items across, and all outcomes that are ready back."""
        window, bar = self._core._window, self._core._bar
        if self._supply is None:
            self._supply = iter(self._items)
        if bar is not None:
            bar.look()
        is_low = window.is_low
        if is_low:
            window.pull(self._supply, window.wanted, self._now() + PAUSE)
        self._portal.run(self._bring(wait, is_low))
        self._crossed = self._now()

    async def _bring(self, wait: bool, is_low: bool) -> None:
        # Here, and not in the caller's thread: Ctrl-C may come when they are out of the window.
        self._ready += await self._core._window.exchange(wait=wait, brought=is_low)


def to_awaitable(method: Callable[[Item], Value]) -> Any:
    """Return the coroutine method behind a blocking method; any other callable unchanged."""
    if isinstance(method, partial):
        return partial(to_awaitable(method.func), *method.args, **method.keywords)
    group = getattr(method, "__self__", None)
    return getattr(getattr(group, "_core", None), getattr(method, "__name__", ""), method)
