"""`Backlog`: accepted events until they are settled, and all counters."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import attrs

from ..core.models import FrozenMap
from ..errors import ClosedError
from .capacity import Capacity
from .models import EventStats, Loss
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

MEMORY_EVENTS = 20_000
MEMORY_BYTES = 16 * 1024 * 1024
"""How much of a file is in memory at the same time, about."""

FREE = sys.maxsize
"""Number up to which the events of another process's file use no capacity: all of them."""

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


class Backlog:
    """Counts accepted events, and keeps them in partitions and storages until they are settled.

    ``accepted == delivered + pending + dead + sum(dropped.values())`` holds at every moment: the
    sides change together, without an await in between.
    """

    def __init__(
        self,
        partitions: int,
        max_events: int,
        max_bytes: int,
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
            undeleted=sum([source.undeleted for source in self.sources]),
            paused_for=paused_for,
            stopped=stopped,
        )

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

    # Accepted events

    def _accept(self, source: Source, events: Sequence[QueuedEvent], size: int) -> None:
        self.accepted += len(events)
        source.pending += len(events)
        source.bytes += size
        source.last = events[-1].number
        is_full = source.in_memory > MEMORY_EVENTS or source.memory_bytes > MEMORY_BYTES
        if source.storage.is_durable and (source.unread or is_full):
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

    # Settling

    async def settle(self, partition: Partition, events: Sequence[QueuedEvent]) -> None:
        """Count events as delivered; return when they are deleted from the storage."""
        self.delivered += len(events)
        partition.settle(events)
        for source, part in _by_source(events):
            self._remove(source, part)
            if source.storage.is_durable:
                # Not awaited itself: a worker that is cancelled would cancel it.
                await asyncio.wait([self._delete(source, part)])

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
        when_done(moved, partial(self._have_set_aside, source, letters))
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

    def _delete(self, source: Source, events: Sequence[QueuedEvent]) -> asyncio.Future[int]:
        deleted = source.storage.delete([event.number for event in events])
        deleted.add_done_callback(partial(self._have_deleted, source))
        return deleted

    def _have_deleted(self, source: Source, deleted: asyncio.Future[int]) -> None:
        self._report_damage(source)
        if deleted.exception() is None:
            source.undeleted = deleted.result()

    # Flushing

    async def flushed(self) -> None:
        """Return once all events that are pending now are settled."""
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

    # Reading from a file

    def _read_more(self, source: Source) -> None:
        """Read on from the storage once memory is less than half full."""
        in_memory = source.in_memory
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
        waiting = [e for one in self.partitions for e in (*one.in_flight, *one.waiting)]
        here = [event.number for event in waiting if event.source is source]
        missing, source.unread = source.unread, 0
        size = source.bytes - source.memory_bytes
        source.pending -= missing
        source.bytes -= size
        if source.tail >= source.free_until:
            self.capacity.release(missing, size)
        for flush in self._flushes:
            still = sum([number <= flush.marks.get(source, 0) for number in here])
            flush.settle(source, flush.left.get(source, 0) - still)
        self.lose("damaged", missing, "events are missing in the file")

    # Dead letters

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters of all storages, oldest first."""
        letters: list[DeadLetter] = []
        for source in list(self.sources):
            found = source.storage.dead(self._limits(source))
            when_done(found, partial(self._have_read_dead, source))
            letters += (await asyncio.shield(found)).letters
        return sorted(letters, key=lambda letter: letter.died_at)

    def _have_read_dead(self, source: Source, found: asyncio.Future[DeadLetters]) -> None:
        if found.exception() is None:
            self._expire(source, found.result().expired)

    async def replay(self) -> int:
        """Put the dead letters in line again, behind all others; return how many there were."""
        replays = []
        for source in list(self.sources):
            replays.append(source.storage.replay(self._limits(source)))
            when_done(replays[-1], partial(self._have_replayed, source))
        return sum([(await asyncio.shield(replayed)).count for replayed in replays])

    def _have_replayed(self, source: Source, replayed: asyncio.Future[Replayed]) -> None:
        """Count replayed events as pending, even if their caller does not wait any longer."""
        self._report_damage(source)
        if replayed.exception() is not None:
            return  # the caller gets it
        found = replayed.result()
        self._expire(source, found.expired)
        source.dead -= found.count
        source.pending += found.count
        source.bytes += found.bytes
        source.last = max(source.last, found.last)
        if source.free_until != FREE:
            self.capacity.add(found.count, found.bytes)
        if found.events:
            self._enqueue(source, found.events, found.bytes)
        else:
            source.unread += found.count
            self._read_more(source)

    def _add_source(self, storage: Storage, summary: StorageSummary) -> Source:
        source = Source(storage, summary.last)
        source.pending = source.unread = summary.pending
        source.bytes, source.dead = summary.bytes, summary.dead
        source.dead += sum(summary.expired.values())
        self.sources.append(source)
        self.accepted += source.pending + source.dead
        self.recovered += source.pending
        self._report_damage(source)
        self._expire(source, summary.expired)
        self._read_more(source)
        return source

    def rebind(self) -> None:
        """Requeue what was in flight in a loop that has ended, and forget the callers there."""
        self.partitions = [partition.rebind() for partition in self.partitions]
        self._flushes.clear()
        self.file_emptied = asyncio.Event()
        own = self.own
        own.reading = None
        in_use = (0, 0) if own.storage.is_durable else (own.pending, own.bytes)
        self.capacity.begin(*in_use)


def when_done(future: asyncio.Future[T], then: Callable[[asyncio.Future[T]], None]) -> None:
    """Call *then* with a future that is done: now, or later from the loop."""
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
