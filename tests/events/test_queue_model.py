"""The outbox against a model of it: accepting, delivering, setting aside, crashes and restarts."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from drift_async import OutboxFullError
from drift_async.events import storage as storage_module
from drift_async.events.partition import Partition
from drift_async.events.queue import EventQueue, WhenFull
from drift_async.events.sqlite import SqliteStorage
from drift_async.events.storage import DeadLimits, QueuedEvent

MAX_EVENTS = 12
MAX_DEAD = 5
LIMITS = DeadLimits(count=MAX_DEAD, seconds=1e9)


class QueueMachine(RuleBasedStateMachine):
    """What waits, by user and in order; what is dead; and the sums of the rest."""

    is_durable: ClassVar[bool]

    @initialize(policy=st.sampled_from(["error", "drop_new", "drop_old"]))
    def begin(self, policy: WhenFull) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.policy = policy
        self.waiting: dict[bytes, int] = {}  # body to key, oldest first
        self.dead: list[bytes] = []
        self.keys: dict[bytes, int] = {}
        self.accepted = self.delivered = self.count = 0
        self.dropped: Counter[str] = Counter()
        self.storage: Any = None
        self.queue = EventQueue(3, MAX_EVENTS, 10_000, policy, LIMITS, None, time.time)
        if self.is_durable:
            self.runner.run(self.open())

    async def open(self) -> None:
        self.storage = SqliteStorage(self.folder / "a.sqlite", "drift", time.time)
        summary = await self.storage.open(LIMITS)
        self.queue.begin(self.storage, summary, is_shared=False)
        await self.settled()

    async def settled(self) -> None:
        """Wait for what is being read from the disk."""
        for _ in range(100_000):
            if self.queue.own.reading is None:
                return
            await asyncio.sleep(0)
        raise AssertionError("reading does not end")

    @rule(kind=st.integers(0, 1), key=st.integers(0, 5), size=st.integers(1, 40))
    def accept(self, kind: int, key: int, size: int) -> None:
        self.count += 1
        body = b"%d." % self.count + b"x" * size
        self.keys[body] = key
        is_full = len(self.waiting) >= MAX_EVENTS
        event = QueuedEvent(kind, key, body)

        async def put() -> None:
            if not self.queue.put_nowait(event):
                await self.queue.put(event, 5.0)
            await self.settled()

        over = len(self.waiting) - MAX_EVENTS + 1  # a replay may have gone over the limit
        oldest = self.in_memory()[:over] if self.policy == "drop_old" and is_full else []
        if is_full and self.policy == "error":
            with pytest.raises(OutboxFullError):
                self.runner.run(put())
            return
        self.runner.run(put())
        self.accepted += 1
        for gone in oldest:
            self.dropped["full"] += 1
            del self.waiting[gone]
        if is_full and len(oldest) < over:
            self.dropped["full"] += 1
        else:
            self.waiting[body] = key

    def in_memory(self) -> list[bytes]:
        events = [event for partition in self.queue.partitions for event in partition.waiting]
        return [event.body for event in sorted(events, key=lambda event: event.number)]

    @rule(
        number=st.integers(0, 2),
        most=st.integers(1, 6),
        fate=st.sampled_from(["delivered", "dead", "back"]),
    )
    def take(self, number: int, most: int, fate: str) -> None:
        partition = self.queue.partitions[number]
        events = partition.take_batch(most, 10_000)
        for event in events:
            first = next(body for body, key in self.waiting.items() if key == event.key)
            assert event.body == first, "the order of a user has changed"
            del self.waiting[first]
        assert self.queue.stats(0, None).in_flight == len(events)
        if fate == "back":
            partition.requeue()
            self.waiting = {**{event.body: event.key for event in events}, **self.waiting}
        elif events:
            self.runner.run(self.settle(partition, events, fate))

    async def settle(self, partition: Partition, events: list[QueuedEvent], fate: str) -> None:
        half = len(events) // 2  # in two parts, as after a split
        for part in (events[:half], events[half:]):
            if fate == "delivered":
                await self.queue.settle(partition, part)
                self.delivered += len(part)
            elif part:
                await self.queue.dead_letter(partition, part, "refused", 400)
                self.dead += [event.body for event in part]
        if (over := len(self.dead) - MAX_DEAD) > 0:
            self.dropped["dead_full"] += over
            del self.dead[:over]
        await self.settled()

    @rule()
    def replay(self) -> None:
        async def work() -> int:
            count = await self.queue.replay()
            await self.settled()
            return count

        assert self.runner.run(work()) == len(self.dead)
        for body in self.dead:
            self.waiting[body] = self.keys[body]
        self.dead.clear()

    @rule()
    def flush(self) -> None:
        async def drains() -> bool:
            try:
                async with asyncio.timeout(0.001):
                    await self.queue.flushed()
            except TimeoutError:
                return False
            return True

        assert self.runner.run(drains()) == (not self.waiting)

    @rule(is_clean=st.booleans())
    def restart(self, is_clean: bool) -> None:
        """Close and open, or take the files as they are at this moment and leave the rest."""
        if not self.is_durable:
            return

        async def work() -> None:
            if is_clean:
                await self.queue.close()
            else:
                copy = Path(tempfile.mkdtemp()) / "copy"
                shutil.copytree(self.folder, copy)
                await self.queue.close()
                shutil.rmtree(self.folder)
                self.folder = copy
            await self.open()

        self.runner.run(work())

    @invariant()
    def the_counts_are_those_of_the_model(self) -> None:
        queue = getattr(self, "queue", None)
        if queue is None:
            return
        assert queue.pending == len(self.waiting)
        assert queue.stats(0, None).bytes == sum(map(len, self.waiting))
        assert queue.dead == len(self.dead)
        assert queue.delivered == self.delivered
        assert queue.dropped == {k: n for k, n in self.dropped.items() if n}
        assert queue.accepted == self.accepted
        lost = sum(queue.dropped.values())
        assert queue.accepted == queue.delivered + queue.pending + queue.dead + lost
        assert queue.capacity.events == queue.pending
        assert queue.capacity.bytes == queue.stats(0, None).bytes

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            if self.storage is not None:
                self.runner.run(self.queue.close())
            self.runner.close()
            shutil.rmtree(self.folder, ignore_errors=True)


class InMemory(QueueMachine):
    is_durable = False


class OnDisk(QueueMachine):
    is_durable = True


@pytest.mark.parametrize("machine", [InMemory, OnDisk])
@pytest.mark.parametrize(
    ("runs", "steps"), [(10, 50), pytest.param(100, 200, marks=pytest.mark.slow)]
)
def test_the_outbox_does_what_the_model_says(
    machine: type[QueueMachine], runs: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "MEMORY_EVENTS", 6)  # so that rows wait on disk, too
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=runs, stateful_step_count=steps, deadline=None),
    )
