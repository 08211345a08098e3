"""One outbox file: an SQLite database in WAL mode. All of this runs in the storage's thread.

In each statement the thread gives the interpreter lock away, and a busy event loop may be slow to
give it back. So there are few statements, and `executemany` runs them, which gives it away least.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import ownership
from .sqlite_database import (
    COLUMNS,
    DAMAGED,
    DISK_ERRORS,
    EVENT,
    LISTED,
    Database,
    checksum,
    error_code,
    is_intact,
    write_schema,
)
from .storage import (
    DeadLetter,
    DeadLetters,
    DeadLimits,
    QueuedEvent,
    ReadResult,
    Replayed,
    StorageSummary,
)

logger = logging.getLogger("drift_async.events")

_SIZES = (512, 64)
"""Numbers of rows of one INSERT, beside those below 64: statements are compiled once a size."""

_EXTRA = 65_536
"""Bytes by which a database is made larger than it has to be."""

_LOG = 262_144
"""Bytes that a log has at least: for deletions on a full disk."""

_YEAR_10000 = 253_402_300_800.0


class SqliteFile(Database):
    """Events and dead letters in an outbox file: see `Database` for opening it."""

    def __init__(self, path: Path, stem: str, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._letters: list[DeadLetter] = []  # not yet moved to the table
        super().__init__(path, stem)
        if self._has_tables and not self._is_current:
            self._upgrade()

    def _upgrade(self) -> None:
        """Make a file of the former format one of the present format, now or with a commit."""
        with contextlib.suppress(*DISK_ERRORS):
            self._commit(work=bool)

    # Writing

    @property
    def undeleted(self) -> int:
        """Number of deletions that wait for space on the disk."""
        return len(self._undeleted) + len(self._letters)

    def write(
        self, appends: Sequence[Sequence[QueuedEvent]], numbers: Sequence[int]
    ) -> list[Exception | None]:
        """Delete events and add others, in one commit, or if that fails in one for each.

        Returns the error of each addition, or None.
        """
        self._undeleted += numbers
        try:
            self._commit([event for events in appends for event in events])
            return [None] * len(appends)
        except DISK_ERRORS as error:
            self._recover(error)
        self._delete_in_parts()  # deletions first: they make space
        return [self._try(events) for events in appends]

    def _delete_in_parts(self) -> None:
        """Delete as many events at once as the log has space for."""
        self._undeleted.sort()
        size = len(self._undeleted)
        while self._undeleted and size:
            try:
                self._commit(with_letters=False, limit=size)
            except DISK_ERRORS as error:
                self._recover(error)
                size //= 2
            else:
                self._make_log_space()

    def _try(self, events: Sequence[QueuedEvent]) -> Exception | None:
        for _ in range(2):
            try:
                self._commit(events, with_letters=False, limit=0)
                return None
            except DISK_ERRORS as error:
                self._recover(error)
                failure = error
        return failure

    def _recover(self, error: Exception) -> None:
        """After a failed commit, make space in the log, or replace a damaged file."""
        if error_code(error) in DAMAGED:
            self._replace(error)
            return
        self._make_log_space()

    def _make_log_space(self) -> None:
        """Copy the log into the database, which has space for it: see `_allocate`."""
        with contextlib.suppress(sqlite3.Error, OSError):
            ((busy, _, _),) = self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
            if not busy and self._log.stat().st_size > _LOG:
                os.truncate(self._log, _LOG)

    def _commit(
        self,
        events: Sequence[QueuedEvent] = (),
        work: Callable[[], Any] | None = None,
        *,
        with_letters: bool = True,
        limit: int | None = None,
    ) -> Any:
        """Add events, and do *work*, after all deletions or *limit* ones, in one transaction."""
        self._restore()
        letters = self._letters if with_letters else []
        deleted = self._undeleted[:limit]
        if not (events or work or deleted or letters):
            return None
        if not self._is_wal:
            ((mode,),) = self._db.execute("PRAGMA journal_mode=WAL").fetchall()
            self._is_wal = mode == "wal"
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if not self._is_current:
                write_schema(self._db, self._stem)
            self._delete(deleted + [letter.event.number for letter in letters])
            self._move(letters)
            self._insert(self._last + 1, events)
            result = work() if work is not None else None
            self._allocate()
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # some errors have done so
                self._db.execute("ROLLBACK")
            raise
        self._is_current = self._has_tables = True
        self._undeleted = self._undeleted[len(deleted) :]
        self._letters = self._letters[len(letters) :]
        for number, event in enumerate(events, self._last + 1):
            event.number = number
        self._last += len(events)
        return result

    def _delete(self, numbers: Sequence[int]) -> None:
        if numbers:
            sql = f"DELETE FROM events WHERE seq IN {LISTED}"
            self._db.executemany(sql, [(json.dumps(numbers),)])

    def _move(self, letters: Sequence[DeadLetter]) -> None:
        """Write events to the table of dead letters. Damaged ones get no checksum."""
        rows = [
            (
                *(event.number, event.kind, event.key, event.body),
                checksum(event) if letter.is_intact else None,
                *(letter.reason, letter.status, letter.died_at),
            )
            for letter in letters
            for event in (letter.event,)
        ]
        if rows:
            sql = "INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            self._db.executemany(sql, rows)

    def _insert(self, number: int, events: Sequence[QueuedEvent]) -> None:
        most = self._db.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // 5
        start = 0
        while left := len(events) - start:
            size = next((size for size in _SIZES if size <= min(left, most)), min(left, 63))
            values: list[Any] = []
            for seq, event in enumerate(events[start : start + size], number + start):
                values += (seq, event.kind, event.key, event.body, checksum(event))
            marks = ",".join(["(?, ?, ?, ?, ?)"] * size)
            self._db.executemany(f"INSERT INTO events VALUES {marks}", [values])
            start += size

    def _allocate(self) -> None:
        """Take the space on the disk that the database needs once the log is copied into it.

        So on a full disk the log can always be copied, and then has space for deletions. SQLite
        allows files that are larger than what is in them.
        """
        ((pages,),) = self._db.execute("PRAGMA page_count").fetchall()
        size, needed = os.fstat(self._descriptor).st_size, pages * self._page_size
        if needed > size:
            _extend(self._descriptor, size, needed, _EXTRA)
        if self._is_wal and not self._has_log_space:
            log = ownership.open_safely(self._log)
            try:
                _extend(log, os.fstat(log).st_size, _LOG)
            finally:
                os.close(log)
            self._has_log_space = True

    # Dead letters

    def dead_letter(self, letters: Sequence[DeadLetter], limits: DeadLimits) -> Mapping[str, int]:
        """Move events to the dead letters, now or when the disk takes it."""
        self._letters += letters
        return self._expire(limits)

    def _expire(self, limits: DeadLimits) -> Mapping[str, int]:
        """Delete dead letters over the limits, unless the disk is full; return how many."""

        def work() -> Mapping[str, int]:
            oldest = (self._clock() - limits.seconds,)
            old = self._db.execute("DELETE FROM dead WHERE died_at < ?", oldest).rowcount
            full = self._db.execute(
                "DELETE FROM dead WHERE seq IN (SELECT seq FROM dead ORDER BY died_at, seq"
                " LIMIT max(0, (SELECT count(*) FROM dead) - ?))",
                (limits.count,),
            ).rowcount
            return {"dead_old": old, "dead_full": full}

        has_dead = self._has_tables and self._db.execute("SELECT 1 FROM dead LIMIT 1").fetchone()
        for _ in range(2 if has_dead or self._letters else 0):
            try:
                result: Mapping[str, int] = self._commit(work=work)
                return result
            except DISK_ERRORS as error:
                self._recover(error)
        return {}

    def dead(self, limits: DeadLimits) -> DeadLetters:
        """Return the dead letters, oldest first."""
        expired = self._expire(limits)
        return DeadLetters(self._read_dead(), expired)

    def _read_dead(self) -> list[DeadLetter]:
        if not self._has_tables:
            return []
        rows = self._db.execute(f"SELECT {COLUMNS['dead']} FROM dead ORDER BY died_at, seq")
        return [
            DeadLetter(
                QueuedEvent(kind, key, body, seq),
                str(reason),
                status,
                # No checksum is kept of this: it must be a time.
                died_at if isinstance(died_at, float) and 0 <= died_at < _YEAR_10000 else 0.0,
                is_intact(kind, key, body, crc),
            )
            for seq, kind, key, body, crc, reason, status, died_at in rows
        ] + self._letters

    def replay(self, limits: DeadLimits) -> Replayed:
        """Move the dead letters that are intact to the end of the events."""
        expired = self._expire(limits)
        events = [letter.event for letter in self._read_dead() if letter.is_intact]
        former = json.dumps([event.number for event in events])

        def work() -> None:
            self._db.execute(f"DELETE FROM dead WHERE seq IN {LISTED}", (former,))

        if events:
            self._commit(events, work)
        size = sum([len(event.body) for event in events])
        return Replayed(len(events), size, self._last, expired)

    # Reading: it never writes, so it works on a full disk

    def summary(self, limits: DeadLimits) -> StorageSummary:
        """Return what is in the file."""
        pending = size = dead = 0
        expired = self._expire(limits)
        if self._has_tables:
            (pending, size) = self._db.execute(
                "SELECT count(*), ifnull(sum(length(CAST(ifnull(body, '') AS BLOB))), 0)"
                f" FROM events WHERE seq NOT IN {LISTED}",
                (json.dumps(self._undeleted),),
            ).fetchone()
            (dead,) = self._db.execute("SELECT count(*) FROM dead").fetchone()
        return StorageSummary(pending, size, dead, self._last, expired)

    def read(self, after: int, count: int, size: int) -> ReadResult:
        """Return the events that follow number *after*."""
        self._restore()
        try:
            return self._read(after, count, size)
        except sqlite3.Error as error:
            if error_code(error) not in DAMAGED:
                raise
            self._replace(error)
        return self._read(after, count, size)

    def _read(self, after: int, count: int, size: int) -> ReadResult:
        events: list[QueuedEvent] = []
        damaged: list[QueuedEvent] = []
        if not self._has_tables:
            return ReadResult(events, damaged)
        hidden = {*self._undeleted, *(letter.event.number for letter in self._letters)}
        sql = f"SELECT {EVENT} FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
        for seq, kind, key, body, crc in self._db.execute(sql, (after, count + len(hidden))):
            if seq not in hidden:
                event = QueuedEvent(kind, key, body, seq)
                (events if is_intact(kind, key, body, crc) else damaged).append(event)
                size -= len(body)
                if size <= 0:
                    break
        return ReadResult(events, damaged)

    def close(self, *, keep_empty: bool) -> int:
        """Give the file free; return how many deletions could not be done.

        An empty file is removed, or shrunk if it is to be kept and deletions could be done.
        """
        left, is_empty = 0, False
        try:
            for _ in range(2):
                try:
                    self._commit()
                    break
                except DISK_ERRORS as error:
                    self._recover(error)
                    self._delete_in_parts()
            left = self.undeleted
            if not ownership.is_at(self._descriptor, self.path):
                logger.error("outbox: %s was removed, and what was in it is lost", self.path.name)
            held = self.summary(_NO_LIMITS)
            is_empty = not (held.pending or held.dead or self._letters)
            if is_empty and keep_empty and not left and self._has_tables:
                self._db.execute("VACUUM")  # the disk gets back what is free, and its content
        except DISK_ERRORS as error:
            logger.warning("outbox: %s: %s", self.path.name, error)
        finally:
            self._disconnect()
            if is_empty and (left or not keep_empty):
                with contextlib.suppress(OSError):
                    ownership.remove(self.path)
                    left = 0
            self._lock.release()
        return left


_NO_LIMITS = DeadLimits(count=1 << 60, seconds=1e12)


def _extend(descriptor: int, size: int, needed: int, extra: int = 0) -> None:
    """Make a file larger, with space on the disk for all of it; *extra* bytes if there are."""
    if needed <= size or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, size, needed + extra - size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            return  # not every file system has it
        if not extra:
            raise
        _extend(descriptor, size, needed)
