"""Accepting events into the outbox, what happens when there is no room, and settling them.

All of it runs in one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Literal

from ..errors import CallInfo, DeadlineError, OutboxFullError
from .backlog import Backlog
from .lanes import Lane, Row
from .ledger import Ledger, logger
from .records import Loss
from .room import Room
from .store import Grave, Held, Store

WhenFull = Literal["block", "error", "drop_new", "drop_old"]

SPACE = 8192
"""Bytes of old events that go for a new one on a full disk: less may free no page of the file."""

RETRY_DISK = 0.2
"""Seconds between two tries to write to a full disk."""

TICK = 0.1
"""Seconds between two looks for waits that are over."""

LATE = "late"


class Outbox:
    """Takes rows into a ledger and a store, and out of them when they are settled."""

    def __init__(
        self,
        store: Store,
        lanes: int,
        room: Room,
        when_full: WhenFull,
        on_drop: Callable[[Loss], object] | None,
        clock: Callable[[], float],
    ) -> None:
        self.ledger = Ledger(lanes, room, on_drop)
        self.store = store
        self._takes_at_once = not store.is_durable
        self.backlog = Backlog(self.ledger, store)
        self._when_full = when_full
        self._clock = clock
        self._keeping: dict[asyncio.Future[str | None], float] = {}  # until when each may last
        self._sweep: asyncio.TimerHandle | None = None

    # Accepting

    def offer(self, row: Row) -> bool:
        """Take a row at once; False if it has to wait for room or a disk."""
        ledger = self.ledger
        room = ledger.room
        # `Room.take`, `enter` and `line_up`, without the calls: an eighth of what accepting costs.
        events, size = room.events + 1, room.bytes + len(row.body)
        is_over = events > room.max_events or size > room.max_bytes
        if is_over or room.places or not self._takes_at_once:
            return False
        room.events, room.bytes = events, size
        row.seq = ledger.last = ledger.given = ledger.given + 1
        ledger.accepted += 1
        lanes = ledger.lanes
        lane = lanes[row.key % len(lanes)]
        rows = lane.rows
        rows.append(row)
        if len(rows) >= lane.need:
            lane.wake()
        return True

    async def put(self, row: Row, timeout: float) -> None:
        """Take a row as ``when_full`` says, and return when it is in memory, or on disk.

        Raises `OutboxFullError`; for ``block`` this may take *timeout* seconds.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        room, size = self.ledger.room, len(row.body)
        while room.take(size) or await self._find_room(row, until):
            refused = await self._keep([row], size, until, loop)
            if refused is None or not await self._can_try_again(refused, until):
                if refused is not None:
                    self._refuse(row)
                return

    async def put_many(self, rows: Sequence[Row], timeout: float) -> None:
        """Take rows as `put` does, in pieces as large as there is room for."""
        loop, pieces = asyncio.get_running_loop(), [rows] if rows else []
        while pieces:
            part = pieces.pop()
            size = sum([len(row.body) for row in part])
            if self.ledger.room.take(size, len(part)):
                until = loop.time() + timeout
                if await self._keep(part, size, until, loop) is not None:
                    for row in part:
                        await self.put(row, timeout)
            elif len(part) == 1:
                await self.put(part[0], timeout)
            else:
                half = len(part) // 2
                pieces += [part[half:], part[:half]]

    async def _find_room(self, row: Row, until: float) -> bool:
        """Take room for a row; False if it is the one that was dropped."""
        size = len(row.body)
        while not self.ledger.room.take(size):
            match self._when_full:
                case "error":
                    raise OutboxFullError(f"the outbox is full: {self.ledger.pending} events wait")
                case "block":
                    return await self._wait_for_room(size, until)
                case "drop_old" if self._drop_oldest():
                    continue
            self._refuse(row)
            return False
        return True

    async def _wait_for_room(self, size: int, until: float) -> bool:
        try:
            await self.ledger.room.wait(size, until)
            return True
        except TimeoutError:
            pass
        raise OutboxFullError(f"the outbox stayed full: {self.ledger.pending} events wait")

    async def _keep(
        self, rows: Sequence[Row], size: int, until: float, loop: asyncio.AbstractEventLoop
    ) -> str | None:
        """Have rows kept for which there is room; return why the disk refuses, if it does.

        Raises `ClosedError` where the store is closed.
        """
        kept: asyncio.Future[str | None] = loop.create_future()
        self._give(rows, size, kept)
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
            self._keeping.pop(kept, None)
        raise DeadlineError("the disk has not answered in time", CallInfo(operation="outbox"))

    def put_now(self, rows: Sequence[Row]) -> None:
        """Take the first rows, as many as there is room for. Nobody waits for the disk."""
        room = self.ledger.room
        if rows := list(takewhile(lambda row: room.take(len(row.body)), rows)):
            self._give(rows, sum(len(row.body) for row in rows))

    def _give(
        self, rows: Sequence[Row], size: int, kept: asyncio.Future[str | None] | None = None
    ) -> None:
        """Number rows for which there is room and give them to the store; tell what came of it."""

        def done(_: object, error: Exception | None) -> None:
            # The rows are on their way whatever has become of who waits for them.
            if error is None:
                self._accept(rows, size)
            else:
                self.ledger.room.give_back(len(rows), size)
            if kept is not None and not kept.done():
                kept.set_result(None if error is None else str(error))

        given = self.ledger.given
        for seq, row in enumerate(rows, given + 1):
            row.seq = seq
        self.ledger.given = given + len(rows)
        self.store.put(rows, done)

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

    def _accept(self, rows: Sequence[Row], size: int) -> None:
        self.ledger.enter(rows, size)
        if not self.store.is_durable or self.backlog.passes(rows):
            self.ledger.line_up(rows)

    # When full

    def _drop_oldest(self) -> bool:
        """Drop the oldest row that no request carries and that is in memory, if there is one."""
        waiting = [lane for lane in self.ledger.lanes if lane.rows]
        if not waiting:
            return False
        row = min(waiting, key=lambda lane: lane.rows[0].seq).rows.popleft()
        self.store.forget([row])
        self._leave([row])
        self.ledger.lose("full", 1, "the oldest event was dropped for a new one")
        return True

    async def _make_space(self) -> bool:
        before = self.ledger.bytes
        while self.ledger.bytes > before - SPACE and self._drop_oldest():
            pass
        await self.store.forget(())  # returns when the deletions before it are through
        return self.ledger.bytes < before

    def _refuse(self, row: Row) -> None:
        self.ledger.accepted += 1
        detail = "a new event was dropped"
        if self._when_full == "drop_old":
            detail += ": all the others are being sent, or wait on disk only"
        self.ledger.lose("full", 1, detail)

    # Settling

    async def deliver(self, lane: Lane, rows: Sequence[Row]) -> None:
        """Count rows as delivered; return when the disk has forgotten them."""
        self.ledger.delivered += len(rows)
        lane.landed(rows)
        self._leave(rows)
        if self.store.is_durable:
            is_empty = not self.ledger.room.events and not self.backlog.moving
            await self.store.forget(rows, self.ledger.last if is_empty else 0)

    async def bury(self, lane: Lane, rows: Sequence[Row], reason: str, status: int | None) -> None:
        """Set rows aside as dead letters; the oldest of these go when there are too many."""
        now = self._clock()
        logger.warning("set aside %d events: %s, status %s", len(rows), reason, status)
        gone: dict[str, int] = {}
        try:
            gone = await self.store.bury([Grave(row, reason, status, now) for row in rows])
        finally:  # cancelled or not, it is done
            lane.landed(rows)
            self.ledger.dead += len(rows)
            self._leave(rows)
            self.ledger.lose_dead(gone)  # in the end: who is told may look at the counts

    async def bury_at_risk(self) -> None:
        """Set aside what was cut off under way and must not be sent twice."""
        burials = []
        for lane in self.ledger.lanes:
            if lane.at_risk:
                rows, lane.at_risk = lane.at_risk, []
                burials.append(self.bury(lane, rows, "unknown", None))
        await asyncio.gather(*burials)  # all have begun if this is cancelled

    def _leave(self, rows: Sequence[Row]) -> None:
        self.ledger.settle(rows)
        self.backlog.read_on()

    # From one loop to the next

    def begin(self, store: Store, held: Held) -> None:
        """Start from what a store holds, in the running loop."""
        self.recall()
        self.store = store
        self._takes_at_once = not store.is_durable
        self.backlog = Backlog(self.ledger, store)
        self.backlog.begin(held)

    def recall(self) -> None:
        """Take back what was under way in a loop that has ended, and forget who waited there."""
        self.ledger.recall()
        self.backlog.end()
        self._keeping.clear()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
