"""`EventQueue`: accepting events, and what happens when there is no capacity.

All of it runs in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from itertools import takewhile
from typing import Literal, TypeVar

from ..core.bulk import IndexedBatch, Items
from ..errors import CallInfo, ClosedError, DeadlineError, InputError, OutboxFullError
from .backlog import FREE, Backlog, logger, when_done
from .models import Loss
from .partition import Partition
from .storage import DeadLimits, QueuedEvent, Source, Storage, StorageSummary

WhenFull = Literal["block", "error", "drop_new", "drop_old"]

SPACE = 16_384
"""Bytes of old events, beyond the size of a new one, that may go for it on a full disk: a page of
the file is free only once all events in it are gone."""

PIECE = 1024
"""Events that may wait for the piece before them; then their source waits too."""

YIELD_EVERY = 100
"""Events after which other tasks have a turn."""

RETRY_DISK = 0.2
"""Seconds between two tries to write to a full disk."""


T = TypeVar("T")


class EventQueue(Backlog):
    """Accepts events into the backlog: at once, or as ``when_full`` says."""

    def __init__(
        self,
        partitions: int,
        max_events: int,
        max_bytes: int,
        when_full: WhenFull,
        dead_limits: DeadLimits,
        on_drop: Callable[[Loss], object] | None,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(partitions, max_events, max_bytes, dead_limits, on_drop, clock)
        self._when_full = when_full

    # Accepting

    def put_nowait(self, event: QueuedEvent) -> bool:
        """Accept an event at once; return False if it has to wait for capacity or a disk."""
        source, size = self.own, len(event.body)
        if source.storage.is_durable or not self.capacity.try_reserve(size):
            return False
        source.storage.append((event,))  # in memory it is done at once
        self._accept(source, (event,), size)
        return True

    async def put(self, event: QueuedEvent, timeout: float) -> None:
        """Accept an event as ``when_full`` says; return when it is in memory, or on disk.

        Raises `OutboxFullError`; ``block`` waits for at most *timeout* seconds.
        """
        size, freed = len(event.body), 0
        until = asyncio.get_running_loop().time() + timeout
        while self.capacity.try_reserve(size) or await self._make_capacity(size, until):
            refusal = await self._store((event,), size, until)
            if refusal is None:
                return
            if self._when_full == "error":
                raise OutboxFullError(f"the outbox's disk takes nothing ({refusal})")
            if self._when_full == "block":
                await _wait_for_disk(refusal, until)
                continue
            may_drop = self._when_full == "drop_old" and freed <= size + SPACE
            dropped = self._drop_oldest(size) if may_drop else 0
            if not dropped:
                break
            freed += dropped
        self._drop_new()

    async def put_many(self, events: Sequence[QueuedEvent], timeout: float) -> None:
        """Accept events as `put` does, in pieces as large as there is capacity for."""
        loop, pieces = asyncio.get_running_loop(), [events] if events else []
        while pieces:
            piece = pieces.pop()
            if len(piece) == 1:
                await self.put(piece[0], timeout)
                continue
            size = sum([len(event.body) for event in piece])
            has_capacity = self.capacity.try_reserve(size, len(piece))
            if has_capacity and not await self._store(piece, size, loop.time() + timeout):
                continue
            half = len(piece) // 2
            pieces += [piece[half:], piece[:half]]

    def put_what_fits(self, events: Sequence[QueuedEvent]) -> None:
        """Accept the first events, as many as there is capacity for, without waiting for a disk."""
        fitting = list(takewhile(lambda e: self.capacity.try_reserve(len(e.body)), events))
        if fitting:
            self._append(fitting, sum([len(event.body) for event in fitting]), None)

    async def _make_capacity(self, size: int, until: float) -> bool:
        """Reserve capacity for a new event; return False if the new event is to be dropped."""
        full = f"the outbox is full: {self.pending} events wait"
        if self._when_full == "error":
            raise OutboxFullError(full)
        if self._when_full == "block":
            try:
                await self.capacity.reserve(size, until)
            except TimeoutError:
                raise OutboxFullError(full) from None
            return True
        while not self.capacity.try_reserve(size):
            if self._when_full == "drop_new" or not self._drop_oldest(1, of_capacity=True):
                return False
        return True

    async def _store(self, events: Sequence[QueuedEvent], size: int, until: float) -> str | None:
        """Store events for which capacity is reserved; return why the disk refuses, if it does."""
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[str | None] = loop.create_future()
        self._append(events, size, stored)
        timer = None if stored.done() else loop.call_at(until, _give_up, stored)
        try:
            return await stored
        finally:
            if timer is not None:
                timer.cancel()

    def _append(
        self, events: Sequence[QueuedEvent], size: int, stored: asyncio.Future[str | None] | None
    ) -> None:
        source = self.own
        try:
            appended = source.storage.append(events)
        except BaseException:
            self.capacity.release(len(events), size)
            raise
        when_done(appended, partial(self._have_stored, source, events, size, stored))

    def _have_stored(
        self,
        source: Source,
        events: Sequence[QueuedEvent],
        size: int,
        stored: asyncio.Future[str | None] | None,
        appended: asyncio.Future[None],
    ) -> None:
        """Count stored events as accepted, even if their caller does not wait any longer."""
        self._report_damage(source)
        error = appended.exception()
        if error is None:
            self._accept(source, events, size)
        else:
            self.capacity.release(len(events), size)
        if stored is not None and not stored.done():
            stored.set_result(None if error is None else str(error))

    # Dropping

    def _drop_oldest(self, size: int, *, of_capacity: bool = False) -> int:
        """Drop the oldest own events that wait in memory, of *size* bytes at least if there are.

        With *of_capacity*, only events that use capacity. Returns the bytes that were dropped.
        """
        freed, own = 0, self.own
        least = own.free_until if of_capacity else -1
        dropped: list[QueuedEvent] = []
        while freed < size:
            oldest: tuple[QueuedEvent, Partition] | None = None
            for partition in self.partitions:
                for event in partition.waiting:
                    if event.source is own and event.number > least:
                        if oldest is None or event.number < oldest[0].number:
                            oldest = event, partition
                        break
            if oldest is None:
                break
            oldest[1].waiting.remove(oldest[0])
            dropped.append(oldest[0])
            freed += len(oldest[0].body)
        if dropped:
            self._remove(own, dropped)
            self._delete(own, dropped)
            self.lose("full", len(dropped), "the oldest events were dropped for a new one")
        return freed

    def _drop_new(self) -> None:
        self.accepted += 1
        detail = "a new event was dropped"
        if self._when_full == "drop_old":
            detail += ": all the others are being sent, or wait on disk only"
        self.lose("full", 1, detail)

    # From one loop or file to the next

    def begin(self, storage: Storage, summary: StorageSummary, *, is_shared: bool) -> None:
        """Start with the contents of the client's own file, in the running loop.

        In an outbox directory (*is_shared*) events that are found use none of the capacity.
        """
        self.rebind()
        for partition in self.partitions:
            partition.waiting.clear()
        self.accepted = self.delivered + sum(self.dropped.values())
        self.recovered = 0
        self.sources = []
        own = self._add_source(storage, summary)
        own.free_until = summary.last if is_shared else 0
        self.capacity.begin(*((0, 0) if is_shared else (own.pending, own.bytes)))

    async def adopt(self) -> bool:
        """Open the next file that an ended process left behind; return whether there was one.

        It is delivered in place, which keeps the order of its users. The file before it must be
        delivered by then; a file without events and dead letters is closed, which removes it.
        """
        self.file_emptied.clear()
        for source in self.sources[1:]:
            if not source.pending and not source.dead:
                self.sources.remove(source)
                await source.storage.close()
        if any(source.pending for source in self.sources[1:]):
            return False
        found = await self.own.storage.adopt(self._limits(self.own))
        if found is not None:
            source = self._add_source(*found)
            source.free_until = FREE
        return found is not None

    async def close(self) -> None:
        """Close all storages, each of them whatever happens to the others."""
        for source in reversed(self.sources):
            with contextlib.suppress(OSError):
                source.undeleted = await source.storage.close()
            self._report_damage(source)
        if undeleted := sum([source.undeleted for source in self.sources]):
            logger.error(
                "closed with %d delivered events still in the outbox, whose disk is full: "
                "they will be sent again",
                undeleted,
            )


def _give_up(stored: asyncio.Future[str | None]) -> None:
    if not stored.done():
        late = DeadlineError("the disk has not answered in time", CallInfo(operation="outbox"))
        stored.set_exception(late)


async def _wait_for_disk(refusal: str, until: float) -> None:
    """Wait until the next try to write, or raise if there is no time for it."""
    if asyncio.get_running_loop().time() + RETRY_DISK > until:
        raise OutboxFullError(f"the outbox's disk took nothing in time ({refusal})")
    await asyncio.sleep(RETRY_DISK)


async def put_all(
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
    count = first = items.first if isinstance(items, IndexedBatch) else 0
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
        if self._task is not None and not self._task.cancel() and not self._task.cancelled():
            self._task.exception()  # seen: the source's own error, or cancellation, goes first


async def _each(items: Items[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    elif isinstance(items, Iterable):
        for item in items:
            yield item
    else:
        raise InputError("items", "must be an iterable")
