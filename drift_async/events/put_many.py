"""Accepting many events: they go to the queue in pieces, one piece at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TypeVar

from ..core.batch import Chunk, Items
from ..errors import ClosedError, InputError
from .queue import EventQueue
from .storage import QueuedEvent

PIECE = 1024
"""Events that may wait for the piece before them; then their source waits too."""

YIELD_EVERY = 100
"""Events after which other tasks have a turn."""

T = TypeVar("T")


async def put_many(
    queue: EventQueue,
    items: Items[T],
    encode: Callable[[T], QueuedEvent],
    check_open: Callable[[], None],
    timeout: float,
) -> int:
    """Encode and accept the items, one after another; return how many.

    *timeout* is for each piece. An error leaves the events before it accepted; a cancellation
    leaves those accepted for which there is capacity.
    """
    count = first = items.first if isinstance(items, Chunk) else 0
    check_open()
    writer = _Writer(queue, timeout)
    try:
        async for item in _each(items):
            writer.check()
            check_open()
            try:
                event = encode(item)
            except InputError as error:
                raise InputError(f"items[{count}].{error.field}", error.limit) from None
            count += 1
            writer.add(event)
            if len(writer.piece) >= PIECE:
                await writer.finish()
            elif not count % YIELD_EVERY:
                await asyncio.sleep(0)
        await writer.finish()
    except asyncio.CancelledError:
        with contextlib.suppress(ClosedError):
            check_open()
            queue.put_what_fits(writer.piece)
        raise
    except Exception:  # of the items, whatever it is: those before it are accepted all the same
        await writer.finish()
        raise
    finally:
        writer.cancel()
    return count - first


class _Writer:
    """A task that hands events to the queue while their source gives the next ones.

    It does not wait for a full piece: the source may never give another event.
    """

    def __init__(self, queue: EventQueue, timeout: float) -> None:
        self.piece: list[QueuedEvent] = []
        self._queue = queue
        self._timeout = timeout
        self._task: asyncio.Task[None] | None = None

    def add(self, event: QueuedEvent) -> None:
        """Hand on an event with the next piece."""
        self.piece.append(event)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self.piece:
            piece, self.piece = self.piece, []
            await self._queue.put_many(piece, self._timeout)

    def check(self) -> None:
        """Raise the error of an earlier piece."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def finish(self) -> None:
        """Return when all events are accepted."""
        if self._task is not None:
            await self._task

    def cancel(self) -> None:
        """End the task; events that are on their way to a disk arrive there."""
        self.piece = []
        if self._task is not None:
            self._task.cancel()


async def _each(items: Items[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    elif isinstance(items, Iterable):
        for item in items:
            yield item
    else:
        raise InputError("items", "must be an iterable")
