"""Which benchmark answers to which id. Each file holds one subject, and is imported when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from .harness import Bench
from .measure import Row

CASES = {
    "P1": "calls:p1",
    "P2": "calls:p2",
    "P3": "calls:p3",
    "P4": "blocking:p4",
    "P5": "bulk:p5",
    "P6": "models:p6",
    "P7": "events:p7",
    "P8": "events:p8",
    "P9": "events:p9",
    "P10": "pacing:p10",
    "P11": "imports:p11",
    "P12": "pacing:p12",
    "P12w": "pacing:p12w",
    "P12r": "pacing_wire:p12r",
    "B12": "events:b12",
    "G3": "bulk:g3",
    "G5": "endurance:g5",
}
ON_REQUEST = frozenset({"P12r", "G3", "G5"})
"""What takes minutes, and is left out unless it is named."""


def case(id: str) -> Callable[[Bench], Iterator[Row]]:
    """Return the benchmark of that id."""
    module, _, name = CASES[id].partition(":")
    found: Callable[[Bench], Iterator[Row]] = getattr(
        import_module(f"{__package__}.{module}"), name
    )
    return found
