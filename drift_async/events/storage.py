"""Where events wait: the protocol of a storage, and the storage in memory."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import attrs

T = TypeVar("T")

MEMORY_EVENTS = 20_000
MEMORY_BYTES = 16 * 1024 * 1024
"""How much of a file is in memory at the same time, about."""

Expired = Mapping[str, int]
"""How many dead letters were deleted as over the limits, by reason."""


@attrs.define(eq=False, repr=False, weakref_slot=False)
class QueuedEvent:
    """An event that waits: its kind, a hash of its user, its encoded body, and its place.

    The storage gives the ``number``: it grows in the order in which events were stored.
    """

    kind: int
    key: int
    body: bytes
    number: int = 0
    source: Source | None = None


@attrs.define(eq=False, repr=False)
class DeadLetter:
    """An event that was set aside, the status that refused it, and when (seconds since 1970)."""

    event: QueuedEvent
    reason: str
    status: int | None
    died_at: float
    is_intact: bool = True


@attrs.frozen(kw_only=True)
class DeadLimits:
    """How many dead letters are kept, and for how many seconds."""

    count: int
    seconds: float


@attrs.frozen
class StorageSummary:
    """Contents of a storage when it is opened; ``last`` is the highest number in it.

    The ``expired`` are among the ``dead``.
    """

    pending: int = 0
    bytes: int = 0
    dead: int = 0
    last: int = 0
    expired: Expired = attrs.Factory(dict)


@attrs.frozen
class DeadLetters:
    """Dead letters, oldest first."""

    letters: Sequence[DeadLetter]
    expired: Expired


@attrs.frozen
class Replayed:
    """Dead letters that wait again: how many, their bytes, and those that `read` does not give.

    ``last`` is the highest number that one of them got.
    """

    count: int
    bytes: int
    last: int
    expired: Expired
    events: Sequence[QueuedEvent] = ()


@attrs.frozen
class ReadResult:
    """Events that were read back, and damaged ones, whose checksum differs."""

    events: Sequence[QueuedEvent]
    damaged: Sequence[QueuedEvent]


class Storage(Protocol):
    """Keeps events in the order in which they came, and dead letters.

    A storage never calls back: results are in the futures that its methods return, done in the
    order of the work.
    """

    is_durable: bool
    undeleted: int
    """Number of deletions that wait for space on the disk, or could not be done before closing."""

    def append(self, events: Sequence[QueuedEvent]) -> asyncio.Future[None]:
        """Store events and give them numbers: all of them, or none and the future has the error.

        Raises `ClosedError` when the storage is closed.
        """

    def delete(self, numbers: Sequence[int]) -> asyncio.Future[None]:
        """Delete events."""

    def dead_letter(
        self, letters: Sequence[DeadLetter], limits: DeadLimits
    ) -> asyncio.Future[Expired]:
        """Move events to the dead letters."""

    def dead(self, limits: DeadLimits) -> asyncio.Future[DeadLetters]:
        """Return the dead letters."""

    def replay(self, limits: DeadLimits) -> asyncio.Future[Replayed]:
        """Move all intact dead letters back to the events, with new numbers."""

    def read(self, after: int, count: int, size: int) -> asyncio.Future[ReadResult]:
        """Read the events that follow number *after*, up to about *count* events, *size* bytes."""

    async def adopt(self, limits: DeadLimits) -> tuple[Storage, StorageSummary] | None:
        """Open a file that a process has left behind, if there is one that is not empty."""

    def take_damage(self) -> list[str]:
        """Return the damages that were found since the last call, in words."""

    async def close(self) -> None:
        """Close. An empty file is removed."""


@attrs.define(eq=False, repr=False)
class Flush:
    """A caller that waits until no events up to the number *mark* are *left*."""

    mark: int
    left: int
    done: asyncio.Future[None]


@attrs.define(eq=False, repr=False)
class Source:
    """A storage in use, the counts of its events, and callers that wait for these.

    ``unread`` of the pending events are in the storage only; the last event that was read, or came
    into memory directly, has the number ``tail``. Events up to ``free_until`` use no capacity.
    """

    storage: Storage
    last: int = 0
    free_until: int = 0
    pending: int = 0
    bytes: int = 0
    memory_bytes: int = 0
    dead: int = 0
    unread: int = 0
    tail: int = 0
    reading: asyncio.Future[ReadResult] | None = None
    flushes: list[Flush] = attrs.Factory(list)

    @property
    def fills_memory(self) -> bool:
        """Whether further events are to be in the storage only."""
        in_memory = self.pending - self.unread
        return in_memory > MEMORY_EVENTS or self.memory_bytes > MEMORY_BYTES

    def capacity_of(self, events: Sequence[QueuedEvent]) -> tuple[int, int]:
        """Return how many of the events use capacity, and their bytes."""
        sizes = [len(event.body) for event in events if event.number > self.free_until]
        return len(sizes), sum(sizes)

    def begin(self, summary: StorageSummary) -> None:
        """Count what is in the storage."""
        self.add(summary.pending, summary.bytes, summary.last)
        self.unread, self.dead = summary.pending, summary.dead

    def read_more(self) -> asyncio.Future[ReadResult] | None:
        """Read on from the storage once memory is less than half full."""
        in_memory = self.pending - self.unread
        if self.reading or self.unread <= 0 or in_memory >= max(1, MEMORY_EVENTS // 2):
            return None
        self.reading = self.storage.read(self.tail, MEMORY_EVENTS - in_memory, MEMORY_BYTES)
        return self.reading

    def has_read(self, found: ReadResult) -> None:
        """Count events as in memory."""
        numbers = [event.number for event in (*found.events, *found.damaged)]
        self.unread -= len(numbers)
        self.tail = max([self.tail, *numbers])

    def add(self, count: int, size: int, last: int) -> None:
        """Count events as pending."""
        self.pending += count
        self.bytes += size
        self.last = max(self.last, last)

    def remove(self, events: Sequence[QueuedEvent]) -> None:
        """Count events, which were in memory, as pending no longer."""
        size = sum([len(event.body) for event in events])
        self.pending -= len(events)
        self.bytes -= size
        self.memory_bytes -= size
        for flush in self.flushes:
            flush.left -= sum([event.number <= flush.mark for event in events])
        self._finish_flushes()

    def remove_missing(self, in_memory: Sequence[int]) -> tuple[int, int]:
        """Count all but the numbers *in_memory* as settled; return how many, and their bytes."""
        missing, self.unread = self.unread, 0
        size = self.bytes - self.memory_bytes
        self.pending -= missing
        self.bytes -= size
        for flush in self.flushes:
            flush.left = sum([number <= flush.mark for number in in_memory])
        self._finish_flushes()
        return missing, size

    def flush(self) -> Flush:
        """Wait for all events that are pending now."""
        flush = Flush(self.last, self.pending, asyncio.get_running_loop().create_future())
        self.flushes.append(flush)
        self._finish_flushes()
        return flush

    def give_up_flushes(self) -> None:
        """Let all callers go on, because delivery has stopped."""
        for flush in self.flushes:
            flush.left = 0
        self._finish_flushes()

    def _finish_flushes(self) -> None:
        for flush in self.flushes:
            if flush.left <= 0 and not flush.done.done():
                flush.done.set_result(None)
        self.flushes = [flush for flush in self.flushes if not flush.done.done()]


def done(value: T) -> asyncio.Future[T]:
    """Return a future that is done."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def when_done(future: asyncio.Future[T], then: Callable[[asyncio.Future[T]], object]) -> None:
    """Call *then* with a future that is done: now, or later from the loop."""
    if future.done():
        then(future)
    else:
        future.add_done_callback(then)


