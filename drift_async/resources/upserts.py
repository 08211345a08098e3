"""Bulk upserts: find the items in batches by external id, then update or create each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, Generic, TypeVar

from ..errors import InputError

Item = TypeVar("Item")
T = TypeVar("T")

Found = Mapping[str, Sequence[T]]
Work = Callable[[Item], Coroutine[Any, Any, T]]
Read = Callable[[Item], tuple[str, dict[str, Any]]]
Find = Callable[[Collection[str]], Awaitable[Found[T]]]
Put = Callable[[str, dict[str, Any], Sequence[T]], Awaitable[T]]


class Upserts(Generic[Item, T]):
    """Plans upserts. Items with the same external id are done one after the other, in input order.

    *read* returns the external id and the fields of an item, *find* the resources that exist for
    some external ids; *put* updates the first of them, or creates one if there is none.
    """

    def __init__(self, read: Read[Item], find: Find[T], put: Put[T]) -> None:
        self._read = read
        self._find = find
        self._put = put
        self._last: dict[str, asyncio.Event] = {}

    def plan(self, batch: Sequence[Item]) -> list[Work[Item, T]]:
        """Return the work for each item of a batch; one request finds all of its items."""
        lookup = Lookup(self._find)
        works: list[Work[Item, T]] = []
        for item in batch:
            try:
                external_id, fields = self._read(item)
            except InputError as error:
                works.append(partial(_fail, error))
                continue
            lookup.found[external_id] = ()
            before, done = self._last.get(external_id), asyncio.Event()
            self._last[external_id] = done
            works.append(partial(self._upsert, external_id, fields, lookup, before, done))
        return works

    async def _upsert(
        self,
        external_id: str,
        fields: dict[str, Any],
        lookup: Lookup[T],
        before: asyncio.Event | None,
        done: asyncio.Event,
        _: Item,
    ) -> T:
        try:
            if before is not None:
                await before.wait()
            result = await self._put(external_id, fields, await lookup.get(external_id))
            lookup.found[external_id] = [result]
            return result
        finally:
            done.set()
            if self._last.get(external_id) is done:
                del self._last[external_id]


class Lookup(Generic[T]):
    """The resources that exist for a batch, by one request that the first item to ask makes."""

    def __init__(self, find: Find[T]) -> None:
        self._find = find
        self._answered: asyncio.Event | None = None
        self._error: Exception | None = None
        self.found: dict[str, Sequence[T]] = {}

    async def get(self, external_id: str) -> Sequence[T]:
        """Return the resources with this id; raise the error of the request if it failed."""
        if self._answered is None:
            self._answered = asyncio.Event()
            try:
                self.found |= await self._find(self.found)
            except Exception as error:
                self._error = error
            self._answered.set()
        else:
            await self._answered.wait()
        if self._error is not None:
            raise copy(self._error)  # a copy for each item, because notes are added to it
        return self.found[external_id]


async def _fail(error: InputError, _: object) -> Any:
    raise error
