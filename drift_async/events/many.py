"""Accepting many events: those that wait for a disk go there in large pieces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TypeVar

from ..core.bulk import IndexedBatch, Items
from ..errors import ClosedError, InputError
from .lanes import Row
from .outbox import Outbox

PIECES = (512, 1024, 2048)
"""Events that are given to the disk together: the more, the longer it is at those before."""

BREATH = 100
"""Events to accept before other tasks have a turn."""

T = TypeVar("T")


async def accept_many(
    outbox: Outbox,
    items: Items[T],
    row_of: Callable[[T], Row],
    check_open: Callable[[], None],
    timeout: float,
) -> int:
    """Accept what *row_of* makes of the items, one after another; return how many.

    *timeout* is for each piece. An error leaves those before it accepted; a cancellation those for
    which there is room.
    """
    count = first = items.first if isinstance(items, IndexedBatch) else 0
    check_open()
    is_async = isinstance(items, AsyncIterable)
    line = _Line(outbox, timeout, goes_on=is_async)
    try:
        async for item in _each(items):
            if is_async:
                check_open()  # time has passed
                line.check()
            try:
                row = row_of(item)
            except InputError as error:
                raise InputError(f"items[{count}].{error.field}", error.limit) from None
            count += 1
            if line.rows or not line.keeping.done() or not outbox.offer(row):
                line.rows.append(row)
                if is_async and len(line.rows) == 1:
                    line.go_soon()
            waiting = len(line.rows)
            if waiting in PIECES and (line.keeping.done() or waiting == PIECES[-1]):
                await line.go()
                check_open()
            elif not count % BREATH:
                await asyncio.sleep(0)  # the loop has other work too
                check_open()
        await line.end(check_open)
    except asyncio.CancelledError:
        with contextlib.suppress(ClosedError):
            check_open()
            outbox.put_now(line.rows)
        line.keeping.cancel()
        raise
    except Exception:  # of the items, whatever it is: those before it are accepted all the same
        await line.end(check_open)
        raise
    finally:
        line.rows = []
    return count - first


class _Line:
    """Events that wait for a disk, or for room: while some are being kept, the next gather.

    If it ``goes_on``, these follow whenever the loop has a turn: when their source does not answer
    at once, which it may never do again.
    """

    def __init__(self, outbox: Outbox, timeout: float, *, goes_on: bool) -> None:
        self.rows: list[Row] = []
        self.keeping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.keeping.set_result(None)
        self._outbox = outbox
        self._timeout = timeout
        self._goes_on = goes_on

    def check(self) -> None:
        """Raise what went wrong with those that were given away, if that is known yet."""
        if self.keeping.done():
            self.keeping.result()

    def go_soon(self) -> None:
        """Give away what there is when the loop has a turn, or after those before."""
        asyncio.get_running_loop().call_soon(self._follow, self.keeping)

    def _follow(self, before: asyncio.Future[None]) -> None:
        is_free = before.done() and not before.cancelled() and before.exception() is None
        if self.rows and is_free and before is self.keeping:
            self._give()

    def _give(self) -> None:
        rows, self.rows = self.rows, []
        self.keeping = asyncio.ensure_future(self._outbox.put_many(rows, self._timeout))
        if self._goes_on:
            self.keeping.add_done_callback(self._follow)

    async def go(self) -> None:
        """Give away what there is, after those before; return when the disk is at work on it."""
        await self.keeping
        if self.rows:  # else they have gone on by themselves
            # While these are being kept, the next are made.
            self._give()
        await asyncio.sleep(0)  # they are on their way now
        store = self._outbox.store
        if store.is_durable:
            await asyncio.wait([self.keeping, store.taken()], return_when=asyncio.FIRST_COMPLETED)

    async def end(self, check_open: Callable[[], None]) -> None:
        """Return when all of them are kept; raise if the client was closed before that."""
        before = None
        while before is not self.keeping:  # another may have followed
            before = self.keeping
            await before
        if self.rows:
            check_open()
            rows, self.rows = self.rows, []
            await self._outbox.put_many(rows, self._timeout)


async def _each(items: Items[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    elif isinstance(items, Iterable):
        for item in items:
            yield item
    else:
        raise InputError("items", "must be an iterable")
