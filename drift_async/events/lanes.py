"""The order of events: rows, the lanes in which they wait, and how batches are cut from these."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence

import attrs

NEVER = sys.maxsize


@attrs.define(eq=False, repr=False, weakref_slot=False)
class Row:
    """An event that waits: which kind, whose (a hash), the bytes to send, its number in line."""

    kind: int
    key: int
    body: bytes
    seq: int = 0


class Lane:
    """The events of some users, in order, and those of them that a request is carrying."""

    __slots__ = ("_waiter", "at_risk", "flying", "need", "rows")

    def __init__(self) -> None:
        self.rows: deque[Row] = deque()
        self.flying: list[Row] = []
        self.at_risk: list[Row] = []  # of those flying: must not be sent again if this is cut off
        self.need = NEVER  # so many rows wake the worker
        self._waiter: asyncio.Future[None] | None = None

    def wake_if_due(self) -> None:
        """Let the worker look again if there are as many rows as it waits for."""
        if len(self.rows) >= self.need:
            self.wake()

    async def wait(self, need: int, seconds: float | None = None) -> None:
        """Return once *need* rows wait, when woken, or after *seconds*."""
        if len(self.rows) >= need:
            return
        loop = asyncio.get_running_loop()
        self.need, self._waiter = need, loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self.wake)
        try:
            await self._waiter
        finally:
            self.need, self._waiter = NEVER, None
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """Let the worker look again."""
        self.need = NEVER
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def cut(self, most: int, most_bytes: int) -> list[Row]:
        """Take the next batch; it is flying until it is settled or taken back."""
        self.flying = cut(self.rows, most, most_bytes)
        return self.flying

    def landed(self, rows: Sequence[Row]) -> None:
        """Let go of rows that are settled."""
        if len(rows) == len(self.flying):
            self.flying = []
        else:
            gone = {row.seq for row in rows}
            self.flying = [row for row in self.flying if row.seq not in gone]

    def recall(self) -> None:
        """Take back what is flying, to its place in line, but for what is at risk."""
        if self.flying:
            risky = {row.seq for row in self.at_risk}
            back = [row for row in self.flying if row.seq not in risky]
            self.rows = deque(sorted([*back, *self.rows], key=_number))
            self.flying = list(self.at_risk)

    def successor(self) -> Lane:
        """Return a lane for the next loop. Tasks of one that has ended may still touch this."""
        self.recall()
        lane = Lane()
        lane.rows, lane.flying, lane.at_risk = self.rows, self.flying, self.at_risk
        return lane


def _number(row: Row) -> int:
    return row.seq


def cut(rows: deque[Row], most: int, most_bytes: int) -> list[Row]:
    """Take the largest batch of one kind off the front, without changing the order for any user.

    Rows of the other kind are passed over, and so is what comes after them for the same user.
    """
    if not rows:
        return []
    if most == 1:
        return [rows.popleft()]
    kind = rows[0].kind
    front = [rows.popleft() for _ in range(min(most, len(rows)))]
    # Mostly all of them can go, which takes half of the time to find.
    is_small = sum([len(row.body) for row in front]) + len(front) < most_bytes
    if is_small and [row.kind for row in front].count(kind) == len(front):
        return front
    rows.extendleft(reversed(front))
    size = 2  # the brackets
    batch: list[Row] = []
    passed: list[Row] = []
    held: set[int] = set()
    while rows and len(batch) < most and len(passed) < 4 * most:
        row = rows.popleft()
        if row.kind != kind or row.key in held:
            passed.append(row)
            held.add(row.key)
            continue
        size += len(row.body) + 1
        if batch and size > most_bytes:
            rows.appendleft(row)
            break
        batch.append(row)
    rows.extendleft(reversed(passed))
    return batch
