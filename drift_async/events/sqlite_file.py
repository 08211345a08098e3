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
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from ..core.bulk import batched
from ..errors import InputError
from . import ownership, sqlite_format
from .sqlite_format import COLUMNS, DAMAGED, DISK_ERRORS, EVENT, LISTED, DamagedError
from .storage import (
    DeadLetter,
    DeadLetters,
    DeadLimits,
    Expired,
    QueuedEvent,
    ReadResult,
    Replayed,
    StorageSummary,
)

logger = logging.getLogger("drift_async.events")

ROWS = 64
"""Rows of one INSERT: statements are compiled once a size."""

_EXTRA = 65_536
"""Bytes by which a database is made larger than it has to be."""

_LOG = 262_144
"""Bytes that a log has at least: for deletions on a full disk."""

_YEAR_10000 = 253_402_300_800.0


class SqliteFile:
    """Events and dead letters in an outbox file that this client owns.

    Raises `OutboxLockedError` when it has another owner, `InputError` when it cannot be used. A
    damaged file is set aside, and replaced by one with all events that could be read.
    """

    def __init__(self, path: Path, stem: str, clock: Callable[[], float]) -> None:
        self.path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._stem = stem
        self._clock = clock
        self._undeleted: list[int] = []
        self._letters: list[DeadLetter] = []  # not yet moved to the table
        self._damage: list[str] = []  # to be reported
        self._damage_found: str | None = None  # why there is no connection, if there is none
        self._handles = contextlib.ExitStack()
        self._last = 0
        self._lock = ownership.Lock(path)
        try:
            if ownership.finish_replacing(path):
                self._damage.append(f"{path.name} was damaged, as was found before")
            for end in ("", *ownership.SIDES):
                ownership.check(path.with_name(path.name + end))
            try:
                self._open()
            except DamagedError as error:
                self._set_aside(str(error))
            for end in (".mark", ".reserve", ".lock"):  # of earlier versions
                with contextlib.suppress(OSError):
                    path.with_name(path.name + end).unlink()
        except BaseException as error:
            self._lock.release()
            raise sqlite_format.refusal(error, path) from None
        with contextlib.suppress(*DISK_ERRORS):
            self._commit()  # a file of the former format, else with a later commit

    def _open(self) -> None:
        """Open the database; nothing is written before it is known to be ours, nor needs to be."""
        has_log, self._has_log_space = self._log.exists(), False
        try:
            # Kept open as long as the database: closing it would end SQLite's locks on the file.
            self._descriptor = ownership.open_safely(self.path)
            self._handles.callback(os.close, self._descriptor)
            self._db = sqlite_format.connect(self.path)
            self._handles.callback(self._db.close)
            self._recognize(has_log)
            ((mode,),) = self._db.execute("PRAGMA journal_mode").fetchall()
            ((self._page_size,),) = self._db.execute("PRAGMA page_size").fetchall()
        except BaseException as error:
            self._disconnect()
            raise sqlite_format.refusal(error, self.path) from None
        self._is_wal = mode == "wal"
        self._damage_found = None

    def _recognize(self, has_log: bool) -> None:
        """Look whether the file is an outbox of ours, in the present format; raise if it is not."""
        db = self._db
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (owner,) = db.execute("PRAGMA user_version").fetchone()
        self._has_tables = tables > 0
        self._is_current = application == sqlite_format.APPLICATION_ID and owner != 0
        if not tables:
            if has_log:
                raise DamagedError("it is empty, but for a log")
            return
        if application not in (sqlite_format.APPLICATION_ID, sqlite_format.FORMER_ID):
            raise InputError("outbox", "is a database of something else")
        if owner not in (0, sqlite_format.kind_number(self._stem)):  # 0: not noted in early files
            raise InputError("outbox", "is that of another kind of client")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise DamagedError("the check failed")
        for table, columns in COLUMNS.items():
            db.execute(f"SELECT {columns} FROM {table} LIMIT 1").fetchall()
            (last,) = db.execute(f"SELECT ifnull(max(seq), 0) FROM {table}").fetchone()
            self._last = max(self._last, last)
        if not self._is_current:
            self._undeleted += sqlite_format.read_done(db)

    def _set_aside(self, damage: str, *, is_open: bool = False) -> None:
        """Replace the file by one with all that can be read of it, or of the open connection."""
        new = ownership.replacement_of(self.path)
        try:
            ownership.remove(new)
            kept = sqlite_format.salvage(self._db if is_open else self.path, new, self._stem)
        except DISK_ERRORS as error:
            why = f"is damaged ({damage}), and what is left cannot be copied ({error})"
            raise InputError("outbox", why) from None
        self._disconnect()
        self._damage_found = damage
        aside = ownership.set_aside(self.path)
        try:
            self._open()
        except DamagedError as error:
            raise InputError("outbox", f"cannot be opened ({error})") from None
        where = "" if is_open else f", the file is {aside}"
        detail = f"{self.path.name} was damaged ({damage}): {kept} events read{where}"
        logger.error("outbox: %s", detail)
        self._damage.append(detail)

    def _disconnect(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._handles.close()

    def _restore(self) -> None:
        """Make the file anew if it is damaged, or was removed, with all that is left of it."""
        if self._damage_found is not None:
            self._set_aside(self._damage_found)
        elif not ownership.is_at(self._descriptor, self.path):
            ownership.make_folder(self.path)
            if not ownership.is_at(self._lock.descriptor, self._lock.path):
                former, self._lock = self._lock, ownership.Lock(self.path)
                former.release(unlink=False)
            self._set_aside("it was removed", is_open=True)

    def _recover(self, error: Exception) -> None:
        """After a failure, make space in the log, or replace a damaged file: now, or later."""
        if sqlite_format.error_code(error) not in DAMAGED:
            self._make_log_space()
            return
        self._disconnect()
        self._damage_found = str(error)
        try:
            self._restore()
        except DISK_ERRORS as failure:
            logger.error("outbox: %s cannot be used: %s", self.path.name, failure)

    def take_damage(self) -> list[str]:
        """Return the damages that were found since the last call, in words."""
        damage, self._damage = self._damage, []
        return damage

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
        return [self._try(events, limit=0) for events in appends]

    def _delete_in_parts(self) -> None:
        """Delete as many events at once as the log has space for."""
        self._undeleted.sort()
        size = len(self._undeleted)
        while self._undeleted and size:
            try:
                self._commit(limit=size)
            except DISK_ERRORS as error:
                self._recover(error)
                size //= 2
            else:
                self._make_log_space()

    def _try(
        self,
        events: Sequence[QueuedEvent] = (),
        work: Callable[[], None] | None = None,
        limit: int | None = None,
    ) -> Exception | None:
        """Commit, once more if the first time fails; return the error if both do."""
        for _ in range(2):
            try:
                self._commit(events, work, limit)
                return None
            except DISK_ERRORS as error:
                self._recover(error)
                failure = error
        return failure

    def _make_log_space(self) -> None:
        """Copy the log into the database, which has space for it: see `_allocate`."""
        with contextlib.suppress(sqlite3.Error, OSError):
            ((busy, _, _),) = self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
            if not busy and self._log.stat().st_size > _LOG:
                os.truncate(self._log, _LOG)

    def _commit(
        self,
        events: Sequence[QueuedEvent] = (),
        work: Callable[[], None] | None = None,
        limit: int | None = None,
    ) -> None:
        """Delete, move dead letters, add events and do *work*, in one transaction.

        With a *limit*, delete only so many, and move none.
        """
        self._restore()
        letters = self._letters if limit is None else []
        deleted = self._undeleted[:limit]
        is_former = self._has_tables and not self._is_current
        if not (events or work or deleted or letters or is_former):
            return
        if not self._is_wal:
            ((mode,),) = self._db.execute("PRAGMA journal_mode=WAL").fetchall()
            self._is_wal = mode == "wal"
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if not self._is_current:
                sqlite_format.write_schema(self._db, self._stem)
            self._delete(deleted + [letter.event.number for letter in letters])
            self._move(letters)
            self._insert(self._last + 1, events)
            if work is not None:
                work()
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

    def _delete(self, numbers: Sequence[int]) -> None:
        if numbers:
            sql = f"DELETE FROM events WHERE seq IN {LISTED}"
            self._db.executemany(sql, [(json.dumps(numbers),)])

    def _move(self, letters: Sequence[DeadLetter]) -> None:
        """Write events to the table of dead letters. Damaged ones get no checksum."""
        rows = [
            (
                *(event.number, event.kind, event.key, event.body),
                sqlite_format.checksum(event) if letter.is_intact else None,
                *(letter.reason, letter.status, letter.died_at),
            )
            for letter in letters
            for event in (letter.event,)
        ]
        if rows:
            sql = "INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            self._db.executemany(sql, rows)

    def _insert(self, number: int, events: Sequence[QueuedEvent]) -> None:
        for part in batched(events, ROWS):
            values: list[object] = []
            for seq, event in enumerate(part, number):
                crc = sqlite_format.checksum(event)
                values += (seq, event.kind, event.key, event.body, crc)
            marks = ",".join(["(?, ?, ?, ?, ?)"] * len(part))
            self._db.executemany(f"INSERT INTO events VALUES {marks}", [values])
            number += len(part)

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

    def dead_letter(self, letters: Sequence[DeadLetter], limits: DeadLimits) -> Expired:
        """Move events to the dead letters, now or when the disk takes it."""
        self._letters += letters
        return self._expire(limits)

    def _expire(self, limits: DeadLimits) -> Expired:
        """Delete dead letters over the limits, unless the disk is full."""
        expired: dict[str, int] = {}

        def work() -> None:
            oldest = (self._clock() - limits.seconds,)
            expired["dead_old"] = self._db.execute(
                "DELETE FROM dead WHERE died_at < ?", oldest
            ).rowcount
            expired["dead_full"] = self._db.execute(
                "DELETE FROM dead WHERE seq IN (SELECT seq FROM dead ORDER BY died_at, seq"
                " LIMIT max(0, (SELECT count(*) FROM dead) - ?))",
                (limits.count,),
            ).rowcount

        has_dead = self._has_tables and self._db.execute("SELECT 1 FROM dead LIMIT 1").fetchone()
        if (has_dead or self._letters) and self._try(work=work) is not None:
            return {}
        return expired

    def dead(self, limits: DeadLimits) -> DeadLetters:
        """Return the dead letters."""
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
                sqlite_format.is_intact(kind, key, body, crc),
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
        summary = self._summary()
        return attrs.evolve(summary, expired=self._expire(limits))

    def _summary(self) -> StorageSummary:
        pending = size = dead = 0
        if self._has_tables:
            (pending, size) = self._db.execute(
                "SELECT count(*), ifnull(sum(length(CAST(ifnull(body, '') AS BLOB))), 0)"
                f" FROM events WHERE seq NOT IN {LISTED}",
                (json.dumps(self._undeleted),),
            ).fetchone()
            (dead,) = self._db.execute("SELECT count(*) FROM dead").fetchone()
        return StorageSummary(pending, size, dead, self._last)

    def read(self, after: int, count: int, size: int) -> ReadResult:
        """Return the events that follow number *after*."""
        self._restore()
        try:
            return self._read(after, count, size)
        except sqlite3.Error as error:
            if sqlite_format.error_code(error) not in DAMAGED:
                raise
            self._recover(error)
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
                (events if sqlite_format.is_intact(kind, key, body, crc) else damaged).append(event)
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
            if self._try() is not None:
                self._delete_in_parts()
                self._try()
            left = self.undeleted
            if not ownership.is_at(self._descriptor, self.path):
                logger.error("outbox: %s was removed, and what was in it is lost", self.path.name)
            held = self._summary()
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
