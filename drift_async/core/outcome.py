"""What comes out of a bulk: outcomes, a report of them, and how far it is."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

Item = TypeVar("Item")
Value = TypeVar("Value")


class Outcome(Generic[Item, Value]):
    """What became of one item of a bulk: a value, or an error."""

    # Written out: the constructor of a frozen attrs class is a fifth of what a window costs.
    __slots__ = ("_error", "_index", "_item", "_value")

    def __init__(
        self, index: int, item: Item, value: Value | None, error: Exception | None = None
    ) -> None:
        self._index = index
        self._item = item
        self._value = value
        self._error = error

    @property
    def index(self) -> int:
        """The item's place in the input, from 0."""
        return self._index

    @property
    def item(self) -> Item:
        """The item as it was given."""
        return self._item

    @property
    def error(self) -> Exception | None:
        """What the call raised; None if there is a value."""
        return self._error

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self._error is None

    @property
    def value(self) -> Value:
        """What the call returned; raises the error if there is one."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # None only where Value allows it

    def __repr__(self) -> str:
        return f"Outcome({self._index}, {'ok' if self.ok else type(self._error).__name__})"


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
    """What became of all items: the ``values`` and the outcomes with ``errors``, in input order.

    ``items_error`` is what the items raised instead of the next one; what came before is done.
    """

    values: list[Value]
    errors: list[Outcome[Item, Value]]
    items_error: Exception | None = None

    def add(self, outcome: Outcome[Item, Value]) -> None:
        """Take in one more outcome."""
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
