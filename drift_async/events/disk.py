"""What the thread of a durable store does: rows and dead letters in SQLite, one commit for many."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from ..errors import InputError, OutboxLockedError
from . import files
from .lanes import Row
from .store import DeadLimits, Grave, Held, Loaded, Replayed

CHUNK = 500
"""Rows of another file that are taken over in one commit."""

LINGERING = 1024 * 1024
"""Bytes of events that may be done and still in the file. It is less work to note that they are,
and to take many out at once."""

_IS_WAITING = "seq NOT IN (SELECT seq FROM done)"
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@attrs.define(eq=False, repr=False)
class Job:
    """What the thread is asked to do: keep rows, or something else; and who is told."""

    done: Callable[[Any, Exception | None], None]
    loop: asyncio.AbstractEventLoop
    rows: Sequence[Row] = ()
    work: Callable[[Disk], Any] | None = None
    must: bool = False  # if the disk does not take it now it is done later; a power cut may undo it
    alone: bool = False  # it makes its own transactions


Outcome = tuple[Job, Any, Exception | None]


class Disk:
    """One file that is ours, and the free ones beside it that are taken over."""

    def __init__(
        self,
        outbox: Path,
        stem: str,
        limits: DeadLimits,
        reserve: int,
        clock: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._stem = stem
        self._limits = limits
        self._clock = clock
        self._reserve_bytes = reserve
        self._later: list[Callable[[Disk], Any]] = []
        self._done: list[Row] = []  # of this transaction
        self._lingering = 0
        folder = outbox.parent if outbox.suffix == files.SUFFIX else outbox
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = self._claim()
        self._reserve = self._file.path.with_name(f"{self._file.path.name}.reserve")
        self.lost = self._file.lost
        (self._last,) = self._file.db.execute("SELECT last FROM state").fetchone()
        with contextlib.suppress(OSError):
            self._keep_reserve()

    def _claim(self) -> files.File:
        """Open the first file that is free, or a new one."""
        refusal: OutboxLockedError | None = None
        for path in files.candidates(self._outbox, self._stem):
            try:
                return files.open_file(path)
            except OutboxLockedError as error:
                refusal = error
        assert refusal is not None, "there is always a name"
        raise refusal

    def close(self) -> None:
        """Give the file free."""
        self._later.append(Disk.purge)
        self._catch_up()
        self._reserve.unlink(missing_ok=True)
        self._file.close()

    def take_damage(self) -> list[tuple[int, str]]:
        """Return what was found damaged since the last time: how many rows at most, and how."""
        found, self.lost = self.lost, []
        return found

    def held(self) -> Held:
        """Return what is there."""
        db = self._file.db
        self._prune(self._clock())
        self._note_done()
        pending, size = db.execute(
            f"SELECT count(*), coalesce(sum(length(body)), 0) FROM events WHERE {_IS_WAITING}"
        ).fetchone()
        (dead,) = db.execute("SELECT count(*) FROM dead").fetchone()
        return Held(pending, size, dead, self._last)

    # Commits

    def commit(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Do all jobs in one transaction; if that fails, each in its own."""
        return self._commit([job for job in jobs if not job.alone]) + [
            self._apart(job) for job in jobs if job.alone
        ]

    def _commit(self, jobs: Sequence[Job]) -> list[Outcome]:
        self._catch_up()
        try:
            if any(job.rows for job in jobs):
                self._keep_reserve()
            return self._together(jobs)
        except (sqlite3.Error, OSError) as error:
            self._roll_back()
            if _code(error) in _DAMAGE:
                self._replace()
            else:
                self._reserve.unlink(missing_ok=True)  # for what removes rows
                if Disk.purge not in self._later:
                    self._later.append(Disk.purge)
                self._catch_up()
        return [self._alone(job) for job in jobs]

    def _catch_up(self) -> None:
        """Do what the disk has not taken before."""
        try:
            while self._later:
                self._begin(is_synced=False)
                self._later[0](self)
                self._end()
                del self._later[0]
        except sqlite3.Error:
            self._roll_back()

    def _together(self, jobs: Sequence[Job]) -> list[Outcome]:
        self._begin(is_synced=not all(job.must for job in jobs))
        rows = [row for job in jobs for row in job.rows]
        if rows:
            self._insert(rows)
        # Rows first, also to be told of: a job that reads then finds what was counted before it.
        ordered = sorted(jobs, key=lambda job: not job.rows)
        outcomes: list[Outcome] = [
            (job, job.work(self) if job.work else None, None) for job in ordered
        ]
        self._end()
        self._note_last()
        return outcomes

    def _begin(self, *, is_synced: bool) -> None:
        self._done.clear()
        self._file.sync(is_synced)
        self._file.db.execute("BEGIN IMMEDIATE")

    def _end(self) -> None:
        self._note_done()
        if self._lingering > LINGERING:
            self.purge()
        self._file.db.execute("COMMIT")

    def _note_done(self) -> None:
        """Write down which rows are done: all of a commit at once."""
        if self._done:
            seqs = [row.seq for row in self._done]
            seqs += seqs[-1:] * ((1 << (len(seqs) - 1).bit_length()) - len(seqs))
            self._file.insert("done", seqs)
            self._lingering += sum([len(row.body) for row in self._done])
            self._done.clear()

    def _note_last(self) -> None:
        """Write down the number of the last row, once that is committed."""
        (last,) = self._file.db.execute("SELECT last FROM state").fetchone()
        if last != self._last:
            self._last = last
            files.write_mark(self._file.mark, last)

    def _alone(self, job: Job) -> Outcome:
        try:
            if job.rows:
                self._keep_reserve()
            return self._together([job])[0]
        except (sqlite3.Error, OSError) as error:
            self._roll_back()
            if job.must and job.work is not None:
                self._later.append(job.work)
                return job, None, None
            if job.rows:
                self._reserve.unlink(missing_ok=True)
            return job, None, error

    def _apart(self, job: Job) -> Outcome:
        try:
            return job, job.work(self) if job.work else None, None
        except Exception as error:  # what the other jobs have done stands
            self._roll_back()
            return job, None, error

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._file.db.execute("ROLLBACK")

    def _keep_reserve(self) -> None:
        """Hold some space back, so that on a full disk rows can still be removed."""
        if self._reserve_bytes and not self._reserve.exists():
            try:
                self._reserve.touch(0o600)
                self._reserve.write_bytes(bytes(self._reserve_bytes))
            except OSError:
                self._reserve.unlink(missing_ok=True)
                raise

    def _replace(self) -> None:
        """Go on with a new file: this one turned out to be damaged."""
        path = self._file.path
        with contextlib.suppress(sqlite3.Error):
            self._file.close()
        self._file = files.open_file(path)
        self.lost += self._file.lost

    # What jobs do

    def _insert(self, rows: Sequence[Row]) -> None:
        values: list[Any] = []
        for row in rows:
            crc = files.checksum(row.kind, row.key, row.body)
            values += (row.seq, row.kind, row.key, row.body, crc)
        self._file.insert("events", values)
        self._file.db.execute("UPDATE state SET last = max(last, ?)", (rows[-1].seq,))

    def forget(self, rows: Sequence[Row]) -> None:
        """Remove rows: they are noted as done, and taken out of the file with others."""
        self._done += rows

    def purge(self) -> None:
        """Take out of the file what is done."""
        self._note_done()
        self._file.purge()
        self._lingering = 0

    def bury(self, graves: Sequence[Grave]) -> dict[str, int]:
        """Set rows aside; return how many dead letters went for it, by reason."""
        self._file.db.executemany(
            "INSERT OR REPLACE INTO dead SELECT *, ?, ?, ? FROM events WHERE seq = ?",
            [(grave.reason, grave.status, grave.died_at, grave.row.seq) for grave in graves],
        )
        self.forget([grave.row for grave in graves])
        return self._prune(self._clock())

    def _prune(self, now: float) -> dict[str, int]:
        db, limits = self._file.db, self._limits
        old = db.execute("DELETE FROM dead WHERE died_at < ?", (now - limits.seconds,)).rowcount
        full = db.execute(
            "DELETE FROM dead WHERE seq IN (SELECT seq FROM dead ORDER BY died_at, seq"
            " LIMIT max(0, (SELECT count(*) FROM dead) - ?))",
            (limits.rows,),
        ).rowcount
        return {"dead_old": old, "dead_full": full}

    def dead(self) -> list[Grave]:
        """Return what was set aside, oldest first."""
        found = self._file.db.execute("SELECT * FROM dead ORDER BY died_at, seq")
        return [
            Grave(
                Row(kind, key, body, seq),
                reason,
                status,
                died_at,
                is_whole=files.checksum(kind, key, body) == crc,
            )
            for seq, kind, key, body, crc, reason, status, died_at in found
        ]

    def replay(self, after: int) -> Replayed:
        """Take the dead letters that are whole for rows again."""
        graves = [grave for grave in self.dead() if grave.is_whole]
        rows = [
            Row(grave.row.kind, grave.row.key, grave.row.body, after + n)
            for n, grave in enumerate(graves, 1)
        ]
        self._file.db.executemany(
            "DELETE FROM dead WHERE seq = ?", [(grave.row.seq,) for grave in graves]
        )
        if rows:
            self._insert(rows)
        return Replayed(len(rows), sum(len(row.body) for row in rows), [])

    def load(self, after: int, most: int, most_bytes: int) -> Loaded:
        """Return the rows that follow number *after*; what is damaged becomes a dead letter."""
        rows: list[Row] = []
        damaged: list[Row] = []
        more = False
        self._note_done()
        for seq, kind, key, body, crc in self._file.db.execute(
            f"SELECT * FROM events WHERE seq > ? AND {_IS_WAITING} ORDER BY seq", (after,)
        ):
            if len(rows) + len(damaged) >= most or most_bytes <= 0:
                more = True
                break
            row = Row(kind, key, body, seq)
            is_whole = files.checksum(kind, key, body) == crc
            (rows if is_whole else damaged).append(row)
            most_bytes -= len(body)
        if damaged:
            now = self._clock()
            self.bury([Grave(row, "damaged", None, now) for row in damaged])
        return Loaded(rows, damaged, more)

    def adopt(self, after: int, most: int) -> Held:
        """Take over rows of files that have no owner, up to *most*; return how much that was."""
        pending = size = dead = 0
        if self._outbox.suffix == files.SUFFIX:
            return Held()
        for path in sorted(self._outbox.glob(f"{self._stem}-*{files.SUFFIX}")):
            if path == self._file.path or not most:
                continue
            try:
                other = files.open_file(path)
            except (OutboxLockedError, InputError):
                continue
            self.lost += other.lost
            path.with_name(f"{path.name}.reserve").unlink(missing_ok=True)
            with contextlib.closing(other):
                other.purge()
                for table in ("events", "dead"):
                    while rows := other.db.execute(
                        f"SELECT * FROM {table} ORDER BY seq LIMIT {min(most, CHUNK)}"
                    ).fetchall():
                        self._take_over(table, rows, after)
                        other.db.executemany(
                            f"DELETE FROM {table} WHERE seq = ?", [row[:1] for row in rows]
                        )
                        after += len(rows)
                        most -= len(rows)
                        if table == "dead":
                            dead += len(rows)
                        else:
                            pending += len(rows)
                            size += sum(len(row[3]) for row in rows)
        return Held(pending, size, dead, self._last)

    def _take_over(self, table: str, rows: Sequence[tuple[Any, ...]], after: int) -> None:
        db = self._file.db
        self._begin(is_synced=True)
        db.executemany(
            f"INSERT INTO {table} VALUES ({','.join('?' * len(rows[0]))})",
            [(after + n, *row[1:]) for n, row in enumerate(rows, 1)],
        )
        db.execute("UPDATE state SET last = max(last, ?)", (after + len(rows),))
        self._end()
        self._note_last()


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