async def wait_until_done(answer: asyncio.Future[T], until: float | None = None) -> None:
    """Return when an answer is there, or *until* on the loop's clock; a cancellation spares it."""
    if answer.done():
        return
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def end(_: object = None) -> None:
        if not ended.done():
            ended.set_result(None)

    answer.add_done_callback(end)
    timer = None if until is None else loop.call_at(until, end)
    try:
        await ended
    finally:
        if timer is not None:
            timer.cancel()


def by_source(events: Sequence[QueuedEvent]) -> list[tuple[Source, list[QueuedEvent]]]:
    """Group the events of a batch by their storage; mostly it is one."""
    groups: defaultdict[Source, list[QueuedEvent]] = defaultdict(list)
    for event in events:
        assert event.source is not None
        groups[event.source].append(event)
    return list(groups.items())


class MemoryStorage:
    """Keeps dead letters only: the events themselves are in the partitions of the queue."""

    is_durable = False
    undeleted = 0

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._letters: list[DeadLetter] = []

    def append(self, events: Sequence[QueuedEvent]) -> asyncio.Future[None]:
        for event in events:
            event.number = next(self._numbers)
        return done(None)

    def delete(self, numbers: Sequence[int]) -> asyncio.Future[None]:
        return done(None)

    def dead_letter(
        self, letters: Sequence[DeadLetter], limits: DeadLimits
    ) -> asyncio.Future[Expired]:
        self._letters.extend(letters)
        return done(self._expire(limits))

    def _expire(self, limits: DeadLimits) -> Expired:
        oldest = self._clock() - limits.seconds
        young = [letter for letter in self._letters if letter.died_at >= oldest]
        kept = young[max(0, len(young) - limits.count) :]
        expired = {
            "dead_old": len(self._letters) - len(young),
            "dead_full": len(young) - len(kept),
        }
        self._letters = kept
        return expired

    def dead(self, limits: DeadLimits) -> asyncio.Future[DeadLetters]:
        expired = self._expire(limits)
        return done(DeadLetters(list(self._letters), expired))

    def replay(self, limits: DeadLimits) -> asyncio.Future[Replayed]:
        expired = self._expire(limits)
        events = [letter.event for letter in self._letters]
        self._letters.clear()
        self.append(events)
        size = sum([len(event.body) for event in events])
        last = events[-1].number if events else 0
        return done(Replayed(len(events), size, last, expired, events))

    def read(self, after: int, count: int, size: int) -> asyncio.Future[ReadResult]:
        return done(ReadResult((), ()))

    async def adopt(self, limits: DeadLimits) -> tuple[Storage, StorageSummary] | None:
        return None

    def take_damage(self) -> list[str]:
        return []

    async def close(self) -> None:
        pass
