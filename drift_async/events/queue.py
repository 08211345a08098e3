"""`EventQueue`: accepting events, all counters, and what happens when there is no capacity.

All of it runs in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Literal, TypeVar

import attrs

from ..errors import ClosedError, DeadlineError, OutboxFullError
from .capacity import Capacity
from .models import Loss
from .partition import Partition
from .storage import (
    DeadLetter,
    DeadLetters,
    DeadLimits,
    MemoryStorage,
    QueuedEvent,
    ReadResult,
    Replayed,
    Source,
    Storage,
    StorageSummary,
)

T = TypeVar("T")

logger = logging.getLogger("drift_async.events")

WhenFull = Literal["block", "error", "drop_new", "drop_old"]

MEMORY_EVENTS = 20_000
MEMORY_BYTES = 16 * 1024 * 1024
"""How much of a file is in memory at the same time, about."""

SPACE = 16_384
"""Bytes of old events, beyond the size of a new one, that may go for it on a full disk: a page of
the file is free only once all events in it are gone."""

RETRY_DISK = 0.2
"""Seconds between two tries to write to a full disk."""

RETRY_READ = 1.0
"""Seconds until a failed read is tried again."""


@attrs.define(eq=False, repr=False)
class _Flush:
    """A caller that waits for the events of each source up to a number: how many are left."""

    done: asyncio.Future[None]
    marks: dict[Source, int]
    left: dict[Source, int]

    def settle(self, source: Source, count: int) -> None:
        if source in self.left:
            self.left[source] -= count
            if max(self.left.values()) <= 0 and not self.done.done():
                self.done.set_result(None)


class EventQueue:
    """Accepts events into partitions and a storage, and counts them until they are settled.

    ``accepted == delivered + pending + dead + sum(dropped.values())`` holds at every moment: the
    sides change together, without an await in between.
    """

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
        self.partitions = [Partition() for _ in range(partitions)]
        self.capacity = Capacity(max_events, max_bytes)
        self.sources = [Source(MemoryStorage(clock))]
        """The client's own storage, and files of ended processes."""
        self.accepted = self.delivered = self.recovered = 0
        self.dropped: dict[str, int] = {}
        self.file_emptied = asyncio.Event()
        """Set when the last event of another process's file is settled."""
        self._when_full = when_full
        self._dead_limits = dead_limits
        self._on_drop = on_drop
        self._clock = clock
        self._flushes: set[_Flush] = set()

    @property
    def own(self) -> Source:
        """The client's own storage."""
        return self.sources[0]

    @property
    def pending(self) -> int:
        """Number of events that are accepted and not settled."""
        return sum([source.pending for source in self.sources])

    @property
    def bytes(self) -> int:
        """Bytes of the pending events."""
        return sum([source.bytes for source in self.sources])

    @property
    def dead(self) -> int:
        """Number of dead letters."""
        return sum([source.dead for source in self.sources])

    @property
    def undeleted(self) -> int:
        """Number of settled events that are still in a file, because its disk is full."""
        return sum([source.undeleted for source in self.sources])

    @property
    def in_flight(self) -> int:
        """Number of events that requests are carrying."""
        return sum([len(partition.in_flight) for partition in self.partitions])

    # Accepting

    def put_nowait(self, event: QueuedEvent) -> bool:
        """Accept an event at once; return False if it has to wait for capacity or a disk."""
        source, size = self.own, len(event.body)
        if source.storage.is_durable or not self.capacity.try_reserve(size):
            return False
        source.storage.append_nowait(event)
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
        stored: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._append(events, size, stored)
        if stored.done():
            return stored.result()
        try:
            async with asyncio.timeout_at(until):
                return await stored
        except TimeoutError:
            pass
        raise DeadlineError("the disk has not answered in time", operation="outbox")

    def _append(
        self, events: Sequence[QueuedEvent], size: int, stored: asyncio.Future[str | None] | None
    ) -> None:
        source = self.own
        try:
            appended = source.storage.append(events)
        except BaseException:
            self.capacity.release(len(events), size)
            raise
        _when_done(appended, partial(self._have_stored, source, events, size, stored))

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

    def _accept(self, source: Source, events: Sequence[QueuedEvent], size: int) -> None:
        self.accepted += len(events)
        source.pending += len(events)
        source.bytes += size
        source.last = events[-1].number
        if (
            source.unread
            or source.memory_bytes > MEMORY_BYTES
            or self._in_memory(source)
            > (MEMORY_EVENTS if source.storage.is_durable else source.pending)
        ):
            source.unread += len(events)
            self._read_more(source)
        else:
            source.tail = source.last
            self._enqueue(source, events, size)

    def _enqueue(self, source: Source, events: Iterable[QueuedEvent], size: int) -> None:
        """Append events to their partitions."""
        source.memory_bytes += size
        partitions, count = self.partitions, len(self.partitions)
        for event in events:
            event.source = source
            partition = partitions[event.key % count]
            partition.waiting.append(event)
            if len(partition.waiting) >= partition.wake_at:
                partition.wake()

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

    def lose(self, reason: str, count: int, detail: str) -> None:
        """Count events as dropped, and report the loss."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        self._report(Loss(reason=reason, count=count, detail=detail))

    def _report(self, loss: Loss) -> None:
        if self._on_drop is not None:
            try:
                self._on_drop(loss)
            except Exception:  # delivery must not end because of the user's callable
                logger.exception("on_drop raised")

    def _report_damage(self, source: Source) -> None:
        for detail in source.storage.take_damage():
            self._report(Loss(reason="damaged", count=0, detail=detail))

    # Settling

    async def settle(self, partition: Partition, events: Sequence[QueuedEvent]) -> None:
        """Count events as delivered; return when they are deleted from the storage."""
        self.delivered += len(events)
        partition.settle(events)
        for source, part in _by_source(events):
            self._remove(source, part)
            deleted = self._delete(source, part)
            if deleted is not None:
                await asyncio.wait([deleted])  # a worker that is cancelled must not cancel it

    async def dead_letter(
        self,
        partition: Partition,
        events: Sequence[QueuedEvent],
        reason: str,
        status: int | None = None,
    ) -> None:
        """Set events aside as dead letters; the oldest of these are deleted if there are too many.

        Returns when the storage has done it.
        """
        logger.warning("set aside %d events: %s, status %s", len(events), reason, status)
        now = self._clock()
        partition.settle(events)
        moves = [
            self._set_aside(source, [DeadLetter(event, reason, status, now) for event in part])
            for source, part in _by_source(events)
        ]
        for moved in moves:
            await asyncio.wait([moved])

    def _set_aside(
        self, source: Source, letters: Sequence[DeadLetter]
    ) -> asyncio.Future[Mapping[str, int]]:
        moved = source.storage.dead_letter(letters, self._limits(source))
        _when_done(moved, partial(self._have_set_aside, source, letters))
        return moved

    def _have_set_aside(
        self,
        source: Source,
        letters: Sequence[DeadLetter],
        moved: asyncio.Future[Mapping[str, int]],
    ) -> None:
        source.dead += len(letters)
        self._remove(source, [letter.event for letter in letters])
        if moved.exception() is None:
            self._expire(source, moved.result())

    def _expire(self, source: Source, expired: Mapping[str, int]) -> None:
        for reason, count in expired.items():
            if count:
                source.dead -= count
                self.lose(reason, count, "dead letters over the limit were deleted")

    def _limits(self, source: Source) -> DeadLimits:
        """Return the limits of one storage, so that all together keep to those of the client."""
        others = self.dead - source.dead
        return attrs.evolve(self._dead_limits, count=max(0, self._dead_limits.count - others))

    async def dead_letter_interrupted(self) -> None:
        """Set unrepeatable events aside whose request was cut off."""
        for partition in self.partitions:
            if partition.unrepeatable:
                events, partition.unrepeatable = partition.unrepeatable, []
                await self.dead_letter(partition, events, "unknown")

    def _remove(self, source: Source, events: Sequence[QueuedEvent]) -> None:
        """Count events of a source, which were in memory, as pending no longer."""
        size = sum([len(event.body) for event in events])
        source.pending -= len(events)
        source.bytes -= size
        source.memory_bytes -= size
        used = events
        if source.free_until:
            used = [event for event in events if event.number > source.free_until]
        self.capacity.release(len(used), sum([len(event.body) for event in used]))
        for flush in self._flushes:
            mark = flush.marks.get(source, 0)
            flush.settle(source, sum([event.number <= mark for event in events]))
        if source.unread:
            self._read_more(source)
        if not source.pending and source is not self.own:
            self.file_emptied.set()

    def _delete(self, source: Source, events: Sequence[QueuedEvent]) -> asyncio.Future[int] | None:
        if not source.storage.is_durable:
            return None
        deleted = source.storage.delete([event.number for event in events])
        deleted.add_done_callback(partial(self._have_deleted, source))
        return deleted

    def _have_deleted(self, source: Source, deleted: asyncio.Future[int]) -> None:
        self._report_damage(source)
        if deleted.exception() is None:
            source.undeleted = deleted.result()

    # Flushing

    async def flushed(self) -> None:
        """Return once all that is pending now is settled."""
        waiting = [source for source in self.sources if source.pending]
        if waiting:
            flush = _Flush(
                asyncio.get_running_loop().create_future(),
                {source: source.last for source in waiting},
                {source: source.pending for source in waiting},
            )
            self._flushes.add(flush)
            try:
                await flush.done
            finally:
                self._flushes.discard(flush)

    def give_up_flushes(self) -> None:
        """Let all callers of `flushed` return, because delivery has stopped."""
        for flush in self._flushes:
            for source, left in flush.left.items():
                flush.settle(source, left)

    def wake(self) -> None:
        """Have all workers look again."""
        for partition in self.partitions:
            partition.wake()

    # Reading back

    def _in_memory(self, source: Source) -> int:
        return source.pending - source.unread

    def _read_more(self, source: Source) -> None:
        """Read on from the storage once less than half of what may be is in memory."""
        in_memory = self._in_memory(source)
        if source.reading is None and source.unread > 0 and in_memory < max(1, MEMORY_EVENTS // 2):
            reading = source.storage.read(source.tail, MEMORY_EVENTS - in_memory, MEMORY_BYTES)
            source.reading = reading
            reading.add_done_callback(partial(self._have_read, source))

    def _have_read(self, source: Source, reading: asyncio.Future[ReadResult]) -> None:
        if reading is not source.reading:
            return  # of an ended loop
        source.reading = None
        self._report_damage(source)
        if (error := reading.exception()) is not None:
            if not isinstance(error, ClosedError):
                logger.warning("the outbox cannot be read, it is tried again: %s", error)
                reading.get_loop().call_later(RETRY_READ, self._read_more, source)
            return
        found = reading.result()
        source.unread -= len(found.events) + len(found.damaged)
        for events in (found.events, found.damaged):
            source.tail = max(source.tail, events[-1].number) if events else source.tail
        self._enqueue(source, found.events, sum([len(event.body) for event in found.events]))
        if found.damaged:
            self._have_read_damaged(source, found.damaged)
        elif not found.events:
            self._have_missed(source)
        self._read_more(source)

    def _have_read_damaged(self, source: Source, events: Sequence[QueuedEvent]) -> None:
        logger.error("%d events did not match their checksum", len(events))
        source.memory_bytes += sum([len(event.body) for event in events])
        now = self._clock()
        self._set_aside(source, [DeadLetter(e, "damaged", None, now, False) for e in events])
        detail = "events in the file did not match their checksum"
        self._report(Loss(reason="damaged", count=len(events), detail=detail))

    def _have_missed(self, source: Source) -> None:
        """Count events as lost that were in the file when it was opened and are there no more."""
        here = [
            event
            for partition in self.partitions
            for event in (*partition.in_flight, *partition.waiting)
            if event.source is source
        ]
        missing, source.unread = source.unread, 0
        lost_bytes = source.bytes - source.memory_bytes
        source.pending -= missing
        source.bytes -= lost_bytes
        if not source.free_until:
            self.capacity.release(missing, lost_bytes)
        for flush in self._flushes:
            still = sum([event.number <= flush.marks.get(source, 0) for event in here])
            flush.settle(source, flush.left.get(source, 0) - still)
        self.lose("damaged", missing, "events are missing in the file")

    # Dead letters

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters of all storages, oldest first."""
        letters: list[DeadLetter] = []
        for source in list(self.sources):
            found = source.storage.dead(self._limits(source))
            _when_done(found, partial(self._have_read_dead, source))
            letters += (await asyncio.shield(found)).letters
        return sorted(letters, key=lambda letter: letter.died_at)

    def _have_read_dead(self, source: Source, found: asyncio.Future[DeadLetters]) -> None:
        if found.exception() is None:
            self._expire(source, found.result().expired)

    async def replay(self) -> int:
        """Put the dead letters in line again, behind all others; return how many there were."""
        counts = []
        for source in list(self.sources):
            replayed = source.storage.replay(self._limits(source))
            moved = asyncio.get_running_loop().create_future()
            _when_done(replayed, partial(self._have_replayed, source, moved))
            counts.append(moved)
        return sum([await count for count in counts])

    def _have_replayed(
        self, source: Source, moved: asyncio.Future[int], replayed: asyncio.Future[Replayed]
    ) -> None:
        """Count replayed events as pending, even if their caller does not wait any longer."""
        self._report_damage(source)
        if (error := replayed.exception()) is not None:
            if not moved.done():
                moved.set_exception(error)
            return
        found = replayed.result()
        self._expire(source, found.expired)
        source.dead -= found.count
        source.pending += found.count
        source.bytes += found.bytes
        if source.free_until == 0 or source is self.own:
            self.capacity.add(found.count, found.bytes)
        source.last = max(source.last, found.last)
        if found.events:
            self._enqueue(source, found.events, found.bytes)
        else:
            source.unread += found.count
            self._read_more(source)
        if not moved.done():
            moved.set_result(found.count)

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
        used = (0, 0) if is_shared else (own.pending, own.bytes)
        self.capacity.begin(*used)

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
            source.free_until = 1 << 62
        return found is not None

    def _add_source(self, storage: Storage, summary: StorageSummary) -> Source:
        source = Source(storage, summary.last)
        source.pending = source.unread = summary.pending
        source.bytes, source.dead = summary.bytes, summary.dead
        self.sources.append(source)
        self.accepted += summary.pending + summary.dead
        self.recovered += summary.pending
        self.accepted += sum(summary.expired.values())
        source.dead += sum(summary.expired.values())
        self._report_damage(source)
        self._expire(source, summary.expired)
        self._read_more(source)
        return source

    async def close(self) -> None:
        """Close all storages, each of them whatever happens to the others."""
        for source in reversed(self.sources):
            with contextlib.suppress(OSError):
                source.undeleted = await source.storage.close()
            self._report_damage(source)
        if self.undeleted:
            logger.error(
                "closed with %d delivered events still in the outbox, whose disk is full: "
                "they will be sent again",
                self.undeleted,
            )

    def rebind(self) -> None:
        """Take back what was in flight in a loop that has ended, and forget who waited there."""
        self.partitions = [partition.rebind() for partition in self.partitions]
        self._flushes.clear()
        self.file_emptied = asyncio.Event()
        own = self.own
        own.reading = None
        self.capacity.begin(*((own.pending, own.bytes) if not own.storage.is_durable else (0, 0)))


def _when_done(future: asyncio.Future[T], then: Callable[[asyncio.Future[T]], None]) -> None:
    """Call *then* with a future that is done: now, or from the loop, whoever has asked for it."""
    if future.done():
        then(future)
    else:
        future.add_done_callback(then)


def _by_source(events: Sequence[QueuedEvent]) -> list[tuple[Source, Sequence[QueuedEvent]]]:
    """Group the events of a batch by their storage; mostly it is one."""
    groups: defaultdict[Source, list[QueuedEvent]] = defaultdict(list)
    for event in events:
        assert event.source is not None
        groups[event.source].append(event)
    return list(groups.items())


async def _wait_for_disk(refusal: str, until: float) -> None:
    """Wait until the next try to write, or raise if there is no time for it."""
    if asyncio.get_running_loop().time() + RETRY_DISK > until:
        raise OutboxFullError(f"the outbox's disk took nothing in time ({refusal})")
    await asyncio.sleep(RETRY_DISK)
