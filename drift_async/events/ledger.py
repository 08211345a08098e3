"""Where accepted events stand: in their lanes until they are settled, and in exact numbers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

import attrs

from .lanes import Lane, Row
from .records import Loss
from .room import Room

logger = logging.getLogger("drift_async.events")


@attrs.define(eq=False, repr=False)
class _Flush:
    """Somebody who waits until all rows up to a number are settled."""

    mark: int
    left: int
    done: asyncio.Future[None]

    def settled(self, count: int) -> None:
        self.left -= count
        if self.left <= 0 and not self.done.done():
            self.done.set_result(None)


class Ledger:
    """Lanes, and counters that are exact at every moment.

    ``accepted == delivered + pending + dead + sum(dropped.values())`` always holds: what changes
    one of them changes the other before anything is awaited.
    """

    def __init__(self, lanes: int, room: Room, on_drop: Callable[[Loss], object] | None) -> None:
        self.lanes = [Lane() for _ in range(lanes)]
        self.room = room
        self.accepted = self.delivered = self.dead = self.recovered = 0
        self.dropped: dict[str, int] = {}
        self.given = 0
        """The last number given to a row."""
        self.last = 0
        """The highest of a row accepted."""
        self._on_drop = on_drop
        self._flushes: set[_Flush] = set()

    @property
    def pending(self) -> int:
        """How many events are accepted and not settled."""
        return self.room.events - self.room.coming

    @property
    def bytes(self) -> int:
        """Their bytes."""
        return self.room.bytes - self.room.coming_bytes

    def enter(self, rows: Sequence[Row], size: int) -> None:
        """Count rows as accepted that have so many bytes, for which room was taken."""
        self.accepted += len(rows)
        self.room.arrived(len(rows), size)
        self._reach(rows[-1].seq, len(rows))

    def line_up(self, rows: Sequence[Row]) -> None:
        """Put rows at the end of their lanes."""
        waiting = [lane.rows for lane in self.lanes]
        count = len(waiting)
        for row in rows:
            waiting[row.key % count].append(row)
        for lane in self.lanes:
            lane.wake_if_due()

    def found(self, count: int, size: int, last: int) -> None:
        """Count rows that were found on disk, up to number *last*."""
        self.accepted += count
        self.recovered += count
        self.wait_again(count, size, last)

    def wait_again(self, count: int, size: int, last: int) -> None:
        """Count rows as pending, up to number *last*, whether there is room or not."""
        self.room.add(count, size)
        self._reach(last, count)

    def _reach(self, last: int, count: int) -> None:
        """Note that so many rows, up to number *last*, are pending now."""
        if last > self.last:
            self.last = last
        else:  # others were faster, and a flush would take these for such as it waits for
            for flush in self._flushes:
                if last <= flush.mark:
                    flush.left += count

    def settle(self, rows: Sequence[Row]) -> None:
        """Count rows as pending no longer, and let go on who waited for that."""
        for flush in self._flushes:
            flush.settled(sum(row.seq <= flush.mark for row in rows))
        self.room.free(len(rows), sum([len(row.body) for row in rows]))

    def miss(self, count: int) -> None:
        """Count rows as lost that were pending on disk and are there no more."""
        here = [row for lane in self.lanes for row in (*lane.flying, *lane.rows)]
        size = self.bytes - sum(len(row.body) for row in here)
        for flush in self._flushes:
            flush.settled(flush.left - sum(row.seq <= flush.mark for row in here))
        self.room.free(count, size)
        self.lose("damaged", count, "events are missing in the file")

    def lose(self, reason: str, count: int, detail: str) -> None:
        """Count events as dropped, and tell of it."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        self.report(Loss(reason=reason, count=count, detail=detail))

    def lose_dead(self, gone: Mapping[str, int]) -> None:
        """Count dead letters as dropped, by reason, and tell of it."""
        for reason, count in gone.items():
            if count:
                self.dead -= count
                self.lose(reason, count, "dead letters over the limit were dropped")

    def report(self, loss: Loss) -> None:
        """Tell the user's callable of a loss; what it raises is logged."""
        if self._on_drop is not None:
            try:
                self._on_drop(loss)
            except Exception:  # delivery must not end because of who is told of a loss
                logger.exception("on_drop raised")

    def in_flight(self) -> int:
        """Return how many rows requests are carrying."""
        return sum(len(lane.flying) for lane in self.lanes)

    def wake(self) -> None:
        """Have all workers look again."""
        for lane in self.lanes:
            lane.wake()

    async def drained(self) -> None:
        """Return once all that is pending now is settled."""
        if self.pending:
            done = asyncio.get_running_loop().create_future()
            flush = _Flush(self.last, self.pending, done)
            self._flushes.add(flush)
            try:
                await done
            finally:
                self._flushes.discard(flush)

    def give_up_flushes(self) -> None:
        """Let go on who waits for rows that will not be settled soon."""
        for flush in self._flushes:
            flush.settled(flush.left)

    def recall(self) -> None:
        """Take back what was under way in a loop that has ended, and forget who waited there."""
        self.lanes = [lane.successor() for lane in self.lanes]
        self.room.begin(self.pending, self.bytes)
        self._flushes.clear()

    def begin(self, last: int, dead: int) -> None:
        """Start anew with what a file holds: *last* is its last number."""
        for lane in self.lanes:
            lane.rows.clear()
        self.given = self.last = last
        self.recovered = 0
        self.room.begin(0, 0)
        self.dead = dead
        self.accepted = self.delivered + dead + sum(self.dropped.values())
