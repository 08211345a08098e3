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
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from drift_async import OutboxFullError
from drift_async.events import backlog as backlog_module
from drift_async.events.lanes import Lane, Row
from drift_async.events.outbox import Outbox, WhenFull
from drift_async.events.room import Room
from drift_async.events.sqlite import SqliteStore
from drift_async.events.store import DeadLimits, MemoryStore

MAX_EVENTS = 12
MAX_DEAD = 5
LIMITS = DeadLimits(rows=MAX_DEAD, seconds=1e9)


class OutboxMachine(RuleBasedStateMachine):
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
        self.store: Any = None
        self.outbox = Outbox(
            MemoryStore(LIMITS, time.time),
            3,
            Room(MAX_EVENTS, 10_000),
            policy,
            None,
            time.time,
        )
        if self.is_durable:
            self.runner.run(self.open())

    async def open(self) -> None:
        store = SqliteStore(self.folder, "drift", LIMITS, 0, time.time, lambda count, detail: None)
        await store.open()
        self.store = store
        self.outbox.begin(store, await store.held())
        await self.settled()

    async def settled(self) -> None:
        """Wait for what is being read from the disk."""
        for _ in range(100_000):
            if not self.outbox.backlog._reading:
                return
            await asyncio.sleep(0)
        raise AssertionError("reading does not end")

    @rule(kind=st.integers(0, 1), key=st.integers(0, 5), size=st.integers(1, 40))
    def accept(self, kind: int, key: int, size: int) -> None:
        self.count += 1
        body = b"%d." % self.count + b"x" * size
        self.keys[body] = key
        is_full = len(self.waiting) >= MAX_EVENTS
        row = Row(kind, key, body)

        async def put() -> None:
            if not self.outbox.offer(row):
                await self.outbox.put(row, 5.0)
            await self.settled()

        over = len(self.waiting) - MAX_EVENTS + 1  # a replay may have gone over the limit
        oldest = self.in_lanes()[:over] if self.policy == "drop_old" and is_full else []
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

    def in_lanes(self) -> list[bytes]:
        rows = [row for lane in self.outbox.ledger.lanes for row in lane.rows]
        return [row.body for row in sorted(rows, key=lambda row: row.seq)]

    @rule(
        number=st.integers(0, 2),
        most=st.integers(1, 6),
        fate=st.sampled_from(["delivered", "dead", "back"]),
    )
    def take(self, number: int, most: int, fate: str) -> None:
        lane = self.outbox.ledger.lanes[number]
        rows = lane.cut(most, 10_000)
        for row in rows:
            first = next(body for body, key in self.waiting.items() if key == row.key)
            assert row.body == first, "the order of a user has changed"
            del self.waiting[first]
        assert self.outbox.ledger.in_flight() == len(rows)
        if fate == "back":
            lane.recall()
            self.waiting = {**{row.body: row.key for row in rows}, **self.waiting}
        elif rows:
            self.runner.run(self.settle(lane, rows, fate))

    async def settle(self, lane: Lane, rows: list[Row], fate: str) -> None:
        half = len(rows) // 2  # in two parts, as after a split
        for part in (rows[:half], rows[half:]):
            if fate == "delivered":
                await self.outbox.deliver(lane, part)
                self.delivered += len(part)
            elif part:
                await self.outbox.bury(lane, part, "refused", 400)
                self.dead += [row.body for row in part]
        if (over := len(self.dead) - MAX_DEAD) > 0:
            self.dropped["dead_full"] += over
            del self.dead[:over]
        await self.settled()

    @rule()
    def replay(self) -> None:
        async def work() -> int:
            count = await self.outbox.backlog.replay()
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
                    await self.outbox.ledger.drained()
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
                await self.store.close()
            else:
                copy = Path(tempfile.mkdtemp()) / "copy"
                shutil.copytree(self.folder, copy)
                await self.store.close()
                shutil.rmtree(self.folder)
                self.folder = copy
            await self.open()

        self.runner.run(work())

    @invariant()
    def the_counts_are_those_of_the_model(self) -> None:
        outbox = getattr(self, "outbox", None)
        if outbox is None:
            return
        ledger = outbox.ledger
        assert ledger.pending == len(self.waiting)
        assert ledger.bytes == sum(map(len, self.waiting))
        assert ledger.dead == len(self.dead)
        assert ledger.delivered == self.delivered
        assert ledger.dropped == {k: n for k, n in self.dropped.items() if n}
        assert ledger.accepted == self.accepted
        lost = sum(ledger.dropped.values())
        assert ledger.accepted == ledger.delivered + ledger.pending + ledger.dead + lost
        assert (ledger.room.coming, ledger.room.coming_bytes) == (0, 0)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            if self.store is not None:
                self.runner.run(self.store.close())
            self.runner.close()
            shutil.rmtree(self.folder, ignore_errors=True)


class InMemory(OutboxMachine):
    is_durable = False


class OnDisk(OutboxMachine):
    is_durable = True


@pytest.mark.parametrize("machine", [InMemory, OnDisk])
@pytest.mark.parametrize(
    ("runs", "steps"), [(10, 50), pytest.param(100, 200, marks=pytest.mark.slow)]
)
def test_the_outbox_does_what_the_model_says(
    machine: type[OutboxMachine], runs: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog_module, "WINDOW_ROWS", 6)  # so that rows wait on disk, too
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=runs, stateful_step_count=steps, deadline=None),
    )
