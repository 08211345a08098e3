"""An outbox file as a database: its tables, opening it, and replacing it when it is damaged."""

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


class _DamagedError(Exception):
    """A file that cannot be read as a database."""


class Database:
    """An open outbox file that this client owns.

    Raises `OutboxLockedError` when it has another owner, `InputError` when it cannot be used. A
    damaged file is set aside, and replaced by one with all events that could be read.
    """

    def __init__(self, path: Path, stem: str) -> None:
        self.path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._stem = stem
        self._undeleted: list[int] = []
        self._damage: list[str] = []  # to be reported
        self._damage_found: str | None = None  # why there is no connection, if there is none
        self._descriptor = -1
        self._last = 0
        self._lock = ownership.Lock(path)
        try:
            self._connect()
        except BaseException as error:
            self._lock.release()
            raise refusal(error, self.path) from None

    def _connect(self) -> None:
        if ownership.finish_replacing(self.path):
            self._damage.append(f"{self.path.name} was damaged, as was found before")
        for end in ("", *ownership.SIDES):
            ownership.check(self.path.with_name(self.path.name + end))
        try:
            self._open()
        except _DamagedError as error:
            self._set_aside(str(error))
        ownership.remove_leftovers(self.path)

    def _open(self) -> None:
        """Open the database; nothing is written before it is known to be ours, nor needs to be."""
        has_log, self._has_log_space = self._log.exists(), False
        # Kept open as long as the database: closing it would end SQLite's locks on the file.
        self._descriptor = ownership.open_safely(self.path)
        try:
            self._db = connect(self.path)
        except BaseException as error:
            self._close_descriptor()
            raise refusal(error, self.path) from None
        try:
            self._recognize(has_log)
            ((mode,),) = self._db.execute("PRAGMA journal_mode").fetchall()
            ((self._page_size,),) = self._db.execute("PRAGMA page_size").fetchall()
        except BaseException as error:
            self._disconnect()
            raise refusal(error, self.path) from None
        self._is_wal = mode == "wal"
        self._damage_found = None

    def _recognize(self, has_log: bool) -> None:
        """Look whether the file is an outbox of ours, in the present format; raise if it is not."""
        db = self._db
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (owner,) = db.execute("PRAGMA user_version").fetchone()
        self._has_tables = tables > 0
        self._is_current = application == APPLICATION_ID and owner != 0
        if not tables:
            if has_log:
                raise _DamagedError("it is empty, but for a log")
            return
        if application not in (APPLICATION_ID, FORMER_ID):
            raise InputError("outbox", "is a database of something else")
        if owner not in (0, kind_number(self._stem)):  # 0: not noted in early files
            raise InputError("outbox", "is that of another kind of client")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _DamagedError("the check failed")
        for table, columns in COLUMNS.items():
            db.execute(f"SELECT {columns} FROM {table} LIMIT 1").fetchall()
            (last,) = db.execute(f"SELECT ifnull(max(seq), 0) FROM {table}").fetchone()
            self._last = max(self._last, last)
        if not self._is_current:
            self._undeleted += read_done(db)

    def _set_aside(self, damage: str, *, is_open: bool = False) -> None:
        """Replace the file by one with all that can be read of it, or of the open connection."""
        new = ownership.replacement_of(self.path)
        try:
            ownership.remove(new)
            kept = salvage(self._db if is_open else self.path, new, self._stem)
        except DISK_ERRORS as error:
            why = f"is damaged ({damage}), and what is left cannot be copied ({error})"
            raise InputError("outbox", why) from None
        if is_open:
            self._disconnect()
            self._damage_found = damage
        aside = ownership.set_aside(self.path)
        try:
            self._open()
        except _DamagedError as error:
            raise InputError("outbox", f"cannot be opened ({error})") from None
        where = "" if is_open else f", the file is {aside}"
        detail = f"{self.path.name} was damaged ({damage}): {kept} events read{where}"
        logger.error("outbox: %s", detail)
        self._damage.append(detail)

    def _disconnect(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._close_descriptor()

    def _close_descriptor(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _replace(self, error: Exception) -> None:
        """Go on with a new file, because this one turned out to be damaged. If not now, later."""
        self._disconnect()
        self._damage_found = str(error)
        try:
            self._restore()
        except DISK_ERRORS as failure:
            logger.error("outbox: %s cannot be used: %s", self.path.name, failure)

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

    def take_damage(self) -> list[str]:
        """Return the damages that were found since the last call, in words."""
        damage, self._damage = self._damage, []
        return damage


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
        return _DamagedError(str(error))
    if isinstance(error, sqlite3.Error | OSError):
        return InputError("outbox", f"cannot be opened ({error})")
    return error
