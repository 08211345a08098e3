"""The blocking counterparts of what is walked: written by hand, one crossing for a page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, Self, TypeAlias, TypeVar

from ..core import pager as _async
from ..core.batch import Chunk
from ..core.discreet import discreet
from ..core.pager import Page
from ..errors import InputError
from .portal import Portal

T = TypeVar("T")

Items: TypeAlias = Iterable[T]
"""What the blocking face walks, in the caller's thread."""

CHUNK = 500
"""Items that cross to the loop's thread at once."""


@discreet
class Pager(Generic[T]):
    """A list of any length, fetched page by page as it is walked.

    ``for item in pager`` walks the items, ``for page in pager.pages()`` the pages. While one page
    is being used, the next is being fetched. Nothing is sent before the first step, and each walk
    starts anew. A walk is for one thread at a time; a second raises RuntimeError or ValueError.
    """

    def __init__(self, core: _async.Pager[T], portal: Portal) -> None:
        self._core = core
        self._portal = portal

    def pages(self) -> Pages[T]:
        """Return an iterator over the pages."""
        return Pages(self._core.pages(), self._portal)

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.items

    def collect(self, *, limit: int | None = None) -> list[T]:
        """Return all items, or the first *limit*, as a list."""
        return self._portal.run(self._core.collect(limit=limit))

    def first(self) -> T | None:
        """Return the first item, or None when there is none. Takes one request."""
        return self._portal.run(self._core.first())


@discreet
class Pages(Generic[T]):
    """An iterator over pages. After an error, the next step asks for the same page again."""

    def __init__(self, core: _async.Pages[T], portal: Portal) -> None:
        self._core = core
        self._portal = portal
        self._ready: list[Page[T]] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Page[T]:
        try:
            # Ctrl-C may come when the page is there already: then it is for the next step.
            if not self._ready:
                self._portal.run(self._step())
        except StopAsyncIteration:
            raise StopIteration from None
        return self._ready.pop()

    async def _step(self) -> None:
        self._ready.append(await self._core.__anext__())


def send_in_chunks(
    portal: Portal, accept: Callable[[Chunk[T]], Coroutine[Any, Any, int]], items: Items[T]
) -> int:
    """Pass items to *accept* in chunks, walking them in the caller's thread; return the count."""
    if not isinstance(items, Iterable):
        raise InputError("items", "must be an iterable")
    count, rest = 0, iter(items)
    while True:
        part = Chunk[T]((), count)
        try:
            part.extend(islice(rest, CHUNK))  # holds those before an error
        except Exception:  # of the items, whatever it is: those before it are accepted all the same
            portal.run(accept(part))
            raise
        if not part:
            return count
        count += portal.run(accept(part))
