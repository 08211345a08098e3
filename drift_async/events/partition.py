"""The order of events: partitions, and how batches are taken from them."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from itertools import islice

from .storage import QueuedEvent, Source

NEVER = sys.maxsize


class Partition:
    """The events of some users, in order, and those of them that a request is carrying."""

    __slots__ = ("_waiter", "in_flight", "unrepeatable", "waiting", "wake_at")

    def __init__(self) -> None:
        self.waiting: deque[QueuedEvent] = deque()
        self.in_flight: list[QueuedEvent] = []
        self.unrepeatable: list[QueuedEvent] = []
        """Events in flight that must not be sent again if the request is cut off."""
        self.wake_at = NEVER
        """Number of waiting events that wakes the worker."""
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self, count: int, seconds: float | None = None) -> None:
        """Return once *count* events wait, after *seconds*, or when woken."""
        if len(self.waiting) >= count:
            return
        loop = asyncio.get_running_loop()
        self.wake_at, self._waiter = count, loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self.wake)
        try:
            await self._waiter
        finally:
            self.wake_at, self._waiter = NEVER, None
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """Let the worker look again."""
        self.wake_at = NEVER
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take_batch(self, count: int, size: int) -> list[QueuedEvent]:
        """Take the next batch; it is in flight until it is settled or requeued."""
        self.in_flight = take_batch(self.waiting, count, size)
        return self.in_flight

    def settle(self, events: Sequence[QueuedEvent]) -> None:
        """Remove settled events from those in flight."""
        if len(events) == len(self.in_flight):
            self.in_flight = []
        else:
            settled = set(map(id, events))
            self.in_flight = [event for event in self.in_flight if id(event) not in settled]

    def requeue(self) -> None:
        """Put events in flight back to their places in the order, but for unrepeatable ones."""
        unrepeatable = set(map(id, self.unrepeatable))
        back = [event for event in self.in_flight if id(event) not in unrepeatable]
        if back:
            self.waiting = deque(sorted([*back, *self.waiting], key=lambda event: event.number))
        self.in_flight = list(self.unrepeatable)

    def rebind(self) -> Partition:
        """Return a partition for the next loop: tasks of an ended one may still touch this."""
        self.requeue()
        partition = Partition()
        partition.waiting, partition.in_flight = self.waiting, self.in_flight
        partition.unrepeatable = self.unrepeatable
        return partition


def take_batch(waiting: deque[QueuedEvent], count: int, size: int) -> list[QueuedEvent]:
    """Take the largest batch of one kind off the front, without changing the order for any user.

    Events of the other kind stay, and so do the events after them of the same user. *size* is the
    limit of the encoded batch in bytes; one event over it is a batch by itself.
    """
    if not waiting:
        return []
    kind = waiting[0].kind
    left = size - 2  # the brackets
    batch: list[QueuedEvent] = []
    passed: list[QueuedEvent] = []
    passed_keys: set[int] = set()
    while waiting and len(batch) < count and len(passed) < 4 * count:
        event = waiting.popleft()
        if event.kind != kind or event.key in passed_keys:
            passed.append(event)
            passed_keys.add(event.key)
            continue
        left -= len(event.body) + 1
        if batch and left < 0:
            waiting.appendleft(event)
            break
        batch.append(event)
    waiting.extendleft(reversed(passed))
    return batch


def take_oldest(
    partitions: Sequence[Partition], source: Source, size: int, after: int
) -> list[QueuedEvent]:
    """Take the oldest events of a storage that wait, until *size* bytes, numbered over *after*."""
    taken: list[QueuedEvent] = []
    while size > 0:
        found: list[tuple[int, QueuedEvent, Partition]] = []
        for partition in partitions:
            ours = (e for e in partition.waiting if e.source is source and e.number > after)
            found += [(event.number, event, partition) for event in islice(ours, 1)]
        if not found:
            break
        _, event, partition = min(found)
        partition.waiting.remove(event)
        taken.append(event)
        size -= len(event.body)
    return taken
