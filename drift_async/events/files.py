"""The files of a durable outbox: opened by one owner, checked, and set aside when damaged.

A file is an SQLite database in WAL mode under an exclusive lock, held as long as it is open. Beside
it lies a mark with the number of its last row, since a lost WAL does not show in the database.
While it is opened, and perhaps replaced, there is a lock beside it too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import uuid
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from ..errors import InputError, OutboxLockedError

logger = logging.getLogger("drift_async.events")

APPLICATION_ID = 0x44724576
SUFFIX = ".sqlite"

REPLACING = 2.0
"""Seconds to wait for who just looks whether a file that is to be replaced has an owner."""

_SCHEMA = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind INT, key INT, body BLOB, crc INT
)

CREATE TABLE dead (
    seq INTEGER PRIMARY KEY, kind INT, key INT, body BLOB, crc INT,
    reason TEXT, status INT, died_at REAL
)

CREATE TABLE done (seqs TEXT, sum INT)

INSERT INTO sqlite_sequence VALUES ('events', 0)
"""
# What has changed is not JSON, or has another sum.
_DELETE_DONE = """
DELETE FROM events WHERE seq IN (
    SELECT one.value FROM done, json_each(
        CASE WHEN json_valid(seqs) THEN
            CASE sum WHEN (SELECT sum(value) FROM json_each(done.seqs)) THEN seqs ELSE '[]' END
        ELSE '[]' END
    ) AS one
)"""
_COLUMNS = {"events": 5, "dead": 8}

BODY = "CAST(ifnull(body, '') AS BLOB)"
"""One changed bit makes another type of a value; as bytes, a text is still the same."""

_EVENT = f"seq, kind, key, {BODY}, crc"
READ = {"events": _EVENT, "dead": f"{_EVENT}, reason, status, died_at"}
"""The columns of a row as they are read: whatever has become of them, that does not raise."""


_TEXT = partial(str, encoding="utf-8", errors="replace")
"""What makes a str of a text: one that is none shall not keep others from being read."""


class _DamagedError(Exception):
    """A file that cannot be used."""


@attrs.define(eq=False, repr=False)
class File:
    """An open file: the connection, and what was lost of it before.

    In each statement the thread gives Python's lock away, some times, and from a busy event loop
    gets it back only once that has to wait. Thus what is done often is few statements, run by the
    method that gives it away the least.
    """

    path: Path
    db: sqlite3.Connection
    mark: int
    lost: list[tuple[int, str]] = attrs.Factory(list)
    is_synced: bool = True
    is_open: bool = True

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done within; after an error nothing of it."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # some errors have done so
                self.db.execute("ROLLBACK")
            raise

    def sync(self, is_synced: bool) -> None:
        """Make the commits that follow wait for the disk itself, or not.

        A power cut may undo those that do not, up to the next that does; the end of the process
        undoes none.
        """
        if is_synced != self.is_synced:
            self.db.execute(f"PRAGMA synchronous={'FULL' if is_synced else 'NORMAL'}")
            self.is_synced = is_synced

    def last(self) -> int:
        """Return the highest number that was given to a row, be it here or not."""
        (last,) = self.db.execute("SELECT seq FROM sqlite_sequence").fetchone()
        return int(last)

    def go_on_after(self, last: int) -> None:
        """Have numbers up to that one count as given."""
        self.db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?)", (last,))

    def insert(self, values: list[Any]) -> None:
        """Add events, given as all their columns one after another."""
        width, start = _COLUMNS["events"], 0
        while left := (len(values) - start) // width:
            count = self._at_once(left)
            marks = ",".join([f"({','.join('?' * width)})"] * count)
            part = values[start : start + count * width]
            # `execute` gives the lock away once more, to ask for a number that is known.
            self.db.executemany(f"INSERT INTO events VALUES {marks}", [part])
            start += len(part)

    def takes_at_once(self, rows: int) -> bool:
        """Tell whether one statement adds so many events."""
        return rows == self._at_once(rows)

    def _at_once(self, rows: int) -> int:
        # Statements are compiled once, so there are few sizes: small ones, and powers of two.
        most = self.db.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // _COLUMNS["events"]
        rows = min(rows, most, 4096)
        return rows if rows <= 64 else 1 << rows.bit_length() - 1

    def note_done(self, seqs: list[int]) -> None:
        """Note that events are done: `purge` removes them."""
        # The sum is a check: a changed bit must not take out an event that waits.
        self.db.executemany("INSERT INTO done VALUES (?, ?)", [(str(seqs), sum(seqs))])

    def count(self) -> int:
        """Return how many events there are, done or not."""
        (count,) = self.db.execute("SELECT count(*) FROM events").fetchone()
        return int(count)

    def purge(self) -> None:
        """Remove the events that are done."""
        self._delete(_DELETE_DONE)

    def clear(self) -> None:
        """Remove all events, whether they are done or not: page by page, not one by one."""
        self._delete("DELETE FROM events")

    def _delete(self, events: str) -> None:
        if self.db.in_transaction:
            self.db.execute(events)
            self.db.execute("DELETE FROM done")
        else:
            self.db.executescript(f"BEGIN; {events}; DELETE FROM done; COMMIT")

    def shrink(self) -> None:
        """Give the disk back what is free, and with it what was there; not where much is left."""
        with contextlib.suppress(sqlite3.Error):  # it is of no use, but does no harm either
            if self.db.execute("SELECT 1 FROM dead LIMIT 1").fetchone() is None:
                self.db.execute("VACUUM")

    def close(self) -> None:
        """Give the file free."""
        try:
            self.db.close()
        finally:
            if self.is_open:
                os.close(self.mark)
                self.is_open = False


