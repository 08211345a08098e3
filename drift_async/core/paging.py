"""Lists of any length: `Pager`, the pages it fetches, and positions from which to resume."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextvars import copy_context
from typing import Any, Generic, Self, TypeVar

import attrs

from ..errors import CallInfo, CursorError, DriftError
from .caller import Caller
from .cursors import Cursor, next_cursor, write_position
from .process import decode
from .request import Endpoint
from .validate import integer

T = TypeVar("T")

REMEMBERED_ITEMS = 10_000
"""How many of the last items a walk remembers, so that it returns none of them twice."""


@attrs.frozen(eq=False, repr=False)
class Page(Generic[T]):
    """One page of a walk.

    Save ``next`` once the ``items`` are dealt with, and give it as ``resume`` to go on there. The
    last page has a position too, from which nothing more follows.
    """

    items: list[T]
    next: str
    is_last: bool

    def __repr__(self) -> str:
        return f"Page({len(self.items)} items{', the last' if self.is_last else ''})"


@attrs.frozen(eq=False, repr=False)
class FetchedPage(Generic[T]):
    """The items of a response, and the cursor of the next page: None at the end.

    ``error`` is set if there are more pages and the response does not say where.
    """

    items: list[T]
    next: Cursor | None
    error: CursorError | None = None


@attrs.frozen(eq=False, repr=False)
class Pager(Generic[T]):
    """A list of any length, fetched page by page as it is walked.

    ``async for item in pager`` walks the items, ``async for page in pager.pages()`` the pages.
    While one page is being used, the next is being fetched. Nothing is sent before the first step,
    and each walk starts anew. A walk is for one task at a time; a second raises RuntimeError.
    """

    _caller: Caller
    _endpoint: Endpoint[list[T]]
    _values: Mapping[str, Any] = attrs.field(repr=False)
    _path: str
    _resume: Cursor | None

    def pages(self) -> PageIterator[T]:
        """Return an iterator over the pages."""
        return PageIterator(self)

    def __aiter__(self) -> AsyncIterator[T]:
        return ItemIterator(self.pages())

    async def collect(self, *, limit: int | None = None) -> list[T]:
        """Return all items, or the first *limit*, as a list."""
        items: list[T] = []
        if limit is not None and integer("limit", limit) == 0:
            return items
        async for page in PageIterator(self, limit):
            items += page.items
            if limit is not None and len(items) >= limit:
                return items[:limit]
        return items

    async def first(self) -> T | None:
        """Return the first item, or None when there is none. Takes one request."""
        async for page in PageIterator(self, limit=1):
            if page.items:
                return page.items[0]
        return None

    async def _fetch(self, cursor: Cursor, wanted: int | None) -> FetchedPage[T]:
        """Fetch the page at *cursor*, of which *wanted* items are needed; None for all."""
        endpoint = self._endpoint
        # The service's own page token carries the filters it was made with.
        values = {} if "page_token" in cursor else dict(self._values)
        values.update(cursor)
        response = await self._caller.send(endpoint.request(values))
        items, value = await decode(endpoint.parse_page, response)
        try:
            following = next_cursor(endpoint.pages, value, response.headers, cursor, len(items))
        except ValueError as fault:
            error = CursorError(str(fault), response.call_info(endpoint.name))
        else:
            return FetchedPage(items, following)
        if wanted is None or len(items) < wanted:
            raise error
        # The next page is needed only if an earlier page held some of these items too.
        return FetchedPage(items, None, error)


class ItemIterator(Generic[T]):
    """An iterator over items. No generator: one that is left early has to be closed by its loop."""

    def __init__(self, pages: PageIterator[T]) -> None:
        self._pages = pages
        self._items: Iterator[T] = iter(())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while True:
            for item in self._items:
                return item
            self._items = iter((await anext(self._pages)).items)


class PageIterator(Generic[T]):
    """An iterator over pages. After an error, the next step asks for the same page again."""

    def __init__(self, pager: Pager[T], limit: int | None = None) -> None:
        self._pager = pager
        self._cursor = pager._resume
        self._cursor_error: CursorError | None = None
        self._wanted = limit  # how many more items are needed; None for all
        self._visited: set[tuple[tuple[str, str], ...]] = set()
        # A plain dict would be slow to remove its oldest key: it steps over all removed before.
        self._recent_keys = OrderedDict[object, None]()
        self._next_page: asyncio.Task[FetchedPage[T]] | None = None
        self._is_stepping = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Page[T]:
        if self._is_stepping:
            raise RuntimeError("this walk is being advanced already")
        if self._cursor_error is not None:
            raise self._cursor_error
        if self._cursor is None:
            raise StopAsyncIteration
        self._is_stepping = True
        try:
            return await self._step(self._cursor)
        finally:
            self._is_stepping = False

    async def _step(self, cursor: Cursor) -> Page[T]:
        pager = self._pager
        if len(self._visited) >= pager._caller.max_pages:
            raise self._error(f"more than {len(self._visited)} pages")
        page = await self._prefetched() or await pager._fetch(cursor, self._wanted)
        self._visited.add(tuple(cursor.items()))
        following = page.next
        if following is not None and tuple(following.items()) in self._visited:
            raise self._error("the position of the next page repeats")
        self._cursor, self._cursor_error = following, page.error
        items = self._without_repeats(page.items)
        if self._wanted is not None:
            self._wanted = max(0, self._wanted - len(items))
        if following is not None and self._wanted != 0:
            self._start_prefetch(following)
        return Page(items, write_position(pager._path, following), following is None)

    def _start_prefetch(self, cursor: Cursor) -> None:
        """Fetch the next page in a task, with the context variables and the span of the caller."""
        fetch = self._pager._fetch(cursor, self._wanted)
        try:
            self._next_page = self._pager._caller.spawn(fetch, copy_context())
        except DriftError:  # the client was closed meanwhile; the page at hand is still returned
            fetch.close()

    async def _prefetched(self) -> FetchedPage[T] | None:
        """Return the page that was fetched ahead; None if it has to be fetched now."""
        task, self._next_page = self._next_page, None
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            return None
        reader = asyncio.current_task()
        cancelled_before = reader.cancelling() if reader else 0
        try:
            return await task  # cancelling the reader cancels the task, and waits for its end
        except asyncio.CancelledError:
            if not task.cancelled() or (reader and reader.cancelling() > cancelled_before):
                raise
            # Closing the client cancelled the task: the walk goes on if the client is open again.
            return None

    def _without_repeats(self, items: list[T]) -> list[T]:
        """Return the items not returned lately: an item changed meanwhile moves to another page."""
        recent, key = self._recent_keys, self._pager._endpoint.key
        fresh = []
        for item in items:
            mark = getattr(item, key, None)
            if mark is None:
                fresh.append(item)
            elif mark not in recent:
                fresh.append(item)
                recent[mark] = None
        while len(recent) > REMEMBERED_ITEMS:
            recent.popitem(last=False)
        return fresh

    def _error(self, detail: str) -> CursorError:
        name = self._pager._endpoint.name
        return CursorError(detail, CallInfo(operation=name, applied=True, reason="not_retryable"))
