"""The blocking counterparts of lists, written by hand: a page crosses to the caller at once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, Self, TypeAlias, TypeVar

from ..core import paging as _async
from ..core.bulk import IndexedBatch
from ..core.paging import Page
from ..errors import InputError
from .portal import Portal

T = TypeVar("T")

Items: TypeAlias = Iterable[T]
"""The items that a method takes; the caller's thread iterates over them."""

CHUNK = 500
"""Items that cross to the loop thread at once."""


class Pager(Generic[T]):
    """A list of any length, fetched page by page as it is walked.

    ``for item in pager`` walks the items, ``for page in pager.pages()`` the pages. While one page
    is being used, the next is being fetched. Nothing is sent before the first step, and each walk
    starts anew. A walk is for one thread at a time; a second raises RuntimeError or ValueError.
    """

    def __init__(self, core: _async.Pager[T], portal: Portal) -> None:
        self._core = core
        self._portal = portal

    def pages(self) -> PageIterator[T]:
        """Return an iterator over the pages."""
        return PageIterator(self._core.pages(), self._portal)

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.items

    def collect(self, *, limit: int | None = None) -> list[T]:
        """Return all items, or the first *limit*, as a list."""
        return self._portal.run(self._core.collect(limit=limit))

    def first(self) -> T | None:
        """Return the first item, or None when there is none. Takes one request."""
        return self._portal.run(self._core.first())


class PageIterator(Generic[T]):
    """An iterator over pages. After an error, the next step asks for the same page again."""

    def __init__(self, core: _async.PageIterator[T], portal: Portal) -> None:
        self._core = core
        self._portal = portal
        self._ready: list[Page[T]] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Page[T]:
        try:
            # Ctrl-C may come once the page has crossed: the next step then returns that page.
            if not self._ready:
                self._portal.run(self._step())
        except StopAsyncIteration:
            raise StopIteration from None
        return self._ready.pop()

    async def _step(self) -> None:
        self._ready.append(await anext(self._core))


def send_in_chunks(
    portal: Portal, accept: Callable[[IndexedBatch[T]], Coroutine[Any, Any, int]], items: Items[T]
) -> int:
    """Pass *items* to *accept* in chunks, and return the sum of the counts that it returns.

    The caller's thread iterates over the items. If they raise, those before the error are passed
    on first.
    """
    if not isinstance(items, Iterable):
        raise InputError("items", "must be an iterable")
    count, rest = 0, iter(items)
    while True:
        chunk = IndexedBatch[T]((), count)
        try:
            chunk.extend(islice(rest, CHUNK))  # on an error, it holds the items before that
        except Exception:
            portal.run(accept(chunk))
            raise
        if not chunk:
            return count
        count += portal.run(accept(chunk))