def checksum(kind: int, key: int, body: bytes) -> int:
    """Return what is kept with a row to notice that it has changed."""
    return zlib.crc32(body, key ^ kind)


def is_whole(kind: object, key: object, body: bytes, crc: object) -> bool:
    """Tell whether a row that was read is as it was written."""
    return isinstance(kind, int) and isinstance(key, int) and checksum(kind, key, body) == crc


def found(outbox: Path, stem: str) -> list[Path]:
    """Return the files there are in a directory, also one that is half replaced."""
    there = {*outbox.glob(f"{stem}-*{SUFFIX}")}
    there |= {path.with_suffix("") for path in outbox.glob(f"{stem}-*{SUFFIX}.new")}
    return sorted(there)


def candidates(outbox: Path, stem: str) -> Iterator[Path]:
    """Give the files there are, and then names for a new one.

    A new one may be locked too: by who looks in this moment for files without an owner.
    """
    if outbox.suffix == SUFFIX:
        yield outbox
        return
    yield from found(outbox, stem)
    for _ in range(20):
        yield outbox / f"{stem}-{uuid.uuid4().hex[:12]}{SUFFIX}"


def open_file(path: Path, stem: str, instead_of: File | None = None) -> File:
    """Open and lock a file; a damaged one is set aside, and what can be read of it kept.

    *instead_of* is the same file, found damaged while it was open; it is closed. Raises
    `OutboxLockedError` when the file has an owner, `InputError` when it cannot be used.
    """
    with _opening(path, 0 if instead_of is None else REPLACING):
        if instead_of is not None:
            with contextlib.suppress(sqlite3.Error):
                instead_of.close()
        db, aside = _connect_whole(path, stem)
        try:
            mark = os.open(f"{path}.mark", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError:
            db.close()
            raise
    file = File(path, db, mark)
    try:
        _note_lost(file, aside)
    except sqlite3.Error as error:
        file.close()
        raise InputError("outbox", f"cannot be opened ({error})") from None
    return file


def _note_lost(file: File, aside: tuple[str, str] | None) -> None:
    """Note what was lost of a file: of one that was damaged, or by the number in its mark."""
    name, gone = file.path.name, _read_mark(file.mark) - file.last()
    if gone > 0:
        file.go_on_after(file.last() + gone)  # or it would be told again next time
    if aside:
        damage, new_name = aside
        kept = file.count()
        said = f"{name} was damaged ({damage}): {kept} events read, the file is {new_name}"
        file.lost.append((0, said))
    elif gone > 0:
        said = f"the last writes to {name} are gone, up to {gone} events with them"
        file.lost.append((gone, said))
    for _, said in file.lost:
        logger.error("outbox: %s", said)


@contextlib.contextmanager
def _opening(path: Path, patience: float) -> Iterator[None]:
    """Keep others from opening a file: they take it for one that has an owner."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        db = _lock(lock, patience)
    except sqlite3.Error as error:
        if _code(error) == sqlite3.SQLITE_BUSY:
            raise OutboxLockedError(f"{path.name} has an owner") from None
        raise InputError("outbox", f"cannot be opened ({error})") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # not every system removes what is open
            lock.unlink()
        db.close()


def _lock(lock: Path, patience: float) -> sqlite3.Connection:
    """Lock by SQLite, which every system has, and of which nothing is left when a process ends."""
    while True:
        _make(lock)
        made = _inode(lock)
        db = sqlite3.connect(lock, timeout=patience, isolation_level=None)
        try:
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error:
            if made and _inode(lock) == made:
                db.close()
                raise
        else:
            if made and _inode(lock) == made:
                return db
        db.close()  # who had the lock has removed it meanwhile: this one keeps nobody out


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _make(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        # Not where it exists: closing it would drop the locks of another client in this process.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _connect_whole(path: Path, stem: str) -> tuple[sqlite3.Connection, tuple[str, str] | None]:
    """Connect to a file, or to what replaces it; then also tell the damage and the name it got.

    At every moment either the file has its name, or all that could be read of it is in the new one.
    """
    new = path.with_name(f"{path.name}.new")
    if path.exists() or not new.exists():
        try:
            return _connect(path, stem), None
        except _DamagedError as error:
            damage = str(error)
        try:
            _salvage(path, new, stem)
        except (_DamagedError, sqlite3.Error, OSError) as error:
            why = f"is damaged ({damage}), and what is left cannot be copied ({error})"
            raise InputError("outbox", why) from None
    else:
        damage = "as was found before"
    aside = path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:8]}")
    for end in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    new.rename(path)
    try:
        return _connect(path, stem), (damage, aside.name)
    except _DamagedError as error:
        raise InputError("outbox", f"cannot be opened ({error})") from None


def _connect(path: Path, stem: str) -> sqlite3.Connection:
    _make(path)
    try:
        db = sqlite3.connect(path, timeout=0, isolation_level=None)
    except sqlite3.Error as error:
        raise InputError("outbox", f"cannot be opened ({error})") from None
    try:
        _prepare(db, stem)
        return db
    except sqlite3.DatabaseError as error:
        db.close()
        code = _code(error)
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


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _prepare(db: sqlite3.Connection, stem: str) -> None:
    db.text_factory = _TEXT
    # In this order: a lock that is exclusive from the first access needs no shared memory file.
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA trusted_schema=OFF")
    # Some systems have SQLite write zeros over what is deleted, which takes as long as all the rest
    # of it. The log beside it would still have it.
    db.execute("PRAGMA secure_delete=OFF")
    db.execute("BEGIN IMMEDIATE")
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if not tables:
        for statement in _SCHEMA.split("\n\n"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    elif application != APPLICATION_ID:
        raise InputError("outbox", "is a database of something else")
    (owner,) = db.execute("PRAGMA user_version").fetchone()
    if not owner:  # new, or from when it was not noted
        db.execute(f"PRAGMA user_version={_number(stem)}")
    elif owner != _number(stem):
        raise InputError("outbox", "is that of another kind of client")
    db.execute("COMMIT")
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok" or db.execute("SELECT seq FROM sqlite_sequence").fetchone() is None:
        raise _DamagedError("the check failed")
    db.execute("SELECT seq, kind, key, body, crc FROM events LIMIT 1").fetchall()
    db.execute("SELECT reason, status, died_at FROM dead LIMIT 1").fetchall()
    db.execute("SELECT seqs, sum FROM done LIMIT 1").fetchall()


def _number(stem: str) -> int:
    """Return what is noted in a file for whose it is; never 0."""
    return zlib.crc32(stem.encode()) >> 2 | 1


def _salvage(path: Path, new: Path, stem: str) -> None:
    """Copy what can be read of a damaged file: from the front, and from the back."""
    for end in ("", "-wal", "-journal"):  # of one who did not come to the end
        new.with_name(new.name + end).unlink(missing_ok=True)
    with (
        contextlib.closing(_connect(new, stem)) as db,
        contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as old,
    ):
        old.text_factory = _TEXT
        old.execute("PRAGMA locking_mode=EXCLUSIVE")
        old.execute("PRAGMA writable_schema=ON")  # or a file that was cut is not read at all
        db.execute("BEGIN IMMEDIATE")
        for table, width in _COLUMNS.items():
            for direction in ("ASC", "DESC"):
                marks = ",".join("?" * width)
                rows = _readable(old, f"SELECT {READ[table]} FROM {table} ORDER BY seq {direction}")
                db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)
        with contextlib.suppress(sqlite3.DatabaseError):
            for seqs, total in old.execute("SELECT seqs, sum FROM done"):
                with contextlib.suppress(ValueError, TypeError):
                    if sum(done := json.loads(seqs)) == total:
                        db.executemany("DELETE FROM events WHERE seq = ?", [(n,) for n in done])
        db.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, (SELECT coalesce(max(seq), 0) FROM dead))"
        )
        db.execute("COMMIT")
        # All of it is to be in the one file: closing alone would not say if that fails.
        db.execute("PRAGMA journal_mode=DELETE").fetchall()


def _readable(old: sqlite3.Connection, query: str) -> Iterator[tuple[object, ...]]:
    with contextlib.suppress(sqlite3.DatabaseError):
        for row in old.execute(query):
            if is_whole(*row[1:5]):
                yield row


def _read_mark(mark: int) -> int:
    os.lseek(mark, 0, os.SEEK_SET)
    digits = os.read(mark, 20)
    return int(digits) if digits.isdigit() else 0


def write_mark(mark: int, last: int) -> None:
    """Note the number of the last row; not synced, since it is about files, not about power."""
    os.lseek(mark, 0, os.SEEK_SET)
    os.write(mark, b"%020d" % last)
