"""The results of a bulk: outcomes, a report of them, and the progress so far."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

Item = TypeVar("Item")
Value = TypeVar("Value")


@attrs.frozen(eq=False, repr=False)
class Outcome(Generic[Item, Value]):
    """The result of one item of a bulk: a value, or an error.

    ``index`` is the item's place in the input, from 0, and ``item`` the item as it was given.
    ``error`` is what the call raised; None if there is a value.
    """

    index: int
    item: Item
    _value: Value | None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.error is None

    @property
    def value(self) -> Value:
        """The result of the call; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]  # None only where Value allows it

    def __repr__(self) -> str:
        return f"Outcome({self.index}, {'ok' if self.ok else type(self.error).__name__})"


@attrs.frozen
class BulkProgress:
    """How far a bulk is.

    ``done`` items are finished, ``failed`` of them with an error; ``total`` is None where the items
    have no length. ``per_second`` is the mean since the start; ``refusals`` counts the requests
    that the server answered 429 or 503.
    """

    done: int
    failed: int
    total: int | None
    per_second: float
    refusals: int


@attrs.frozen(eq=False, repr=False)
class BulkReport(Generic[Item, Value]):
    """The results of all items: the ``values`` and the outcomes with ``errors``, in input order.

    ``items_error`` is what the items raised instead of the next one; all items before it are done.
    """

    values: list[Value]
    errors: list[Outcome[Item, Value]]
    items_error: Exception | None = None

    def add(self, outcome: Outcome[Item, Value]) -> None:
        """Add an outcome."""
        if outcome.ok:
            self.values.append(outcome.value)
        else:
            self.errors.append(outcome)

    def raise_for_errors(self) -> None:
        """Raise an `ExceptionGroup` of all errors, if there are any; a note names each index."""
        errors = [outcome.error for outcome in self.errors if outcome.error is not None]
        if self.items_error is not None:
            errors.append(self.items_error)
        if errors:
            total = len(self.values) + len(self.errors)
            raise ExceptionGroup(f"{len(self.errors)} of {total} items failed", errors)

    def __repr__(self) -> str:
        return f"BulkReport({len(self.values)} values, {len(self.errors)} errors)"
