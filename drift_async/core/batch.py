"""Cutting what is asked into requests of a bounded size."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator
from itertools import islice
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Items: TypeAlias = Iterable[T] | AsyncIterable[T]
"""What users give to be walked; on the blocking face only plain iterables, in their own thread."""


class Chunk(list[T]):
    """A part of something longer; ``first`` is the number of its first item in that."""

    def __init__(self, items: Iterable[T], first: int) -> None:
        super().__init__(items)
        self.first = first


def cut(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Give the items in order, in lists of *size*; the last may be shorter, none is empty."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
