"""Lists of any length: items, pages, and positions that can be saved and resumed.

A position is data. Of the address that a server gives for the next page only the cursor key of the
row is taken; the request is built anew on the row's own path, so a reply cannot lead elsewhere.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import attrs

from ..errors import CursorError, DriftError
from .discreet import discreet
from .inputs import whole
from .process import DECODE_IN_THREAD_BYTES, run_in_decoder

if TYPE_CHECKING:
    from .endpoint import Endpoint, Reply

T = TypeVar("T")

Style = Literal["links", "pagination", "next_url", "link_header", "scim"]
Cursor = dict[str, str]
Following: TypeAlias = "Cursor | CursorError | None"
"""Where the next page is, None at the end, or why that cannot be told."""

WINDOW = 10_000
"""How many of the last items are remembered, so that none is given twice."""

_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_REL_NEXT = re.compile(r";\s*rel\s*=\s*(?:'next'|\"next\"|next)\s*(?:[;,]|$)", re.IGNORECASE)
_MAYBE_NEXT = re.compile(r"\brel\b[^;,]*\bnext\b", re.IGNORECASE)
_KEYS: Mapping[Style, tuple[str, ...]] = {
    "links": ("page_token",),
    "pagination": ("next",),
    "next_url": ("index", "size"),
    "link_header": ("cursor",),
    "scim": ("startIndex",),
}
# Besides its own key, the list of conversations may page by the older `next`.
_POSITION_KEYS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    style: (keys, ("next",)) if style == "links" else (keys,) for style, keys in _KEYS.items()
}
_NUMBERS = frozenset({"index", "size", "startIndex"})


def next_cursor(
    style: Style | None, value: Any, headers: Mapping[str, str], at: Cursor, got: int
) -> Cursor | None:
    """Return the cursor of the page after this one, or None at the end.

    Raises ValueError when there is more and the reply does not say where.
    """
    match style:
        case "links":
            links = _map(value, "links")
            if links.get("next") is not None:
                return _from_address(style, links["next"])
            return _from_pagination(value)
        case "pagination":
            return _from_pagination(value)
        case "next_url":
            address = _map(value, "data").get("next")
            return None if address is None else _from_address(style, address)
        case "link_header":
            # A header may come several times; a plain mapping has only one of them.
            every = getattr(headers, "getall", None)
            link = ", ".join(every("Link", ())) if every else headers.get("Link", "")
            return _from_link(link)
        case "scim":
            return _after_scim(value, at, got)
    return None


def _map(value: Any, key: str) -> Mapping[str, Any]:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _from_address(style: Style, address: object) -> Cursor:
    if not isinstance(address, str):
        raise ValueError("the address of the next page is not a text")
    found = parse_qs(
        urlsplit(address).query, keep_blank_values=True, errors="strict", max_num_fields=100
    )
    cursor = {}
    for key in _KEYS[style]:
        match found.get(key):
            case [str(text)]:
                cursor[key] = text
            case _:
                raise ValueError(f"the address of the next page has not one {key}")
    return _checked(cursor)


def _from_pagination(value: Any) -> Cursor | None:
    pagination = _map(value, "pagination")
    more = pagination.get("more", False)
    if more is not True and more is not False:
        raise ValueError("more is neither true nor false")
    if not more:
        return None
    following = pagination.get("next")
    if not isinstance(following, str):
        raise ValueError("there are more pages, and no text says where")
    return _checked({"next": following})


def _from_link(header: str) -> Cursor | None:
    for address, parameters in _LINK.findall(header):
        if _REL_NEXT.search(parameters):
            return _from_address("link_header", address)
    if _MAYBE_NEXT.search(header):
        raise ValueError("the Link header cannot be read")
    return None


def _after_scim(value: Any, at: Cursor, got: int) -> Cursor | None:
    total = value.get("totalResults") if isinstance(value, dict) else None
    if type(total) is not int:
        raise ValueError("totalResults is not a number")
    start = int(at.get("startIndex", "1")) + got
    if start > total:
        return None
    if got == 0:
        raise ValueError("there are more results, and the page is empty")
    return {"startIndex": str(start)}


def _checked(cursor: Cursor) -> Cursor:
    for key, text in cursor.items():
        if not 0 < len(text) <= 2048 or not text.isprintable() or not text.isascii():
            raise ValueError(f"{key} is empty, too long or not printable")
        if key in _NUMBERS and not (text.isdecimal() and len(text) < 19):
            raise ValueError(f"{key} is not a number")
    return cursor


def write_position(path: str, cursor: Cursor | None) -> str:
    """Return the text to save for a cursor; the end has one of its own."""
    return f"{path}{'#end' if cursor is None else '?' + urlencode(cursor)}"


def read_position(endpoint: Endpoint[Any], path: str, text: object) -> Cursor | None:
    """Return the cursor of a saved position, None for the end, or raise `CursorError`."""
    if isinstance(text, str) and len(text) <= 8192:
        if text == f"{path}#end":
            return None
        found, _, rest = text.partition("?")
        cursor = dict(parse_qsl(rest, keep_blank_values=True))
        if found == path and tuple(cursor) in _POSITION_KEYS.get(endpoint.pages or "", ()):
            try:
                return _checked(cursor)
            except ValueError:
                pass
    raise CursorError("not a position of this list", operation=endpoint.name, applied=False)


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


class Walker(Protocol):
    """What a pager needs of `drift_async.core.call.Caller`."""

    max_pages: int

    async def send(self, endpoint: Any, target: str) -> Reply: ...
    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]: ...


@discreet
@attrs.frozen(eq=False, repr=False)
class Pager(Generic[T]):
    """A list of any length, fetched page by page as it is walked.

    ``async for item in pager`` walks the items, ``async for page in pager.pages()`` the pages.
    While one page is being used, the next is being fetched. Nothing is sent before the first step,
    and each walk starts anew. A walk is for one task at a time; a second raises RuntimeError.
    """

    _caller: Walker
    _endpoint: Endpoint[list[T]]
    _values: Mapping[str, Any] = attrs.field(repr=False)
    _path: str
    _resume: Cursor | None

    def pages(self) -> Pages[T]:
        """Return an iterator over the pages."""
        return Pages(self, ahead=True)

    def __aiter__(self) -> AsyncIterator[T]:
        return _Items(self.pages())

    async def collect(self, *, limit: int | None = None) -> list[T]:
        """Return all items, or the first *limit*, as a list."""
        items: list[T] = []
        if limit is not None and whole("limit", limit) == 0:
            return items
        async for page in Pages(self, ahead=True, limit=limit):
            items += page.items
            if limit is not None and len(items) >= limit:
                return items[:limit]
        return items

    async def first(self) -> T | None:
        """Return the first item, or None when there is none. Takes one request."""
        async for page in Pages(self, ahead=False, limit=1):
            if page.items:
                return page.items[0]
        return None

    async def _fetch(self, cursor: Cursor, wanted: int | None) -> tuple[list[T], Following]:
        endpoint = self._endpoint
        # The service's own page token carries the filters it was made with.
        values = {} if "page_token" in cursor else dict(self._values)
        values.update(cursor)
        reply = await self._caller.send(endpoint, endpoint.target(values))
        if len(reply.body) > DECODE_IN_THREAD_BYTES:
            items, value = await run_in_decoder(endpoint.decode_page, reply)
        else:
            items, value = endpoint.decode_page(reply)
        try:
            return items, next_cursor(endpoint.pages, value, reply.headers, cursor, len(items))
        except ValueError as fault:
            detail = str(fault)
        error = CursorError(detail, operation=endpoint.name, applied=True, **reply.told())
        if wanted is not None and len(items) >= wanted:
            return items, error  # which matters only if some of these were given before
        raise error


class _Items(Generic[T]):
    """An iterator over items. No generator: one that is left early has to be closed by its loop."""

    def __init__(self, pages: Pages[T]) -> None:
        self._pages = pages
        self._items: Iterator[T] = iter(())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while True:
            for item in self._items:
                return item
            self._items = iter((await self._pages.__anext__()).items)


@discreet
class Pages(Generic[T]):
    """An iterator over pages. After an error, the next step asks for the same page again."""

    def __init__(self, pager: Pager[T], *, ahead: bool, limit: int | None = None) -> None:
        self._pager = pager
        self._cursor: Following = pager._resume
        self._ahead = ahead
        self._limit = limit
        self._given = 0
        self._count = 0
        self._seen: set[tuple[tuple[str, str], ...]] = set()
        # A plain dict would be slow to give up its oldest key: it steps over all that went before.
        self._recent = OrderedDict[object, None]()
        self._task: asyncio.Task[tuple[list[T], Following]] | None = None
        self._is_stepping = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Page[T]:
        if self._is_stepping:
            raise RuntimeError("this walk is being advanced already")
        if self._cursor is None:
            raise StopAsyncIteration
        if isinstance(self._cursor, CursorError):
            raise self._cursor
        self._is_stepping = True
        try:
            return await self._step(self._cursor)
        finally:
            self._is_stepping = False

    async def _step(self, cursor: Cursor) -> Page[T]:
        pager = self._pager
        if self._count >= pager._caller.max_pages:
            raise self._error(f"more than {self._count} pages")
        items, following = await self._page(cursor)
        self._seen.add(tuple(cursor.items()))
        further = following if isinstance(following, dict) else None
        if further is not None and tuple(further.items()) in self._seen:
            raise self._error("the position of the next page repeats")
        self._count += 1
        self._cursor = following
        fresh = self._unseen(items)
        self._given += len(fresh)
        if further is not None and self._ahead and self._wanted() != 0:
            self._fetch_ahead(further)
        return Page(fresh, write_position(pager._path, further), further is None)

    async def _page(self, cursor: Cursor) -> tuple[list[T], Following]:
        task, self._task = self._task, None
        us = asyncio.current_task()
        cancelling = us.cancelling() if us else 0
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            try:
                return await task
            except asyncio.CancelledError:
                if not task.cancelled() or (us and us.cancelling() > cancelling):
                    raise
                # It ended with the client, not with us: if that is open again, so is the walk.
        return await self._pager._fetch(cursor, self._wanted())

    def _fetch_ahead(self, cursor: Cursor) -> None:
        work = self._pager._fetch(cursor, self._wanted())
        try:
            self._task = self._pager._caller.spawn(work)
        except DriftError:  # the client was closed: for the next step, this page was got
            work.close()

    def _wanted(self) -> int | None:
        """Return how many more items are wanted; None for all."""
        return None if self._limit is None else max(0, self._limit - self._given)

    def _unseen(self, items: list[T]) -> list[T]:
        """Return the items not given lately: what changes during a walk moves to other pages."""
        recent, key = self._recent, self._pager._endpoint.key
        fresh = []
        for item in items:
            mark = getattr(item, key, None)
            if mark is None or mark not in recent:
                fresh.append(item)
                if mark is not None:
                    recent[mark] = None
        while len(recent) > WINDOW:
            recent.popitem(last=False)
        return fresh

    def _error(self, detail: str) -> CursorError:
        name = self._pager._endpoint.name
        return CursorError(detail, operation=name, applied=True, reason="not_retryable")
