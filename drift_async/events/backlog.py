"""What waits on disk and not in memory: read on as the lanes empty, and added to by the file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from .lanes import Row
from .ledger import Ledger, logger
from .records import Loss
from .store import Held, Loaded, Replayed, Store

WINDOW_ROWS = 20_000
WINDOW_BYTES = 16 * 1024 * 1024
"""How much of what is on disk is held in memory."""

ADOPTED = 5_000
"""Rows to take over from other files at once."""


class Backlog:
    """The rows of an open file that are in no lane yet. They have higher numbers than all that are.

    A loop that has ended may still have tasks that refer to it, so each opening makes another.
    """

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._ledger = ledger
        self._store = store
        self._rows = 0  # how many there are
        self._tail = 0  # the last row in memory: these come after it
        self._reading: asyncio.Future[Loaded] | None = None
        self.moving = 0  # rows are being put into the file by itself
        store.on_gone = ledger.lose_dead

    def passes(self, rows: Sequence[Row]) -> bool:
        """Tell whether rows that were accepted go to their lanes at once; else they wait here."""
        ledger = self._ledger
        has_window = ledger.pending <= WINDOW_ROWS and ledger.bytes <= WINDOW_BYTES
        if has_window and not (self._rows or self._reading or self.moving):
            self._tail = rows[-1].seq
            return True
        self._rows += len(rows)
        self.read_on()
        return False

    # Reading

    def read_on(self) -> None:
        """Read on from the disk once less than half of what may be is in memory."""
        if self._rows <= 0 or self._reading or self.moving:
            # Rows that are being moved get numbers before those of newer ones: not to be passed.
            return
        in_memory = self._ledger.pending - self._rows
        if in_memory < WINDOW_ROWS // 2:
            self._reading = self._store.load(self._tail, WINDOW_ROWS - in_memory, WINDOW_BYTES)
            self._reading.add_done_callback(partial(self._have_read, self._rows))

    def _have_read(self, expected: int, reading: asyncio.Future[Loaded]) -> None:
        """Take in what was read, when *expected* rows were known to be there."""
        if reading is not self._reading:
            return  # closed meanwhile
        self._reading = None
        if reading.cancelled() or reading.exception() is not None:
            return  # the store has said why; the next row that leaves has it tried again
        ledger, found = self._ledger, reading.result()
        if found.rows:
            self._tail = found.rows[-1].seq
            ledger.line_up(found.rows)
        self._rows -= len(found.rows) + len(found.damaged)
        if found.damaged:
            count = len(found.damaged)
            ledger.dead += count
            ledger.settle(found.damaged)
            logger.error("%d events did not match their checksum", count)
            detail = "rows did not match their checksum"
            ledger.report(Loss(reason="damaged", count=count, detail=detail))
        # Some may have come since it was read; but where nothing is found of what was there before,
        # nothing ever will be.
        if found.more or found.rows or found.damaged or self._rows != expected:
            self.read_on()
        else:
            missing, self._rows = self._rows, 0
            ledger.miss(missing)

    async def _have_read_all(self) -> None:
        """Wait until nothing is being read from the disk."""
        while self._reading:
            await asyncio.wait([self._reading])

    # What the file does by itself

    def begin(self, held: Held) -> None:
        """Start from what the store holds."""
        self._ledger.begin(held.last, held.dead + sum(held.gone.values()))
        self._ledger.lose_dead(held.gone)
        self._find(held.pending, held.bytes, held.last)

    def _find(self, count: int, size: int, last: int) -> None:
        self._rows += count
        self._ledger.found(count, size, last)
        self.read_on()

    async def replay(self) -> int:
        """Put the dead letters at the end of the line again; return how many.

        There may be more of them than are counted yet: those stay, since no numbers are kept free.
        """
        await self._have_read_all()
        self.moving += 1
        before, count = self._ledger.given, self._ledger.dead
        self._ledger.given += count
        moved = asyncio.ensure_future(self._store.replay(before, count))
        moved.add_done_callback(partial(self._have_replayed, before))
        return (await asyncio.shield(moved)).count  # it is done whoever waits for it

    def _have_replayed(self, before: int, moved: asyncio.Future[Replayed]) -> None:
        self.moving -= 1
        if moved.cancelled() or moved.exception() is not None:
            self.read_on()  # who waits for it is told
            return
        ledger, found = self._ledger, moved.result()
        ledger.dead -= found.count
        ledger.wait_again(found.count, found.bytes, before + found.count)
        ledger.line_up(found.rows)
        self._rows += found.count - len(found.rows)
        self.read_on()

    async def adopt(self) -> None:
        """Take over what other processes have left behind."""
        ledger = self._ledger
        is_more = await self._store.has_others()
        while is_more:
            self.moving += 1
            try:
                await self._have_read_all()
                before, ledger.given = ledger.given, ledger.given + ADOPTED
                found = await self._store.adopt(before, ADOPTED)
            except BaseException:
                self.moving -= 1
                self.read_on()
                raise
            self.moving -= 1
            last = before + found.pending + found.dead
            if ledger.given == before + ADOPTED:
                ledger.given = last  # the other numbers stay free
            ledger.dead += found.dead
            ledger.accepted += found.dead
            self._find(found.pending, found.bytes, last)
            is_more = found.pending + found.dead >= ADOPTED

    def end(self) -> None:
        """Take in no more of what is being read."""
        self._reading = None
