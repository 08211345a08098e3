"""Where accepted events wait: counted exactly, bounded, in lanes that keep the order of each user.

All of it runs in one event loop. Rows on disk beyond a window are read into the lanes as these
empty.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import attrs

from ..errors import DeadlineError, OutboxFullError
from .lanes import Lane, Row
from .room import Room
from .store import Grave, Held, Loaded, Store

logger = logging.getLogger("drift_async.events")

WhenFull = Literal["block", "error", "drop_new", "drop_old"]

WINDOW_ROWS = 20_000
WINDOW_BYTES = 16 * 1024 * 1024
"""How much of what is on disk is held in memory."""

ADOPTED = 5_000
"""Rows to take over from other files at once."""

SPACE = 8192
"""Bytes of old events that go for a new one on a full disk: less may free no page of the file."""

RETRY_DISK = 0.2
"""Seconds between two tries to write to a full disk."""


TICK = 0.1
"""Seconds between two looks for waits that are over."""

LATE = "late"


@attrs.frozen(kw_only=True, repr=False)
class Loss:
    """What ``on_drop`` is called with: how many events were lost, and why.

    ``reason`` is ``full`` (the outbox), ``dead_full`` or ``dead_old`` (dead letters over the limit
    in number or age), or ``damaged`` (a file of the outbox). ``detail`` says more, in words.
    """

    reason: str
    count: int
    detail: str

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.count}, {self.reason}: {self.detail}>"


@attrs.define(eq=False, repr=False)
class _Flush:
    """Somebody who waits until all rows up to a number are settled."""

    mark: int
    left: int
    done: asyncio.Future[None]


class Outbox:
    """Rows in lanes, with counters that are exact at every moment.

    ``accepted == delivered + pending + dead + sum(dropped.values())`` always holds.
    """

    def __init__(
        self,
        store: Store,
        lanes: int,
        room: Room,
        when_full: WhenFull,
        on_drop: Callable[[Loss], object] | None,
        clock: Callable[[], float],
    ) -> None:
        self.lanes = [Lane() for _ in range(lanes)]
        self.accepted = self.delivered = self.pending = self.dead = self.recovered = 0
        self.bytes = 0
        self.dropped: dict[str, int] = {}
        self.store = store
        self._room = room
        self._when_full = when_full
        self._on_drop = on_drop
        self._clock = clock
        self._seq = 0  # the last number given
        self._last = 0  # the last row accepted
        self._tail = 0  # the last row in memory: on disk there are so many more
        self._on_disk = 0
        self._loading: asyncio.Future[Loaded] | None = None
        self._moving = 0  # rows are being put into the file by itself
        self._flushes: list[_Flush] = []
        self._keeping: dict[asyncio.Future[str | None], float] = {}  # until when each may last
        self._sweep: asyncio.TimerHandle | None = None
        self.torn: list[tuple[Lane, Sequence[Row]]] = []
        """Cut off under way, and not to be sent twice."""

    # Accepting

    def offer(self, row: Row) -> bool:
        """Take a row at once; False if it has to wait for room or a disk."""
        size = len(row.body)
        if self.store.is_durable or not self._room.take(size):
            return False
        self._seq = self._last = row.seq = self._seq + 1
        self.accepted += 1
        self.pending += 1
        self.bytes += size
        lanes = self.lanes
        lanes[row.key % len(lanes)].append(row)
        return True

    async def put(self, row: Row, timeout: float) -> None:
        """Take a row as ``when_full`` says, and return when it is in memory, or on disk.

        Raises `OutboxFullError`; for ``block`` this may take *timeout* seconds.
        """
        until = asyncio.get_running_loop().time() + timeout
        while await self._find_room(row, until):
            refused = await self._keep([row], until)
            if refused is None or not await self._can_try_again(refused, until):
                if refused is not None:
                    self._refuse(row)
                return

    async def put_many(self, rows: Sequence[Row], timeout: float) -> None:
        """Take rows as `put` does, those that have room in one piece."""
        left = deque(rows)
        while left:
            part: list[Row] = []
            while left and self._room.take(len(left[0].body)):
                part.append(left.popleft())
            until = asyncio.get_running_loop().time() + timeout
            if part and await self._keep(part, until) is not None:
                for row in part:
                    await self.put(row, timeout)
            elif left:
                await self.put(left.popleft(), timeout)

    async def _find_room(self, row: Row, until: float) -> bool:
        """Take room for a row; False if it is the one that was dropped."""
        size = len(row.body)
        while not self._room.take(size):
            match self._when_full:
                case "error":
                    raise OutboxFullError(f"the outbox is full: {self.pending} events wait")
                case "block":
                    return await self._wait_for_room(size, until)
                case "drop_old" if self._drop_oldest():
                    continue
            self._refuse(row)
            return False
        return True

    async def _wait_for_room(self, size: int, until: float) -> bool:
        try:
            await self._room.wait(size, until)
            return True
        except TimeoutError:
            pass
        raise OutboxFullError(f"the outbox stayed full: {self.pending} events wait")

    async def _keep(self, rows: Sequence[Row], until: float) -> str | None:
        """Have rows kept for which there is room; return why the disk refuses, if it does."""
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[str | None] = loop.create_future()

        def done(_: object, error: Exception | None) -> None:
            # The rows are on their way whatever has become of who waits for them.
            if error is None:
                for row in rows:
                    self._accept(row)
            else:
                self._room.free(len(rows), sum(len(row.body) for row in rows))
            if not kept.done():
                kept.set_result(None if error is None else str(error))

        for row in rows:
            self._seq = row.seq = self._seq + 1
        self.store.put(rows, done)
        if kept.done():
            return kept.result()
        self._keeping[kept] = until
        if self._sweep is None:
            self._sweep = loop.call_later(TICK, self._end_late, loop)
        try:
            return await kept
        except asyncio.CancelledError as stop:
            if stop.args != (LATE,):
                raise
        finally:
            del self._keeping[kept]
        raise DeadlineError("the disk has not answered in time", operation="outbox")

    def _end_late(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the waits for the disk that are over: one timer for all of them."""
        now = loop.time()
        for kept, until in self._keeping.items():
            if until <= now:
                kept.cancel(LATE)
        self._sweep = loop.call_later(TICK, self._end_late, loop) if self._keeping else None

    async def _can_try_again(self, refused: str, until: float) -> bool:
        """After the disk refused a row: whether to offer it once more."""
        match self._when_full:
            case "error":
                raise OutboxFullError(f"the outbox's disk takes nothing ({refused})")
            case "drop_new":
                return False
            case "drop_old":
                return await self._make_space()
        if asyncio.get_running_loop().time() + RETRY_DISK > until:
            raise OutboxFullError(f"the outbox's disk took nothing in time ({refused})")
        await asyncio.sleep(RETRY_DISK)
        return True

    def _accept(self, row: Row) -> None:
        self.accepted += 1
        self.pending += 1
        self.bytes += len(row.body)
        self._last = row.seq
        if self.store.is_durable:
            if self._on_disk or self._loading or self._moving or not self._has_window():
                self._on_disk += 1
                return
            self._tail = row.seq
        self.lanes[row.key % len(self.lanes)].append(row)

    # When full

    def _drop_oldest(self) -> bool:
        """Drop the oldest row that no request carries; False if there is none."""
        waiting = [lane for lane in self.lanes if lane.rows]
        if not waiting:
            return False
        row = min(waiting, key=lambda lane: lane.rows[0].seq).rows.popleft()
        self.store.forget([row])
        self._lose("full", 1, "the oldest event was dropped for a new one")
        self._leave([row])
        return True

    async def _make_space(self) -> bool:
        before = self.bytes
        while self.bytes > before - SPACE and self._drop_oldest():
            pass
        await self.store.forget(())  # returns when the deletions before it are through
        return self.bytes < before

    def _refuse(self, row: Row) -> None:
        self.accepted += 1
        self._lose("full", 1, "a new event was dropped")

    def _lose(self, reason: str, count: int, detail: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        self.report(Loss(reason=reason, count=count, detail=detail))

    def report(self, loss: Loss) -> None:
        """Tell the user's callable of a loss; what it raises is logged."""
        if self._on_drop is not None:
            try:
                self._on_drop(loss)
            except Exception:  # delivery must not end because of who is told of a loss
                logger.exception("on_drop raised")

    # Settling

    async def deliver(self, lane: Lane, rows: Sequence[Row]) -> None:
        """Count rows as delivered; return when the disk has forgotten them."""
        self.delivered += len(rows)
        lane.landed(rows)
        self._leave(rows)
        await self.store.forget(rows)

    async def bury(self, lane: Lane, rows: Sequence[Row], reason: str, status: int | None) -> None:
        """Set rows aside as dead letters; the oldest of these go when there are too many."""
        now = self._clock()
        logger.warning("set aside %d events: %s, status %s", len(rows), reason, status)
        gone: dict[str, int] = {}
        try:
            gone = await self.store.bury([Grave(row, reason, status, now) for row in rows])
        finally:  # cancelled or not, it is done
            self.dead += len(rows) - sum(gone.values())
            for why, count in gone.items():
                if count:
                    self._lose(why, count, "dead letters over the limit were dropped")
            lane.landed(rows)
            self._leave(rows)

    async def bury_torn(self) -> None:
        """Set aside what was cut off under way and must not be sent twice."""
        while self.torn:
            await self.bury(*self.torn.pop(), "unknown", None)

    def _leave(self, rows: Sequence[Row]) -> None:
        """Take settled rows out of the counts, and let go on who waited for that."""
        size = sum([len(row.body) for row in rows])
        self.pending -= len(rows)
        self.bytes -= size
        for flush in self._flushes:
            flush.left -= sum(row.seq <= flush.mark for row in rows)
            if flush.left <= 0 and not flush.done.done():
                flush.done.set_result(None)
        self._room.free(len(rows), size)
        self._fill_up()

    async def drained(self) -> None:
        """Return once all that is pending now is settled."""
        if self.pending:
            done = asyncio.get_running_loop().create_future()
            flush = _Flush(self._last, self.pending, done)
            self._flushes.append(flush)
            try:
                await done
            finally:
                self._flushes.remove(flush)

    def give_up_flushes(self) -> None:
        """Let go on who waits for rows that will not be settled soon."""
        for flush in self._flushes:
            if not flush.done.done():
                flush.done.set_result(None)

    def wake(self) -> None:
        """Have all workers look again."""
        for lane in self.lanes:
            lane.wake()

    def in_flight(self) -> int:
        """Return how many rows requests are carrying."""
        return sum(len(lane.flying) for lane in self.lanes)

    # Dead letters, and what is on disk

    async def replay(self) -> int:
        """Put the dead letters at the end of the line again; return how many."""
        self._moving += 1
        try:
            await self._loaded_all()
            before, self._seq = self._seq, self._seq + self.dead
            found = await self.store.replay(before)
        finally:
            self._moving -= 1
        self._last = max(self._last, self._seq)
        self.dead -= found.count
        self.pending += found.count
        self.bytes += found.bytes
        self._room.add(found.count, found.bytes)
        for row in found.rows:
            self.lanes[row.key % len(self.lanes)].append(row)
        self._on_disk += found.count - len(found.rows)
        self._fill_up()
        return found.count

    async def adopt(self) -> None:
        """Take over what other processes have left behind."""
        while True:
            self._moving += 1
            try:
                await self._loaded_all()
                before, self._seq = self._seq, self._seq + ADOPTED
                found = await self.store.adopt(before, ADOPTED)
            finally:
                self._moving -= 1
            self._last = max(self._last, before + found.pending + found.dead)
            if self._seq == before + ADOPTED:
                self._seq = before + found.pending + found.dead  # the other numbers stay free
            self.dead += found.dead
            self.accepted += found.dead
            self.recover(found.pending, found.bytes)
            if found.pending + found.dead < ADOPTED:
                return

    def begin(self, held: Held) -> None:
        """Start from what the store holds, in the running loop."""
        self.recall()
        for lane in self.lanes:
            lane.rows.clear()
        self._seq = self._last = held.last
        self._tail = 0
        self.pending = self.bytes = self._on_disk = self.recovered = 0
        self._room.begin(0, 0)
        self.dead = held.dead
        self.accepted = self.delivered + held.dead + sum(self.dropped.values())
        self.recover(held.pending, held.bytes)

    def recover(self, count: int, size: int) -> None:
        """Count rows that were found on disk, and begin to read them."""
        self.accepted += count
        self.recovered += count
        self.pending += count
        self.bytes += size
        self._on_disk += count
        self._room.add(count, size)
        self._fill_up()

    def recall(self) -> None:
        """Take back what was under way in a loop that has ended, and forget who waited there."""
        for lane in self.lanes:
            lane.recall()
        self._room.begin(self.pending, self.bytes)
        self._flushes.clear()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._loading = None
        self._moving = 0

    def _has_window(self) -> bool:
        return self.pending - self._on_disk < WINDOW_ROWS and self.bytes < WINDOW_BYTES

    def _fill_up(self) -> None:
        """Read on from the disk once less than half of what may be is in memory."""
        in_memory = self.pending - self._on_disk
        # Rows that are being moved get numbers before those of newer ones: not to be passed over.
        if self._on_disk <= 0 or self._loading or self._moving or in_memory >= WINDOW_ROWS // 2:
            return
        self._loading = self.store.load(self._tail, WINDOW_ROWS - in_memory, WINDOW_BYTES)
        self._loading.add_done_callback(partial(self._loaded, self._on_disk))

    async def _loaded_all(self) -> None:
        """Wait until nothing is being read from the disk."""
        while self._loading:
            await asyncio.wait([self._loading])

    def _loaded(self, expected: int, loading: asyncio.Future[Loaded]) -> None:
        """Take in what was read, when *expected* rows were known to be there."""
        if loading is not self._loading:
            return  # of a loop that has ended
        self._loading = None
        if loading.cancelled() or loading.exception() is not None:
            return  # the store has said why; the next row that leaves has it tried again
        found = loading.result()
        for row in found.rows:
            self._tail = row.seq
            self.lanes[row.key % len(self.lanes)].append(row)
        self._on_disk -= len(found.rows) + len(found.damaged)
        if found.damaged:
            self.dead += len(found.damaged)
            logger.error("%d events did not match their checksum", len(found.damaged))
            self.report(_damage(len(found.damaged)))
            self._leave(found.damaged)
        # Some may have come since it was read; but where nothing is found of what was there before,
        # nothing ever will be.
        if found.more or found.rows or found.damaged or self._on_disk != expected:
            self._fill_up()
        else:
            self._miss(self._on_disk)

    def _miss(self, count: int) -> None:
        """Count rows that were on disk and are there no more."""
        self._on_disk = 0
        self.pending -= count
        here = [row for lane in self.lanes for row in (*lane.flying, *lane.rows)]
        before, self.bytes = self.bytes, sum(len(row.body) for row in here)
        self._room.free(count, before - self.bytes)
        self._lose("damaged", count, "events are missing in the file")


def _damage(count: int) -> Loss:
    return Loss(reason="damaged", count=count, detail="rows did not match their checksum")
