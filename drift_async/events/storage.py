"""Where events wait: the protocol of a storage, and the storage in memory."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import attrs

T = TypeVar("T")


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

    ``expired`` are the dead letters over the limits that were deleted, by reason.
    """

    pending: int = 0
    bytes: int = 0
    dead: int = 0
    last: int = 0
    expired: Mapping[str, int] = attrs.Factory(dict)


@attrs.frozen
class DeadLetters:
    """Dead letters, oldest first, and how many others were deleted as over the limits."""

    letters: Sequence[DeadLetter]
    expired: Mapping[str, int]


@attrs.frozen
class Replayed:
    """Dead letters that wait again: how many, their bytes, and those that `read` does not give.

    ``last`` is the highest number that one of them got.
    """

    count: int
    bytes: int
    last: int
    expired: Mapping[str, int]
    events: Sequence[QueuedEvent] = ()


@attrs.frozen
class ReadResult:
    """Events that were read back, and damaged ones, whose checksum differs."""

    events: Sequence[QueuedEvent]
    damaged: Sequence[QueuedEvent]


class Storage(Protocol):
    """Keeps events in the order in which they came, and dead letters.

    It never calls back: results are in the futures that its methods return, and futures of one
    storage are done in the order in which its thread did the work.
    """

    is_durable: bool

    def append(self, events: Sequence[QueuedEvent]) -> asyncio.Future[None]:
        """Store events and give them numbers: all of them, or none and the future has the error.

        Raises `ClosedError` when the storage is closed.
        """

    def delete(self, numbers: Sequence[int]) -> asyncio.Future[int]:
        """Delete events; the future gives how many deletions wait for space on the disk."""

    def dead_letter(
        self, letters: Sequence[DeadLetter], limits: DeadLimits
    ) -> asyncio.Future[Mapping[str, int]]:
        """Move events to the dead letters; the future gives how many of those were deleted."""

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

    async def close(self) -> int:
        """Close; return how many deletions could not be done. An empty file is removed."""


@attrs.define(eq=False, repr=False)
class Source:
    """A storage in use, and the counts of its events.

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
    undeleted: int = 0
    reading: asyncio.Future[ReadResult] | None = None

    @property
    def in_memory(self) -> int:
        """Number of pending events that are in memory."""
        return self.pending - self.unread


def done(value: T) -> asyncio.Future[T]:
    """Return a future that is done."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


class MemoryStorage:
    """Keeps dead letters only: the events themselves are in the partitions of the queue."""

    is_durable = False

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._letters: deque[DeadLetter] = deque()

    def append(self, events: Sequence[QueuedEvent]) -> asyncio.Future[None]:
        for event in events:
            event.number = next(self._numbers)
        return done(None)

    def delete(self, numbers: Sequence[int]) -> asyncio.Future[int]:
        return done(0)

    def dead_letter(
        self, letters: Sequence[DeadLetter], limits: DeadLimits
    ) -> asyncio.Future[Mapping[str, int]]:
        self._letters.extend(letters)
        return done(self._expire(limits))

    def _expire(self, limits: DeadLimits) -> Mapping[str, int]:
        expired = {"dead_old": 0, "dead_full": 0}
        oldest = self._clock() - limits.seconds
        while self._letters and self._letters[0].died_at < oldest:
            self._letters.popleft()
            expired["dead_old"] += 1
        while len(self._letters) > limits.count:
            self._letters.popleft()
            expired["dead_full"] += 1
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

    async def close(self) -> int:
        return 0
