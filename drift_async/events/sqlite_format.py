"""The format of an outbox file: its tables and checksums, and what can be read of a damaged one."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path

from ..errors import DriftError, InputError, OutboxLockedError
from . import ownership
from .storage import QueuedEvent

logger = logging.getLogger("drift_async.events")

APPLICATION_ID = 0x44724577
FORMER_ID = 0x44724576
"""Id of files from before version 2 of the format: with a table of numbers to delete, ``done``."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, kind INT, key INT, body BLOB, crc INT);
CREATE TABLE IF NOT EXISTS dead (
    seq INTEGER PRIMARY KEY, kind INT, key INT, body BLOB, crc INT,
    reason TEXT, status INT, died_at REAL
);
DROP TABLE IF EXISTS done"""

# One changed bit makes another type of a value. Cast to bytes, reading it never raises.
EVENT = "seq, kind, key, CAST(ifnull(body, '') AS BLOB), crc"
COLUMNS = {"events": EVENT, "dead": f"{EVENT}, reason, status, died_at"}
LISTED = "(SELECT value FROM json_each(?))"
"""Numbers that are given as a JSON list."""

_SETTINGS = (
    "locking_mode=EXCLUSIVE",  # from the first access: needs no shared memory file
    "synchronous=FULL",
    "trusted_schema=OFF",
    # Some systems have SQLite write zeros over deleted events, which takes long.
    "secure_delete=OFF",
)
_FOR_SALVAGE = ("locking_mode=EXCLUSIVE", "writable_schema=ON")
"""Settings with which a file is read that was cut off."""

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_UNREADABLE = (*DAMAGED, sqlite3.SQLITE_ERROR)

DISK_ERRORS = (sqlite3.Error, OSError, DriftError)

_TEXT = partial(str, encoding="utf-8", errors="replace")


class DamagedError(Exception):
    """A file that cannot be read as a database."""


def checksum(event: QueuedEvent) -> int:
    """Return the number that is kept with an event to notice that it has changed."""
    return zlib.crc32(event.body, event.key ^ event.kind)


def is_intact(kind: object, key: object, body: bytes, crc: object) -> bool:
    """Return whether a row is as it was written."""
    return isinstance(kind, int) and isinstance(key, int) and zlib.crc32(body, key ^ kind) == crc


def kind_number(stem: str) -> int:
    """Return the number of a kind of client, which is in its files; never 0."""
    return zlib.crc32(stem.encode()) >> 2 | 1


def connect(path: Path, settings: Sequence[str] = _SETTINGS) -> sqlite3.Connection:
    """Connect to a file that this process owns."""
    db = sqlite3.connect(path, timeout=0, isolation_level=None)
    db.text_factory = _TEXT  # a text that is none must not keep others from being read
    try:
        for setting in settings:
            db.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def write_schema(db: sqlite3.Connection, stem: str) -> None:
    """Make a file, or one of the former format, one of the present format."""
    for statement in _SCHEMA.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    db.execute(f"PRAGMA user_version={kind_number(stem)}")


def read_done(db: sqlite3.Connection) -> list[int]:
    """Return the numbers of events that a file of the former format holds as done."""
    numbers: list[int] = []
    with contextlib.suppress(sqlite3.Error):
        for listed, total in db.execute("SELECT seqs, sum FROM done"):
            with contextlib.suppress(ValueError, TypeError):
                if sum(done := json.loads(listed)) == total:  # else a bit has changed
                    numbers += done
    return numbers


def salvage(damaged: Path | sqlite3.Connection, new: Path, stem: str) -> int:
    """Copy the intact rows of a damaged file to a new one; return how many events those are."""
    with contextlib.ExitStack() as stack:
        old = damaged if isinstance(damaged, sqlite3.Connection) else None
        if isinstance(damaged, Path):
            with contextlib.suppress(sqlite3.DatabaseError):
                old = stack.enter_context(contextlib.closing(connect(damaged, _FOR_SALVAGE)))
        os.close(ownership.open_safely(new))  # SQLite would let others read it
        db = stack.enter_context(contextlib.closing(connect(new)))
        db.execute("BEGIN IMMEDIATE")
        write_schema(db, stem)
        if old is not None:
            for table, columns in COLUMNS.items():
                marks = ",".join("?" * (5 if table == "events" else 8))
                for direction in ("ASC", "DESC"):  # around the damage
                    sql = f"SELECT {columns} FROM {table} ORDER BY seq {direction}"
                    # Closed also after an error, which would keep it, and it keeps SQLite's lock.
                    with contextlib.closing(_readable(old, sql)) as rows:
                        db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)
            done = json.dumps(read_done(old))
            db.execute(f"DELETE FROM events WHERE seq IN {LISTED}", (done,))
        db.execute("COMMIT")
        (count,) = db.execute("SELECT count(*) FROM events").fetchone()
        return int(count)


def _readable(old: sqlite3.Connection, sql: str) -> Generator[tuple[object, ...], None, None]:
    with contextlib.suppress(sqlite3.DatabaseError):
        for row in old.execute(sql):
            if is_intact(*row[1:5]):
                yield row


def error_code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def refusal(error: BaseException, path: Path) -> BaseException:
    """Return the error for a file that cannot be opened."""
    if error_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OutboxLockedError(f"{path.name} has an owner")
    if error_code(error) in _UNREADABLE:
        return DamagedError(str(error))
    if isinstance(error, sqlite3.Error | OSError):
        return InputError("outbox", f"cannot be opened ({error})")
    return error
