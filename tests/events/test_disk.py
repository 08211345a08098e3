"""Rows in the file of an outbox: when a commit is safe, and what becomes of rows that are done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from drift_async import DeadlineError, DriftEvents, Track
from drift_async.events import disk as disk_module
from drift_async.events.disk import Disk, Job
from drift_async.events.lanes import Row
from drift_async.events.sqlite import SqliteStore
from drift_async.events.store import Grave, Held
from drift_async.sandbox import Sandbox
from tests.support.event_storage import LIMITS, commit, job, on_disk, rows
from tests.support.events import NOWHERE, ORG, image, numbers_of, overwrite, until

pytestmark = pytest.mark.anyio


def opened(path: Path) -> Disk:
    return Disk(path / "a.sqlite", "drift", LIMITS, 0, time.time)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = opened(tmp_path)
    yield disk
    disk.close()


def forgets(gone: list[Row], through: int = 0) -> Job:
    return job(gone=gone, through=through, must=True)


def is_synced(disk: Disk) -> bool:
    (mode,) = disk._file.db.execute("PRAGMA synchronous").fetchone()
    return bool(mode == 2)


def test_commits_wait_for_the_disk_where_events_are_accepted(disk: Disk) -> None:
    commit(disk, job(keep=rows(1, 9)))
    assert is_synced(disk)
    for n in range(1, 3):  # one may wait without need: to change it takes longer
        commit(disk, forgets(rows(n, n)))
    assert not is_synced(disk)
    commit(disk, forgets(rows(3, 3)), job(keep=rows(10, 10)))
    assert is_synced(disk)
    for n in range(4, 6):
        grave = Grave(rows(n, n)[0], "refused", 400, 0.0)
        commit(disk, job(partial(Disk.bury, graves=[grave]), must=True))
    assert not is_synced(disk)
    commit(disk, job(lambda disk: disk.replay(10, 99)))
    assert is_synced(disk)


def test_what_is_taken_over_is_safe_before_it_is_gone_elsewhere(tmp_path: Path) -> None:
    ours = Disk(tmp_path, "drift", LIMITS, 0, time.time)
    other = Disk(tmp_path / "drift-other.sqlite", "drift", LIMITS, 0, time.time)
    commit(other, job(keep=rows(1, 9)))
    commit(other, forgets(rows(1, 2)))
    other.close()
    for _ in range(2):
        commit(ours, forgets(rows(1, 1)))
    assert not is_synced(ours)
    (held,) = commit(ours, job(lambda disk: disk.adopt(1, 99), alone=True))
    assert held.pending == 7
    assert is_synced(ours)
    ours.close()


def test_what_is_taken_over_waits_for_the_disk_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Disk(tmp_path / "drift-other.sqlite", "drift", LIMITS, 0, time.time)
    commit(other, job(keep=rows(1, 1200)))
    graves = [Grave(row, "refused", 400, time.time()) for row in rows(1, 9)]
    commit(other, job(lambda disk: disk.bury(graves), must=True))
    other.close()
    connect, said = sqlite3.connect, list[tuple[str, bool]]()

    def traced(*args: Any, **settings: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **settings)
        db.set_trace_callback(lambda sql: said.append((sql.partition(" ")[0], db.in_transaction)))
        return db

    monkeypatch.setattr(sqlite3, "connect", traced)
    ours = Disk(tmp_path / "drift-ours.sqlite", "drift", LIMITS, 0, time.time)
    ours._outbox = tmp_path
    said.clear()
    (held,) = commit(ours, job(lambda disk: disk.adopt(0, 9999), alone=True))
    ours.close()
    assert (held.pending, held.dead) == (1191, 9)
    assert said.count(("DELETE", True)) >= 1200
    assert said.count(("DELETE", False)) == said.count(("INSERT", False)) == 0
    assert said.count(("COMMIT", True)) < 20


@pytest.mark.parametrize("most", [99, 100])
def test_a_file_that_was_taken_over_keeps_nothing_of_it(tmp_path: Path, most: int) -> None:
    other = Disk(tmp_path / "drift-other.sqlite", "drift", LIMITS, 0, time.time)
    commit(other, job(keep=[Row(0, n, b"secret" * 99, n) for n in range(1, 101)]))
    other.close()
    ours = Disk(tmp_path / "drift-ours.sqlite", "drift", LIMITS, 0, time.time)
    ours._outbox = tmp_path
    (held,) = commit(ours, job(lambda disk: disk.adopt(0, most), alone=True))
    assert held.pending == most
    assert (b"secret" in (tmp_path / "drift-other.sqlite").read_bytes()) == (most == 99)
    ours.close()


def test_what_is_done_is_not_read_again_nor_counted(disk: Disk) -> None:
    commit(disk, job(keep=rows(1, 9)))
    (_, loaded) = commit(disk, forgets(rows(1, 4)), job(lambda disk: disk.load(0, 99, 9999)))
    assert [row.seq for row in loaded.rows] == [5, 6, 7, 8, 9]
    (_, held) = commit(disk, forgets(rows(9, 9)), job(Disk.held))
    assert (held.pending, held.bytes, held.last) == (4, 36, 9)


def left(disk: Disk) -> int:
    """Return how many events are in the file, done or not."""
    return disk._file.count()


def test_what_is_done_lingers_among_what_waits_up_to_a_bound(tmp_path: Path) -> None:
    disk = opened(tmp_path)
    size = disk_module.MOST_LINGERING // 10
    commit(disk, job(keep=rows(1, 30, size)))
    for n in range(1, 11):
        commit(disk, forgets(rows(n, n, size)))
    assert left(disk) == 30
    commit(disk, forgets(rows(11, 12, size)))
    assert left(disk) == 30
    commit(disk, forgets(rows(13, 13, size)))  # what is over goes before
    assert left(disk) == 18
    path = disk._file.path
    disk.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*), min(seq) FROM events").fetchone() == (17, 14)
        assert db.execute("SELECT count(*) FROM done").fetchone() == (0,)
    db.close()


def test_a_file_in_which_nothing_waits_is_cleared_sooner(disk: Disk) -> None:
    size = disk_module.LINGERING // 10
    for first in (1, 12):
        commit(disk, job(keep=rows(first, first + 9, size)))
        commit(disk, forgets(rows(first, first + 9, size), first + 9))
        commit(disk, job(keep=rows(first + 10, first + 10, size)))
        assert left(disk) == 11  # not over the bound
        commit(disk, forgets(rows(first + 10, first + 10, size), first + 10))
        commit(disk, forgets([], first + 10))
        assert left(disk) == 0
    commit(disk, job(keep=rows(30, 31)))
    (loaded,) = commit(disk, job(lambda disk: disk.load(0, 99, 9999)))
    assert [row.seq for row in loaded.rows] == [30, 31]


MORE: dict[str, Callable[[Disk], object]] = {
    "other events": lambda disk: commit(disk, job(keep=rows(4, 4))),
    "dead letters": lambda disk: commit(disk, job(lambda disk: disk.replay(3, 99))),
    "what another has left": lambda disk: commit(
        disk, job(lambda disk: disk.adopt(3, 99), alone=True)
    ),
}


@pytest.mark.parametrize("more", MORE)
def test_what_came_after_all_was_done_is_not_cleared_with_it(tmp_path: Path, more: str) -> None:
    other = Disk(tmp_path / "drift-other.sqlite", "drift", LIMITS, 0, time.time)
    commit(other, job(keep=rows(1, 1)))
    other.close()
    disk = Disk(tmp_path / "drift-ours.sqlite", "drift", LIMITS, 0, time.time)
    disk._outbox = tmp_path
    commit(disk, job(keep=rows(1, 3)))
    commit(disk, job(lambda disk: disk.bury([Grave(rows(1, 1)[0], "refused", 400, time.time())])))
    commit(disk, forgets(rows(2, 3), 3))
    assert disk._is_clear()
    MORE[more](disk)
    assert not disk._is_through
    (held,) = commit(disk, job(Disk.held))
    assert held.pending == 1
    disk.close()


@pytest.mark.parametrize("through", [2, 3, 4])
def test_a_file_is_not_cleared_if_more_waits_than_who_asks_knows_of(
    tmp_path: Path, through: int
) -> None:
    disk = opened(tmp_path)
    commit(disk, job(keep=rows(1, 3)))
    commit(disk, forgets(rows(1, 2), through))
    assert disk._is_through == (through > 2)
    disk.close()
    again = opened(tmp_path)
    assert left(again) == 1
    again.close()


def test_a_commit_that_fails_is_not_counted(disk: Disk) -> None:
    def bury_and_fail(disk: Disk) -> None:
        disk.bury([Grave(rows(2, 2)[0], "refused", 400, time.time())])
        raise sqlite3.OperationalError("disk full")

    commit(disk, job(keep=rows(1, 3)))
    failing = job(bury_and_fail)
    outcomes = disk.commit([forgets(rows(1, 1)), job(keep=rows(4, 4)), failing])
    assert [one for one, _, error in outcomes if error] == [failing]
    (noted,) = disk._file.db.execute("SELECT group_concat(seqs) FROM done").fetchone()
    # The first is out of the file by now, to make room for the rest.
    assert (disk._rows, disk._done, noted) == (left(disk), 0, None) == (3, 0, None)


@pytest.mark.parametrize("last", [99, 100])
def test_a_file_in_which_nothing_waits_keeps_nothing_of_it(tmp_path: Path, last: int) -> None:
    disk = opened(tmp_path)
    commit(disk, job(keep=[Row(0, n, b"secret" * 99, n) for n in range(1, 101)]))
    commit(disk, forgets(rows(1, last), last))
    disk.close()
    assert (b"secret" in (tmp_path / "a.sqlite").read_bytes()) == (last == 99)
    again = opened(tmp_path)
    assert again._last == 100
    again.close()


def test_only_what_is_done_is_taken_out(disk: Disk) -> None:
    commit(disk, job(keep=rows(1, 20)))
    done = [3, 1, 2, 7, 20, 19, 3]
    commit(disk, forgets([rows(n, n)[0] for n in done]))
    (loaded,) = commit(disk, job(lambda disk: disk.load(0, 99, 9999)))
    assert [row.seq for row in loaded.rows] == [n for n in range(1, 21) if n not in done]
    commit(disk, forgets(rows(4, 18)))
    (held,) = commit(disk, job(Disk.held))
    assert (held.pending, held.last) == (0, 20)


def test_a_note_of_what_is_done_that_has_changed_takes_out_nothing(disk: Disk) -> None:
    db, noted = disk._file.db, str([5, 16])
    commit(disk, job(keep=rows(1, 20)))
    changed = [(noted, 29), (noted, 5)]
    for at in range(len(noted)):
        for bit in range(7):
            other = chr(ord(noted[at]) ^ 1 << bit)
            changed.append((noted[:at] + other + noted[at + 1 :], 21))
    for seqs, total in changed:
        db.execute("INSERT INTO done VALUES (?, ?)", (seqs, total))
        assert commit(disk, job(Disk.held))[0].pending == 20
        assert db.execute("SELECT count(*) FROM done").fetchone() == (0,)
    db.execute("INSERT INTO done VALUES (?, ?)", (noted, 21))
    assert commit(disk, job(Disk.held))[0].pending == 18


def test_rows_are_told_of_before_what_reads_them(disk: Disk) -> None:
    load, keep = job(lambda disk: disk.load(0, 99, 9999)), job(keep=rows(1, 3))
    (first, _, _), (second, loaded, _) = disk.commit([load, keep])
    assert (first, second) == (keep, load)
    assert len(loaded.rows) == 3


def test_numbers_of_dead_letters_that_were_taken_over_are_not_missed(tmp_path: Path) -> None:
    other = Disk(tmp_path / "drift-other.sqlite", "drift", LIMITS, 0, time.time)
    commit(other, job(keep=rows(1, 3)))
    graves = [Grave(row, "refused", 400, time.time()) for row in rows(1, 3)]
    commit(other, job(lambda disk: disk.bury(graves), must=True))
    other.close()
    ours = Disk(tmp_path / "drift-ours.sqlite", "drift", LIMITS, 0, time.time)
    ours._outbox = tmp_path
    (held,) = commit(ours, job(lambda disk: disk.adopt(0, 99), alone=True))
    assert (held.dead, held.last) == (3, 3)
    ours._file.db.execute("DELETE FROM dead")  # as when they are old
    ours.close()
    again = Disk(tmp_path / "drift-ours.sqlite", "drift", LIMITS, 0, time.time)
    assert again.take_damage() == []
    assert commit(again, job(Disk.held))[0].last == 3
    again.close()


def test_the_reserve_is_written_once(tmp_path: Path) -> None:
    disk = Disk(tmp_path, "drift", LIMITS, 1000, time.time)
    (reserve,) = tmp_path.glob("*.reserve")
    os.utime(reserve, (0, 0))
    commit(disk, job(keep=rows(1, 2)))
    assert reserve.stat().st_mtime == 0
    disk.close()


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 100, 2048, 5000])
def test_any_number_of_events_is_kept_as_a_whole(disk: Disk, count: int) -> None:
    commit(disk, job(keep=rows(1, count)))
    assert (commit(disk, job(Disk.held)))[0].pending == count
    clash = [*rows(count + 1, 2 * count), *rows(count, count)]  # its number is taken
    ((_, _, error),) = disk.commit([job(keep=clash)])
    assert isinstance(error, sqlite3.IntegrityError)
    assert (commit(disk, job(Disk.held)))[0].pending == count


def test_a_library_that_takes_few_variables_does_as_well(disk: Disk) -> None:
    disk._file.db.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    commit(disk, job(keep=rows(1, 1500)))
    commit(disk, forgets(rows(1, 1400)))
    (loaded,) = commit(disk, job(lambda disk: disk.load(0, 9999, 99999)))
    assert [row.seq for row in loaded.rows] == list(range(1401, 1501))


@pytest.mark.parametrize("damage", [False, True])
async def test_after_a_crash_what_was_delivered_is_not_sent_again(
    box: Sandbox, tmp_path: Path, damage: bool
) -> None:
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path / "outbox") as events:
        await events.track_many(
            Track("Step", user_id=n % 7, attributes={"n": n}) for n in range(300)
        )
        await events.flush()
        await on_disk(events, lambda disk: None)  # after what was asked before
        path = image(tmp_path / "outbox", tmp_path / "copy")
    if damage:
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        db.close()
        page = path.read_bytes().index(b'"n":150') // 4096
        overwrite(path, 4096 * page, bytes(4096))
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path / "copy") as again:
        stats = await again.flush()
    assert stats.accepted == 0
    assert len(list((tmp_path / "copy").glob("*.damaged-*"))) == damage
    assert sorted(n for numbers in numbers_of(box).values() for n in numbers) == list(range(300))


async def test_many_events_do_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    released = threading.Event()
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path, timeout=0.2) as events:
        stuck = on_disk(events, lambda disk: released.wait())
        with pytest.raises(DeadlineError, match="the disk has not answered"):
            await events.track_many(Track("Step", user_id=n) for n in range(5000))
        released.set()
        await stuck
        await events.close(0)


async def test_the_next_events_are_made_while_the_disk_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, released, made = Disk._insert, threading.Event(), 0

    def insert(self: Disk, rows: Sequence[Row]) -> None:
        released.wait()
        real(self, rows)

    def items() -> Iterator[Track]:
        nonlocal made
        for made in range(1, 1001):
            yield Track("Step", user_id=made)

    monkeypatch.setattr(Disk, "_insert", insert)
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path) as events:
        many = asyncio.create_task(events.track_many(items()))
        await until(lambda: made == 1000)
        assert events.stats().accepted == 0
        released.set()
        assert await many == 1000
        await events.close(0)


async def test_only_a_client_with_others_looks_for_what_they_have_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, looks = Disk.adopt, 0

    def adopt(self: Disk, after: int, most: int) -> Held:
        nonlocal looks
        looks += 1
        return real(self, after, most)

    monkeypatch.setattr(Disk, "adopt", adopt)
    async with contextlib.AsyncExitStack() as clients:
        for n in range(2):
            client = DriftEvents(1, base_url=NOWHERE, outbox=tmp_path)
            await clients.enter_async_context(client)
            for _ in range(3):  # to see others, to look, to know
                await on_disk(client, lambda disk: None)
            assert looks == n


async def test_many_events_that_are_cancelled_leave_no_task_behind(tmp_path: Path) -> None:
    released = threading.Event()
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path) as events:
        stuck = on_disk(events, lambda disk: released.wait())
        before = asyncio.all_tasks()
        many = asyncio.create_task(events.track_many(Track("Step", user_id=n) for n in range(600)))
        while not events._outbox._keeping:  # noqa: ASYNC110
            await asyncio.sleep(0)  # nothing tells
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many
        await asyncio.sleep(0)
        assert asyncio.all_tasks() - before == set()
        released.set()
        await stuck
        stats = await events.close(0)
    assert stats.accepted == stats.pending == 512  # what was on its way to the disk arrives


async def test_only_with_the_last_event_all_is_said_to_be_done(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SqliteStore.forget
    said: list[int] = []

    def forget(self: SqliteStore, rows: Sequence[Row], through: int = 0) -> asyncio.Future[None]:
        said.append(through)
        return real(self, rows, through)

    monkeypatch.setattr(SqliteStore, "forget", forget)
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path, window=1) as events:
        await events.track_many(
            Track("Step", user_id=n, attributes={"text": "secret"}) for n in range(1500)
        )
        await events.flush()
        assert len(said) > 2
        assert said[-1] == 1500
        assert set(said[:-1]) == {0}
        said.clear()
        await events.track("Step", user_id=1)
        events._outbox.backlog.moving += 1  # as while dead letters get numbers again
        await events.flush()
        events._outbox.backlog.moving -= 1
        assert said == [0]
        await events.track("Step", user_id=1)
        await events.flush()
    assert said == [0, 1502]
    (path,) = tmp_path.glob("*.sqlite")
    assert b"secret" not in path.read_bytes()


async def test_many_events_do_not_pass_one_that_came_before(tmp_path: Path) -> None:
    begun, released = threading.Event(), threading.Event()
    told: list[int] = []

    def hold(disk: Disk) -> None:
        begun.set()
        released.wait()

    def tell(first: int, _: object, error: Exception | None) -> None:
        told.append(first)

    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path) as events:
        store = events._outbox.store
        stuck = on_disk(events, hold)
        await asyncio.to_thread(begun.wait)
        for part in (rows(1, 1), rows(2, 600)):
            store.put(part, partial(tell, part[0].seq))
        released.set()
        await stuck
        await on_disk(events, lambda disk: None)
    assert told == [1, 2]


async def test_a_flush_ends_also_where_one_event_came_just_before_many(
    box: Sandbox, tmp_path: Path
) -> None:
    begun, released = threading.Event(), threading.Event()

    def hold(disk: Disk) -> None:
        begun.set()
        released.wait()

    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path) as events:
        stuck = on_disk(events, hold)
        await asyncio.to_thread(begun.wait)
        one = asyncio.create_task(events.track("Step", user_id="a"))
        many = asyncio.create_task(
            events.track_many(Track("Step", user_id=n, attributes={"n": n}) for n in range(512))
        )
        await until(lambda: len(events._outbox._keeping) == 2)
        released.set()
        await asyncio.gather(one, many, stuck)
        async with asyncio.timeout(10):
            stats = await events.flush(60)
    assert (stats.accepted, stats.delivered) == (513, 513)
