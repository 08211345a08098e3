"""The files of a durable outbox: opened by one owner, checked, and set aside when damaged.

A file is an SQLite database in WAL mode under an exclusive lock, held as long as it is open. Beside
it lies a mark with the number of its last row, since a lost WAL does not show in the database.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from ..errors import InputError, OutboxLockedError

logger = logging.getLogger("drift_async.events")

APPLICATION_ID = 0x44724576
SUFFIX = ".sqlite"

_SCHEMA = """
CREATE TABLE events (seq INTEGER PRIMARY KEY, kind INT, key INT, body BLOB, crc INT);
CREATE TABLE dead (
    seq INTEGER PRIMARY KEY, kind INT, key INT, body BLOB, crc INT,
    reason TEXT, status INT, died_at REAL
);
CREATE TABLE done (seq INTEGER PRIMARY KEY ON CONFLICT IGNORE);
CREATE TABLE state (last INT);
INSERT INTO state VALUES (0);
"""
_COLUMNS = {"events": 5, "dead": 8, "done": 1}


class _DamagedError(Exception):
    """A file that cannot be used."""


@attrs.define(eq=False, repr=False)
class File:
    """An open file: the connection, and what was lost of it before."""

    path: Path
    db: sqlite3.Connection
    mark: int
    lost: list[tuple[int, str]] = attrs.Factory(list)
    is_synced: bool = True

    def sync(self, is_synced: bool) -> None:
        """Make the commits that follow wait for the disk itself, or not.

        A power cut may undo those that do not, up to the next that does; the end of the process
        undoes none.
        """
        if is_synced != self.is_synced:
            self.db.execute(f"PRAGMA synchronous={'FULL' if is_synced else 'NORMAL'}")
            self.is_synced = is_synced

    def insert(self, table: str, values: list[Any]) -> None:
        """Add rows, given as all their columns one after another.

        For the time of a statement other threads run, and then it has to wait for them: so these
        are few, and of few sizes, since they are compiled once.
        """
        width, start = _COLUMNS[table], 0
        most = self.db.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // width
        while left := (len(values) - start) // width:
            count = 1 << min(left, most, 4096).bit_length() - 1
            marks = ",".join([f"({','.join('?' * width)})"] * count)
            part = values[start : start + count * width]
            self.db.execute(f"INSERT INTO {table} VALUES {marks}", part)
            start += len(part)

    def purge(self) -> None:
        """Remove the events that are done."""
        self.db.execute("DELETE FROM events WHERE seq IN (SELECT seq FROM done)")
        self.db.execute("DELETE FROM done")

    def close(self) -> None:
        """Give the file free."""
        self.db.close()
        os.close(self.mark)


def checksum(kind: int, key: int, body: bytes) -> int:
    """Return what is kept with a row to notice that it has changed."""
    return zlib.crc32(body, key ^ kind)


def candidates(outbox: Path, stem: str) -> Iterator[Path]:
    """Give the files there are, and then names for a new one.

    A new one may be locked too: by who looks in this moment for files without an owner.
    """
    if outbox.suffix == SUFFIX:
        yield outbox
        return
    yield from sorted(outbox.glob(f"{stem}-*{SUFFIX}"))
    for _ in range(20):
        yield outbox / f"{stem}-{uuid.uuid4().hex[:12]}{SUFFIX}"


def open_file(path: Path) -> File:
    """Open and lock a file; a damaged one is set aside, and what can be read of it kept.

    Raises `OutboxLockedError` when it has an owner.
    """
    lost: list[tuple[int, str]] = []
    try:
        db = _connect(path)
    except _DamagedError as damage:
        aside, db = _replace(path)
        kept = _salvage(aside, db)
        said = f"{path.name} was damaged ({damage}): {kept} events read, the file is {aside.name}"
        logger.error("outbox: %s", said)
        lost.append((0, said))
    mark = os.open(f"{path}.mark", os.O_CREAT | os.O_RDWR, 0o600)
    (last,) = db.execute("SELECT last FROM state").fetchone()
    if not lost and (gone := _read_mark(mark) - last) > 0:
        said = f"the last writes to {path.name} are gone, up to {gone} events with them"
        logger.error("outbox: %s", said)
        lost.append((gone, said))
    return File(path, db, mark, lost)


def _connect(path: Path) -> sqlite3.Connection:
    with contextlib.suppress(FileExistsError):
        # Not where it exists: closing it would drop the locks of another client in this process.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    db = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        _prepare(db)
        return db
    except sqlite3.DatabaseError as error:
        db.close()
        code = error.sqlite_errorcode & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            refusal: Exception = OutboxLockedError(f"{path.name} has an owner")
        elif code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            refusal = _DamagedError(str(error))
        else:
            refusal = InputError("outbox", f"cannot be opened ({error})")
    except BaseException:
        db.close()
        raise
    raise refusal


def _prepare(db: sqlite3.Connection) -> None:
    # In this order: a lock that is exclusive from the first access needs no shared memory file.
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA trusted_schema=OFF")
    db.execute("BEGIN IMMEDIATE")
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if not tables:
        for statement in filter(str.strip, _SCHEMA.split(";")):
            db.execute(statement)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    elif application != APPLICATION_ID:
        raise InputError("outbox", "is a database of something else")
    db.execute("COMMIT")
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok" or db.execute("SELECT last FROM state").fetchone() is None:
        raise _DamagedError("the check failed")
    db.execute("SELECT seq, kind, key, body, crc FROM events LIMIT 1").fetchall()
    db.execute("SELECT reason, status, died_at FROM dead LIMIT 1").fetchall()
    db.execute("SELECT seq FROM done LIMIT 1").fetchall()


def _replace(path: Path) -> tuple[Path, sqlite3.Connection]:
    """Give a damaged file another name, and begin a new one under its own."""
    aside = path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:8]}")
    path.rename(aside)
    with contextlib.suppress(FileNotFoundError):
        path.with_name(f"{path.name}-wal").rename(aside.with_name(f"{aside.name}-wal"))
    try:
        return aside, _connect(path)
    except _DamagedError as damage:
        raise InputError("outbox", f"cannot be opened ({damage})") from None


def _salvage(aside: Path, db: sqlite3.Connection) -> int:
    """Copy what can be read of a damaged file: from the front, and from the back."""
    with contextlib.closing(sqlite3.connect(aside, timeout=0, isolation_level=None)) as old:
        old.execute("PRAGMA writable_schema=ON")  # or a file that was cut is not read at all
        db.execute("BEGIN IMMEDIATE")
        for table in ("events", "dead"):
            width = _COLUMNS[table]
            for direction in ("ASC", "DESC"):
                marks = ",".join("?" * width)
                rows = _readable(old, f"SELECT * FROM {table} ORDER BY seq {direction}", width)
                db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)
        with contextlib.suppress(sqlite3.DatabaseError):
            db.executemany("DELETE FROM events WHERE seq = ?", old.execute("SELECT * FROM done"))
    db.execute(
        "UPDATE state SET last = max((SELECT coalesce(max(seq), 0) FROM events),"
        " (SELECT coalesce(max(seq), 0) FROM dead))"
    )
    db.execute("COMMIT")
    (kept,) = db.execute("SELECT count(*) FROM events").fetchone()
    return int(kept)


def _readable(old: sqlite3.Connection, query: str, width: int) -> Iterator[tuple[object, ...]]:
    with contextlib.suppress(sqlite3.DatabaseError):
        for row in old.execute(query):
            match row:
                case (int(), int(kind), int(key), bytes(body), int(crc), *_) if (
                    len(row) == width and checksum(kind, key, body) == crc
                ):
                    yield row


def _read_mark(mark: int) -> int:
    os.lseek(mark, 0, os.SEEK_SET)
    digits = os.read(mark, 20)
    return int(digits) if digits.isdigit() else 0


def write_mark(mark: int, last: int) -> None:
    """Note the number of the last row; not synced, since it is about files, not about power."""
    os.lseek(mark, 0, os.SEEK_SET)
    os.write(mark, b"%020d" % last)
