"""`EventQueue`: accepted events until they are settled, all counts, and what to do when full."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import takewhile
from typing import Literal, TypeVar

import attrs

from ..core.models import FrozenMap
from ..errors import CallInfo, ClosedError, DeadlineError, OutboxFullError
from .capacity import Capacity
from .models import EventStats, Loss
from .partition import Partition, take_oldest
from .storage import (
    DeadLetter,
    DeadLimits,
    Expired,
    MemoryStorage,
    QueuedEvent,
    ReadResult,
    Replayed,
    Source,
    Storage,
    StorageSummary,
    by_source,
    wait_until_done,
    when_done,
)

WhenFull = Literal["block", "error", "drop_new", "drop_old"]

T = TypeVar("T")

logger = logging.getLogger("drift_async.events")

FREE = sys.maxsize
"""Number up to which the events of another process's file use no capacity: all of them."""

SPACE = 16_384
"""Bytes of old events, beyond the size of a new one, that may go for it on a full disk: a page of
the file is free only once all events in it are gone."""

RETRY_READ, RETRY_DISK = 1.0, 0.2
"""Seconds until a failed read, or a write to a full disk, is tried again."""


class EventQueue:
    """Accepts events, counts them, and keeps them until they are settled.

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

    # Counts

    @property
    def own(self) -> Source:
        """The client's own storage."""
        return self.sources[0]

    @property
    def pending(self) -> int:
        """Number of events that are accepted and not settled."""
        return sum([source.pending for source in self.sources])

    @property
    def dead(self) -> int:
        """Number of dead letters."""
        return sum([source.dead for source in self.sources])

    def stats(self, paused_for: float, stopped: str | None) -> EventStats:
        """Return the counts of now."""
        return EventStats(
            accepted=self.accepted,
            delivered=self.delivered,
            pending=self.pending,
            dead=self.dead,
            dropped=FrozenMap(self.dropped),
            recovered=self.recovered,
            in_flight=sum([len(partition.in_flight) for partition in self.partitions]),
            bytes=sum([source.bytes for source in self.sources]),
            undeleted=sum([source.storage.undeleted for source in self.sources]),
            paused_for=paused_for,
            stopped=stopped,
        )

    def _lose(self, reason: str, count: int, detail: str, *, is_drop: bool = True) -> None:
        """Report a loss; a drop is counted as well."""
        if is_drop:
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        try:
            if self._on_drop is not None:
                self._on_drop(Loss(reason=reason, count=count, detail=detail))
        except Exception:  # delivery must not end because of the user's callable
            logger.exception("on_drop raised")

    def _report_damage(self, source: Source) -> None:
        for detail in source.storage.take_damage():
            self._lose("damaged", 0, detail, is_drop=False)

    def _expire(self, source: Source, expired: Expired) -> None:
        for reason, count in expired.items():
            if count:
                source.dead -= count
                self._lose(reason, count, "dead letters over the limit were deleted")

    def _answered(
        self, source: Source, answer: asyncio.Future[T], then: Callable[[Source, T], object]
    ) -> asyncio.Future[T]:
        """Pass the answer of a storage on, even if its caller does not wait any longer."""

        def answered(answer: asyncio.Future[T]) -> None:
            self._report_damage(source)
            if answer.exception() is None:
                then(source, answer.result())

        when_done(answer, answered)
        return answer

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
        loop, size, freed = asyncio.get_running_loop(), len(event.body), 0
        until = loop.time() + timeout
        while self.capacity.try_reserve(size) or await self._make_capacity(size, until):
            refusal = await self._store((event,), size, until)
            if refusal is None:
                return
            if self._when_full == "error":
                raise OutboxFullError(f"the outbox's disk takes nothing ({refusal})")
            if self._when_full == "block":
                if loop.time() + RETRY_DISK > until:
                    raise OutboxFullError(f"the outbox's disk took nothing in time ({refusal})")
                await asyncio.sleep(RETRY_DISK)
                continue
            may_drop = self._when_full == "drop_old" and freed <= size + SPACE
            dropped = self._drop_oldest(size, after=0) if may_drop else 0
            if not dropped:
                break
            freed += dropped
        self.accepted += 1
        others = ": all the others are being sent, or wait on disk only"
        detail = "a new event was dropped" + (others if self._when_full == "drop_old" else "")
        self._lose("full", 1, detail)

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
            self._append(fitting, sum([len(event.body) for event in fitting]))

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
            if self._when_full == "drop_new" or not self._drop_oldest(1, self.own.free_until):
                return False
        return True

    async def _store(self, events: Sequence[QueuedEvent], size: int, until: float) -> str | None:
        """Store events for which capacity is reserved; return why the disk refuses, if it does."""
        appended = self._append(events, size)
        await wait_until_done(appended, until)
        if not appended.done():
            raise DeadlineError("the disk has not answered in time", CallInfo(operation="outbox"))
        error = appended.exception()
        return None if error is None else str(error)

    def _append(self, events: Sequence[QueuedEvent], size: int) -> asyncio.Future[None]:
        source = self.own
        try:
            appended = source.storage.append(events)
        except BaseException:
            self.capacity.release(len(events), size)
            raise
        when_done(appended, partial(self._have_stored, source, events, size))
        return appended

    def _have_stored(
        self, source: Source, events: Sequence[QueuedEvent], size: int, done: asyncio.Future[None]
    ) -> None:
        """Count stored events as accepted, even if their caller does not wait any longer."""
        self._report_damage(source)
        if done.exception() is None:
            self._accept(source, events, size)
        else:
            self.capacity.release(len(events), size)

    def _accept(self, source: Source, events: Sequence[QueuedEvent], size: int) -> None:
        self.accepted += len(events)
        source.add(len(events), size, events[-1].number)
        if source.storage.is_durable and (source.unread or source.fills_memory):
            source.unread += len(events)
            self._read_more(source)
        else:
            source.tail = source.last
            self._enqueue(source, events, size)

    def _enqueue(self, source: Source, events: Iterable[QueuedEvent], size: int) -> None:
        """Append events to their partitions."""
        source.memory_bytes += size
        for event in events:
            event.source = source
            partition = self.partitions[event.key % len(self.partitions)]
            partition.waiting.append(event)
            if len(partition.waiting) >= partition.wake_at:
                partition.wake()

    def _drop_oldest(self, size: int, after: int) -> int:
        """Drop the oldest own events that wait in memory, of *size* bytes at least if there are.

        Only events with numbers over *after* are dropped. Returns the bytes that were dropped.
        """
        dropped = take_oldest(self.partitions, self.own, size, after)
        if dropped:
            self._remove(self.own, dropped)
            self._delete(self.own, dropped)
            self._lose("full", len(dropped), "the oldest events were dropped for a new one")
        return sum([len(event.body) for event in dropped])

    # Settling

    async def settle(self, partition: Partition, events: Sequence[QueuedEvent]) -> None:
        """Count events as delivered; return when they are deleted from the storage."""
        self.delivered += len(events)
        partition.settle(events)
        deletes = []
        for source, part in by_source(events):
            self._remove(source, part)
            deletes.append(self._delete(source, part))
        for deleted in deletes:
            await wait_until_done(deleted)

    async def dead_letter(
        self, partition: Partition, events: Sequence[QueuedEvent], reason: str, status: int | None
    ) -> None:
        """Set events aside as dead letters; return when the storage has done it."""
        logger.warning("set aside %d events: %s, status %s", len(events), reason, status)
        now = self._clock()
        partition.settle(events)
        moves = [
            self._set_aside(source, [DeadLetter(event, reason, status, now) for event in part])
            for source, part in by_source(events)
        ]
        for moved in moves:
            await wait_until_done(moved)

    async def dead_letter_interrupted(self) -> None:
        """Set unrepeatable events aside whose request was cut off."""
        for partition in self.partitions:
            if partition.unrepeatable:
                events, partition.unrepeatable = partition.unrepeatable, []
                await self.dead_letter(partition, events, "unknown", None)

    def _set_aside(self, source: Source, letters: Sequence[DeadLetter]) -> asyncio.Future[Expired]:
        moved = source.storage.dead_letter(letters, self._limits(source))
        when_done(moved, partial(self._have_set_aside, source, letters))
        return moved

    def _have_set_aside(
        self, source: Source, letters: Sequence[DeadLetter], moved: asyncio.Future[Expired]
    ) -> None:
        source.dead += len(letters)
        self._remove(source, [letter.event for letter in letters])
        if moved.exception() is None:
            self._expire(source, moved.result())

    def _limits(self, source: Source) -> DeadLimits:
        """Return the limits of one storage, so that all together keep to those of the client."""
        others = self.dead - source.dead
        return attrs.evolve(self._dead_limits, count=max(0, self._dead_limits.count - others))

    def _remove(self, source: Source, events: Sequence[QueuedEvent]) -> None:
        """Count events of a source, which were in memory, as pending no longer."""
        source.remove(events)
        self.capacity.release(*source.capacity_of(events))
        self._read_more(source)
        if not source.pending and source is not self.own:
            self.file_emptied.set()

    def _delete(self, source: Source, events: Sequence[QueuedEvent]) -> asyncio.Future[None]:
        deleted = source.storage.delete([event.number for event in events])
        return self._answered(source, deleted, lambda source, nothing: None)

    # Flushing

    async def flushed(self) -> None:
        """Return once all events that are pending now are settled."""
        flushes = [source.flush() for source in self.sources]
        try:
            for flush in flushes:
                await flush.done
        finally:
            for flush in flushes:
                flush.done.cancel()

    def give_up_flushes(self) -> None:
        """Let all callers of `flushed` return, because delivery has stopped."""
        for source in self.sources:
            source.give_up_flushes()

    # Reading from a file

    def _read_more(self, source: Source) -> None:
        """Read on from the storage once memory is less than half full."""
        if (reading := source.read_more()) is not None:
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
        source.has_read(found)
        self._enqueue(source, found.events, sum([len(event.body) for event in found.events]))
        if found.damaged:
            self._have_read_damaged(source, found.damaged)
        elif not found.events:
            self._have_missed(source)
        self._read_more(source)

    def _have_read_damaged(self, source: Source, events: Sequence[QueuedEvent]) -> None:
        source.memory_bytes += sum([len(event.body) for event in events])
        now = self._clock()
        self._set_aside(source, [DeadLetter(e, "damaged", None, now, False) for e in events])
        detail = "events in the file did not match their checksum"
        logger.error("%d %s", len(events), detail)
        self._lose("damaged", len(events), detail, is_drop=False)

    def _have_missed(self, source: Source) -> None:
        """Count events as lost that were in the file when it was opened and are there no more."""
        here = [e for one in self.partitions for e in (*one.in_flight, *one.waiting)]
        missing, size = source.remove_missing([e.number for e in here if e.source is source])
        if source.tail >= source.free_until:
            self.capacity.release(missing, size)
        self._lose("damaged", missing, "events are missing in the file")

    # Dead letters

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters of all storages, oldest first."""
        letters: list[DeadLetter] = []
        for source in list(self.sources):
            found = source.storage.dead(self._limits(source))
            self._answered(source, found, lambda source, found: self._expire(source, found.expired))
            letters += (await asyncio.shield(found)).letters
        return sorted(letters, key=lambda letter: letter.died_at)

    async def replay(self) -> int:
        """Put the dead letters in line again, behind all others; return how many there were."""
        replays = []
        for source in list(self.sources):
            replayed = source.storage.replay(self._limits(source))
            replays.append(self._answered(source, replayed, self._have_replayed))
        return sum([(await asyncio.shield(replayed)).count for replayed in replays])

    def _have_replayed(self, source: Source, found: Replayed) -> None:
        self._expire(source, found.expired)
        source.dead -= found.count
        source.add(found.count, found.bytes, found.last)
        if source.free_until != FREE:
            self.capacity.add(found.count, found.bytes)
        if found.events:
            self._enqueue(source, found.events, found.bytes)
        else:
            source.unread += found.count
            self._read_more(source)

    # From one loop or file to the next

    def begin(self, storage: Storage, summary: StorageSummary, *, is_shared: bool) -> None:
        """Start with the contents of the client's own file, in the running loop.

        In an outbox directory (*is_shared*) events that are found use none of the capacity.
        """
        self.rebind()
        self.partitions = [Partition() for _ in self.partitions]
        self.accepted = self.delivered + sum(self.dropped.values())
        self.recovered = 0
        self.sources = []
        own = self._add_source(storage, summary, summary.last if is_shared else 0)
        self.capacity.begin(*((0, 0) if is_shared else (own.pending, own.bytes)))

    def _add_source(self, storage: Storage, summary: StorageSummary, free_until: int) -> Source:
        source = Source(storage, free_until=free_until)
        source.begin(summary)
        self.sources.append(source)
        self.accepted += source.pending + source.dead
        self.recovered += source.pending
        self._report_damage(source)
        self._expire(source, summary.expired)
        self._read_more(source)
        return source

    async def adopt(self) -> None:
        """Open the next file that an ended process left behind, if there is one.

        It is delivered in place, which keeps the order of its users. The file before it must be
        delivered by then; a file without events and dead letters is closed, which removes it.
        """
        self.file_emptied.clear()
        for source in self.sources[1:]:
            if not source.pending and not source.dead:
                self.sources.remove(source)
                await source.storage.close()
        if any(source.pending for source in self.sources[1:]):
            return
        if (found := await self.own.storage.adopt(self._limits(self.own))) is not None:
            self._add_source(*found, FREE)

    async def close(self) -> None:
        """Close all storages."""
        for source in reversed(self.sources):
            await source.storage.close()
            self._report_damage(source)
        if undeleted := sum([source.storage.undeleted for source in self.sources]):
            why = "its disk is full, and they will be sent again"
            logger.error("closed with %d delivered events still in the outbox: %s", undeleted, why)

    def rebind(self) -> None:
        """Requeue what was in flight in a loop that has ended, and forget the callers there."""
        self.partitions = [partition.rebind() for partition in self.partitions]
        self.file_emptied = asyncio.Event()
        self.own.reading = None
        self.own.flushes.clear()
        self.capacity.begin(self.own.pending, self.own.bytes)
