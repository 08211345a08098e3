"""`Resource`: the base of the groups of operations, such as ``drift.contacts``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from itertools import repeat
from typing import Any, Self, TypeVar, Unpack

import attrs

from .bulk import Bulk, BulkOptions, Items
from .caller import Caller
from .cursors import read_position
from .paging import Pager
from .process import decode
from .request import Endpoint

T = TypeVar("T")
Item = TypeVar("Item")


@attrs.define(eq=False, repr=False)
class Resource:
    """A group of operations that share a caller."""

    _caller: Caller

    async def _call(self, endpoint: Endpoint[T], body: object = None, /, **values: Any) -> T:
        """Send one request with *values* in path and query, and return what its response holds."""
        return await decode(endpoint.parse, await self._caller.send(endpoint.request(values, body)))

    def _pages(
        self, endpoint: Endpoint[list[T]], resume: str | None = None, /, **values: Any
    ) -> Pager[T]:
        """Return a pager, from a saved position on if one is given; bad input is refused now."""
        path = endpoint.target(values).partition("?")[0]
        start = {} if resume is None else read_position(endpoint, path, resume)
        return Pager(self._caller, endpoint, values, path, start)

    def _bulk(
        self,
        method: Callable[[Self, Item], Coroutine[Any, Any, T]],
        items: Items[Item],
        **options: Unpack[BulkOptions],
    ) -> Bulk[Item, T]:
        """Return a bulk that calls *method* for each item, all at one place in the queue."""
        caller = self._caller.for_bulk()
        call = partial(method, type(self)(caller))
        return Bulk(caller, items, lambda batch: repeat(call), **options)

    def _with_deadline(self) -> Self:
        """Return this group with its ``timeout`` running: one for all requests that follow."""
        return type(self)(self._caller.with_deadline())
