"""What the thread of a durable store does: rows and dead letters in SQLite, one commit for many."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from ..errors import InputError, OutboxLockedError
from . import files
from .lanes import Row
from .ledger import logger
from .store import DeadLimits, Grave, Held, Loaded, Replayed

CHUNK = 500
"""Rows of another file that are taken over in one commit."""

LINGERING = 1024 * 1024
"""Bytes of events that are done and still in the file from which on it is cleared once none waits.

To note that they are done is less work, and to clear the file takes a fifth of what it takes to
pick them out."""

MOST_LINGERING = 8 * LINGERING
"""From which on they are picked out from among those that wait."""

YEAR_10000 = 253_402_300_800.0

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@attrs.define(eq=False, repr=False)
class Job:
    """What the thread is asked: to keep rows, to forget some, something else; and who is told."""

    done: Callable[[Any, Exception | None], None]
    loop: asyncio.AbstractEventLoop
    rows: Sequence[Row] = ()
    gone: Sequence[Row] = ()
    through: int = 0  # with these, all rows up to that number are done
    work: Callable[[Disk], Any] | None = None
    must: bool = False  # if the disk does not take it now it is done later; a power cut may undo it
    alone: bool = False  # it makes its own transactions
    taken: asyncio.Future[None] | None = None  # done when the thread begins with it


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
        self._lingering = 0
        self._rows = self._done = 0  # in the file, and of these noted as done
        self._is_through = False  # who asks for all that says that none waits
        self._was_quiet = False
        folder = outbox.parent if outbox.suffix == files.SUFFIX else outbox
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = self._claim()
        self._reserve = self._file.path.with_name(f"{self._file.path.name}.reserve")
        self.lost = self._file.lost
        self.gone: dict[str, int] = {}
        self._last = self._noted = self._file.last()
        self._has_reserve = False
        with contextlib.suppress(OSError):
            self._keep_reserve()

    def _claim(self) -> files.File:
        """Open the first file that is free, or a new one."""
        refusal: Exception | None = None
        for path in files.candidates(self._outbox, self._stem):
            try:
                return files.open_file(path, self._stem)
            except OutboxLockedError as error:
                refusal = error
            except (InputError, OSError) as error:
                if os.access(path, os.R_OK | os.W_OK):
                    raise
                refusal = error  # that of another user: the next may be ours
        assert refusal is not None, "there is always a name"
        raise refusal

    def close(self) -> None:
        """Give the file free."""
        self._purge_soon()
        self._catch_up()
        self._give_up_reserve()
        if not self._rows:
            self._file.shrink()
        self._file.close()

    def take_damage(self) -> list[tuple[int, str]]:
        """Return what was found damaged since the last time: how many rows at most, and how."""
        found, self.lost = self.lost, []
        return found

    def take_gone(self) -> dict[str, int]:
        """Return how many dead letters went since the last time that no answer told of."""
        gone, self.gone = self.gone, {}
        return gone

    def held(self) -> Held:
        """Return what is there."""
        db = self._file.db
        gone = self.prune()
        self.purge()
        pending = self._rows = self._file.count()
        (size,) = db.execute(f"SELECT ifnull(sum(length({files.BODY})), 0) FROM events").fetchone()
        (dead,) = db.execute("SELECT count(*) FROM dead").fetchone()
        return Held(pending, size, dead, self._last, gone)

    # Commits

    def commit(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Do all jobs in one commit, or few; if that fails, each in its own."""
        return self._commit([job for job in jobs if not job.alone]) + [
            self._apart(job) for job in jobs if job.alone
        ]

    def _commit(self, jobs: Sequence[Job]) -> list[Outcome]:
        if self._lingering > (LINGERING if self._is_clear() else MOST_LINGERING):
            self._purge_soon()
        self._catch_up()
        try:
            if any(job.rows for job in jobs):
                self._keep_reserve()
            return self._together(jobs)
        except Exception as error:  # whatever it is, it concerns one of them only
            self._roll_back()
            if _code(error) in _DAMAGE or not self._file.is_open:
                self._replace()
            else:
                self._give_up_reserve()  # for what removes rows
                self._purge_soon()
                self._catch_up()
        return [self._alone(job) for job in jobs]

    def _purge_soon(self) -> None:
        if Disk.purge not in self._later:
            self._later.append(Disk.purge)

    def _catch_up(self) -> None:
        """Do what the disk has not taken before."""
        try:
            while self._later:
                self._later[0](self)
                del self._later[0]
        except sqlite3.Error:
            self._roll_back()

    def _together(self, jobs: Sequence[Job]) -> list[Outcome]:
        self._wait_for_disk(not all(job.must for job in jobs))
        rows = [row for job in jobs for row in job.rows]
        if gone := [row for job in jobs for row in job.gone]:
            self.forget(gone)
            through = max(job.through for job in jobs)
            self._is_through = through >= self._last
            for job in jobs:
                job.gone = ()  # not to be counted twice, should the rest fail
        counts = self._rows, self._done, self._last
        is_one = self._file.takes_at_once(len(rows)) and not any(job.work for job in jobs)
        try:
            with contextlib.nullcontext() if is_one else self._file.transaction():
                if rows:
                    self._insert(rows)
                # Rows first, also to be told of: a job that reads finds what was counted before it.
                outcomes: list[Outcome] = [
                    (job, job.work(self) if job.work else None, None)
                    for job in sorted(jobs, key=lambda job: not job.rows)
                ]
        except BaseException:
            self._rows, self._done, self._last = counts
            raise
        self._note_last()
        return outcomes

    def _wait_for_disk(self, is_needed: bool) -> None:
        """Make commits wait for the disk, or not any longer if the last one need not have either.

        To change it to and fro takes longer than to wait.
        """
        if is_needed or self._was_quiet:
            self._file.sync(is_needed)
        self._was_quiet = not is_needed

    def _note_last(self) -> None:
        """Write down the number of the last row, once that is committed."""
        if self._noted != self._last:
            self._noted = self._last
            with contextlib.suppress(OSError):  # it stays what it was: committed
                files.write_mark(self._file.mark, self._last)

    def _alone(self, job: Job) -> Outcome:
        try:
            if job.rows:
                self._keep_reserve()
            return self._together([job])[0]
        except Exception as error:
            self._roll_back()
            if job.must and isinstance(error, sqlite3.Error | OSError):
                self._later.append(partial(Disk._finish, job=job))
                return job, None, None
            if job.rows:
                self._give_up_reserve()
            return job, None, error

    def _finish(self, job: Job) -> None:
        ((_, gone, _),) = self._together([job])
        for reason, count in (gone or {}).items():  # it was answered before
            self.gone[reason] = self.gone.get(reason, 0) + count

    def _apart(self, job: Job) -> Outcome:
        try:
            return job, job.work(self) if job.work else None, None
        except Exception as error:  # what the other jobs have done stands
            self._roll_back()
            return job, None, error

    def _roll_back(self) -> None:
        self._last = self._noted
        with contextlib.suppress(sqlite3.Error):
            self._file.db.execute("ROLLBACK")

    def _keep_reserve(self) -> None:
        """Hold some space back, so that on a full disk rows can still be removed."""
        if self._reserve_bytes and not self._has_reserve:
            try:
                self._reserve.touch(0o600)
                _fill(self._reserve, self._reserve_bytes)
            except OSError:
                self._give_up_reserve()
                raise
            self._has_reserve = True

    def _give_up_reserve(self) -> None:
        self._reserve.unlink(missing_ok=True)
        self._has_reserve = False

    def _replace(self) -> None:
        """Go on with a new file: this one turned out to be damaged. If that fails, try later."""
        try:
            self._file = files.open_file(self._file.path, self._stem, instead_of=self._file)
        except (OutboxLockedError, InputError, sqlite3.Error, OSError) as error:
            logger.error("outbox: %s cannot be used: %s", self._file.path.name, error)
            return
        self.lost += self._file.lost
        self._rows, self._done, self._is_through = self._file.count(), 0, False

    def _is_clear(self) -> bool:
        """Tell whether all events in the file are done: who asks for it, and our own counts."""
        return self._is_through and self._rows == self._done

    # What jobs do

    def _insert(self, rows: Sequence[Row]) -> None:
        values: list[Any] = []
        checksum = files.checksum
        for row in rows:
            kind, key, body = row.kind, row.key, row.body
            values += (row.seq, kind, key, body, checksum(kind, key, body))
        self._file.insert(values)
        self._last = max(self._last, rows[-1].seq)
        self._added(len(rows))

    def _added(self, count: int) -> None:
        self._rows += count
        self._is_through = False

    def forget(self, rows: Sequence[Row]) -> None:
        """Remove rows: they are noted as done, and taken out of the file with others."""
        self._file.note_done([row.seq for row in rows])
        self._lingering += sum([len(row.body) for row in rows])
        self._done += len(rows)

    def purge(self) -> None:
        """Take out of the file what is done."""
        if self._is_clear():
            self._file.clear()
        else:
            self._file.purge()
        self._rows -= self._done
        self._done = self._lingering = 0

    def bury(self, graves: Sequence[Grave]) -> dict[str, int]:
        """Set rows aside; return how many dead letters went for it, by reason."""
        self._file.db.executemany(
            "INSERT OR REPLACE INTO dead SELECT *, ?, ?, ? FROM events WHERE seq = ?",
            [(grave.reason, grave.status, grave.died_at, grave.row.seq) for grave in graves],
        )
        self.forget([grave.row for grave in graves])
        return self.prune()

    def prune(self) -> dict[str, int]:
        """Drop the dead letters over the limits; return how many, by reason."""
        db, limits = self._file.db, self._limits
        oldest = self._clock() - limits.seconds
        old = db.execute("DELETE FROM dead WHERE died_at < ?", (oldest,)).rowcount
        full = db.execute(
            "DELETE FROM dead WHERE seq IN (SELECT seq FROM dead ORDER BY died_at, seq"
            " LIMIT max(0, (SELECT count(*) FROM dead) - ?))",
            (limits.rows,),
        ).rowcount
        return {"dead_old": old, "dead_full": full}

    def dead(self) -> list[Grave]:
        """Return what was set aside, oldest first."""
        found = self._file.db.execute(
            f"SELECT {files.READ['dead']} FROM dead ORDER BY died_at, seq"
        )
        return [
            Grave(
                Row(kind, key, body, seq),
                str(reason),
                status,
                # No checksum is kept of this: it must be a time.
                died_at if isinstance(died_at, float) and 0 <= died_at < YEAR_10000 else 0.0,
                is_whole=files.is_whole(kind, key, body, crc),
            )
            for seq, kind, key, body, crc, reason, status, died_at in found
        ]

    def replay(self, after: int, most: int) -> Replayed:
        """Take the oldest dead letters that are whole for rows again, up to *most*."""
        graves = [grave for grave in self.dead() if grave.is_whole][:most]
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
        self.purge()
        for seq, kind, key, body, crc in self._file.db.execute(
            f"SELECT {files.READ['events']} FROM events WHERE seq > ? ORDER BY seq", (after,)
        ):
            if len(rows) + len(damaged) >= most or most_bytes <= 0:
                more = True
                break
            row = Row(kind, key, body, seq)
            (rows if files.is_whole(kind, key, body, crc) else damaged).append(row)
            most_bytes -= len(body)
        if damaged:
            now = self._clock()
            self.bury([Grave(row, "damaged", None, now) for row in damaged])
        return Loaded(rows, damaged, more)

    def others(self) -> list[Path]:
        """Return the files of other clients, living or not."""
        if self._outbox.suffix == files.SUFFIX:
            return []
        found = files.found(self._outbox, self._stem)
        return [path for path in found if path != self._file.path]

    def adopt(self, after: int, most: int) -> Held:
        """Take over rows of files that have no owner, up to *most*; return how much that was.

        What fails stays where it is, and is tried the next time.
        """
        pending = size = dead = 0
        for path in self.others():
            taken = pending + dead
            if taken == most:
                break
            try:
                for rows, its_bytes, letters in self._empty(path, after + taken, most - taken):
                    pending, size, dead = pending + rows, size + its_bytes, dead + letters
            except (OutboxLockedError, InputError):
                continue
            except (sqlite3.Error, OSError) as error:
                logger.warning("outbox: %s is not taken over now: %s", path.name, error)
        return Held(pending, size, dead, self._last)

    def _empty(self, path: Path, after: int, most: int) -> Iterator[tuple[int, int, int]]:
        """Take over rows of another file, up to *most*; tell how much as soon as it is ours."""
        other = files.open_file(path, self._stem)
        self.lost += other.lost
        with contextlib.closing(other):
            path.with_name(f"{path.name}.reserve").unlink(missing_ok=True)
            other.purge()
            taken = 0
            for table, columns in files.READ.items():
                while rows := other.db.execute(
                    f"SELECT {columns} FROM {table} ORDER BY seq LIMIT {min(most - taken, CHUNK)}"
                ).fetchall():
                    with other.transaction():  # or each row would wait for the disk
                        other.db.executemany(
                            f"DELETE FROM {table} WHERE seq = ?", [row[:1] for row in rows]
                        )
                        self._take_over(table, rows, after + taken)
                        taken += len(rows)
                        if table == "events":
                            yield len(rows), sum(len(row[3]) for row in rows), 0
                        else:
                            yield 0, 0, len(rows)
            if taken and not other.count():
                other.shrink()

    def _take_over(self, table: str, rows: Sequence[tuple[Any, ...]], after: int) -> None:
        last = after + len(rows)
        self._wait_for_disk(True)
        with self._file.transaction():
            self._file.db.executemany(
                f"INSERT INTO {table} VALUES ({','.join('?' * len(rows[0]))})",
                [(after + n, *row[1:]) for n, row in enumerate(rows, 1)],
            )
            self._file.go_on_after(last)
        self._last = max(self._last, last)
        self._added(len(rows) if table == "events" else 0)
        self._note_last()


def _fill(path: Path, size: int) -> None:
    """Let an empty file take *size* bytes of the disk, without writing them where that can be."""
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except (AttributeError, OSError):  # not every system has it, nor every file system
            file.write(bytes(size))


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
