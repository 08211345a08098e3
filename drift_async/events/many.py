"""Accepting many events: those that wait for a disk go there in large pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TypeVar

from ..core.batch import Chunk, Items
from ..errors import InputError
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

    *timeout* is for each piece. An error leaves those before it accepted.
    """
    count = first = items.first if isinstance(items, Chunk) else 0
    waiting: list[Row] = []  # for a disk, or for room: these go together
    keeping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    keeping.set_result(None)
    check_open()
    is_async = isinstance(items, AsyncIterable)
    try:
        async for item in _each(items):
            if is_async:
                check_open()  # time has passed
            try:
                row = row_of(item)
            except InputError as error:
                raise InputError(f"items[{count}].{error.field}", error.limit) from None
            count += 1
            if waiting or not keeping.done() or not outbox.offer(row):
                waiting.append(row)
            if len(waiting) in PIECES and (keeping.done() or len(waiting) == PIECES[-1]):
                await keeping
                # While these are being kept, the next are made.
                keeping = asyncio.ensure_future(outbox.put_many(waiting, timeout))
                waiting = []
                await asyncio.sleep(0)  # they are on their way now
                if outbox.store.is_durable:
                    taken = outbox.store.taken()
                    await asyncio.wait([keeping, taken], return_when=asyncio.FIRST_COMPLETED)
                check_open()
            elif not count % BREATH:
                await asyncio.sleep(0)  # the loop has other work too
                check_open()
    except asyncio.CancelledError:
        keeping.cancel()
        raise
    except Exception:  # of the items, whatever it is: those before it are accepted all the same
        await keeping
        await outbox.put_many(waiting, timeout)
        raise
    await keeping
    await outbox.put_many(waiting, timeout)
    return count - first


async def _each(items: Items[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    elif isinstance(items, Iterable):
        for item in items:
            yield item
    else:
        raise InputError("items", "must be an iterable")
