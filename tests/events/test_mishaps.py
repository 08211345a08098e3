"""What goes wrong beside the events: numbers, damaged rows and files, rights, a store that ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from drift_async import (
    ClosedError,
    DriftEvents,
    InputError,
    OutboxLockedError,
    Track,
)
from drift_async.events import files
from drift_async.events.disk import Disk
from drift_async.events.store import DeadLimits, Grave
from drift_async.sandbox import Sandbox
from tests.support.event_storage import LIMITS, commit, job, on_disk, rows
from tests.support.events import (
    NOWHERE,
    ORG,
    Maker,
    left,
    looked_for_others,
    numbers_of,
    overwrite,
    total,
)
from tests.support.flavours import core
from tests.support.server import Server, reply

pytestmark = pytest.mark.anyio


def opened(path: Path, limits: DeadLimits = LIMITS) -> Disk:
    return Disk(path, "drift", limits, 0, time.time)


def bury(disk: Disk, first: int, last: int) -> None:
    graves = [Grave(row, "refused", 400, time.time()) for row in rows(first, last)]
    commit(disk, job(lambda disk: disk.bury(graves), must=True))


# Numbers of dead letters that wait again


async def test_a_replay_takes_no_more_than_there_are_numbers_for(tmp_path: Path) -> None:
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path, when_full="error") as events:
        await looked_for_others(events)
        for n in range(5):
            await events.track("Step", user_id=n)
        # As while refusals are being set aside: the file holds more than is counted.
        await events._outbox.store.bury(
            [Grave(row, "refused", 400, time.time()) for row in rows(1, 5)]
        )
        assert await events.replay() == 0
        for n in range(20):
            await events.track("Step", user_id=n)
        assert events.stats().pending == 25
        await events.close(0)


async def test_dead_letters_may_wait_again_while_others_are_set_aside(
    drift_events: Maker, tmp_path: Path
) -> None:
    async with (
        Server(reply(b"", "400 Bad Request")) as server,
        drift_events(
            1, base_url=server.url, outbox=tmp_path, when_full="error", linger=0
        ) as events,
    ):

        async def replay() -> None:
            for _ in range(30):
                await events.replay()

        async def track(user: int) -> None:
            for _ in range(40):
                await events.track("Step", user_id=user)

        await asyncio.gather(replay(), *(track(user) for user in range(4)))
        stats = await events.flush(5)
        assert total(stats) == stats.accepted == stats.dead == 160
        assert len(await events.dead()) == 160


def test_a_replay_takes_the_oldest(tmp_path: Path) -> None:
    disk = opened(tmp_path / "a.sqlite")
    commit(disk, job(keep=rows(1, 5)))
    bury(disk, 1, 5)
    (replayed,) = commit(disk, job(lambda disk: disk.replay(5, 3)))
    assert replayed.count == 3
    assert [grave.row.seq for grave in disk.dead()] == [4, 5]
    disk.close()


async def test_a_replay_that_fails_does_not_keep_the_rest_from_being_read(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Disk, after: int, most: int) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Disk, "replay", fail)
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path, linger=0) as events:
        replay = asyncio.ensure_future(events.replay())
        track = asyncio.ensure_future(events.track("Step", user_id=1, attributes={"n": 0}))
        with pytest.raises(sqlite3.OperationalError):
            await replay
        await track
        stats = await events.flush(3)
        assert (stats.accepted, stats.delivered) == (1, 1)


# Taking over


def narrow(disk: Disk) -> None:
    """Leave space for a part of what is to be taken over."""
    (pages,) = disk._file.db.execute("PRAGMA page_count").fetchone()
    disk._file.db.execute(f"PRAGMA max_page_count={pages + 25}")


async def test_what_was_taken_over_before_an_error_is_delivered(
    box: Sandbox, tmp_path: Path
) -> None:
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path, linger=0) as events:
        await looked_for_others(events)
        await left(tmp_path, "z", 1200)
        await on_disk(events, narrow)
        await events._outbox.backlog.adopt()
        stats = await events.flush(5)
        assert 0 < stats.recovered < 1200
        assert stats.delivered == stats.accepted == stats.recovered
        assert (stats.pending, stats.bytes) == (0, 0)
        await on_disk(events, lambda disk: disk._file.db.execute("PRAGMA max_page_count=99999"))
        await events._outbox.backlog.adopt()
        stats = await events.flush(5)
        assert (stats.delivered, stats.recovered) == (1200, 1200)
    assert sorted(n for numbers in numbers_of(box).values() for n in numbers) == list(range(1200))


def test_a_file_that_cannot_be_opened_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, last in (("a", 1), ("b", 2), ("c", 4)):
        disk = opened(tmp_path / f"drift-{name}.sqlite")
        commit(disk, job(keep=rows(1, last)))
        disk.close()
    connect, access = sqlite3.connect, os.access

    def refuse(path: Any, *args: Any, **settings: Any) -> Any:
        if Path(path).name == "drift-b.sqlite":
            raise sqlite3.OperationalError("unable to open database file")
        return connect(path, *args, **settings)

    monkeypatch.setattr(sqlite3, "connect", refuse)
    monkeypatch.setattr(
        os, "access", lambda path, mode: path.name != "drift-b.sqlite" and access(path, mode)
    )
    with pytest.raises(InputError, match="cannot be opened"):
        opened(tmp_path / "drift-b.sqlite").close()
    ours = opened(tmp_path / "drift-0.sqlite")
    ours._outbox = tmp_path
    (held,) = commit(ours, job(lambda disk: disk.adopt(0, 99), alone=True))
    assert held.pending == 5
    ours.close()
    (tmp_path / "drift-0.sqlite").unlink()
    (tmp_path / "drift-a.sqlite").unlink()
    another = opened(tmp_path)
    assert another._file.path.name == "drift-c.sqlite"
    another.close()


# Damaged rows

ROW_DAMAGES = {
    "a text": "body = CAST(body AS TEXT)",
    "not even a text": "body = CAST(x'ff' || body AS TEXT)",
    "a number": "body = 7",
    "nothing": "body = NULL",
    "the kind": "kind = 'x'",
    "the key": "key = 0.5",
    "the checksum": "crc = x'00'",
}


@pytest.mark.parametrize("damage", ROW_DAMAGES)
@pytest.mark.parametrize("taken_over", [False, True])
async def test_a_value_of_another_type_holds_up_nothing(
    box: Sandbox, tmp_path: Path, damage: str, taken_over: bool
) -> None:
    await left(tmp_path, "a", 3)
    path = tmp_path / "drift-a.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"UPDATE events SET {ROW_DAMAGES[damage]} WHERE seq = 2")
    if taken_over:
        await left(tmp_path, "0", 0)
    is_same = damage == "a text"  # to the byte
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path, linger=0) as events:
        await looked_for_others(events)
        await events.track("Step", user_id="w", attributes={"n": 9})
        stats = await events.flush(5)
        assert total(stats) == stats.accepted == 4
        assert (stats.pending, stats.bytes, stats.dead) == (0, 0, not is_same)
        assert [letter.reason for letter in await events.dead()] == ["damaged"] * (not is_same)
        assert await events.replay() == 0
        assert (await on_disk(events, Disk.held)).pending == 0
    assert numbers_of(box) == {"u": [0, 1, 2] if is_same else [0, 2], "w": [9]}


@pytest.mark.parametrize(
    "damage", ["reason = CAST(x'ff' AS TEXT)", "reason = NULL", "died_at = 'x'", "died_at = 1e99"]
)
async def test_a_damaged_dead_letter_can_be_shown(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.sqlite"
    async with (
        Server(reply(b"", "400 Bad Request")) as server,
        DriftEvents(1, base_url=server.url, outbox=path, linger=0) as events,
    ):
        await events.track("Step", user_id=1)
        await events.flush()
        await on_disk(events, lambda disk: disk._file.db.execute(f"UPDATE dead SET {damage}"))
        (letter,) = await events.dead()
        assert letter.event is not None
        assert await events.replay() == 1


def test_an_error_of_one_job_leaves_no_transaction_open(tmp_path: Path) -> None:
    def fail(disk: Disk) -> None:
        disk.forget(rows(1, 1))
        raise TypeError

    disk = opened(tmp_path / "a.sqlite")
    commit(disk, job(keep=rows(1, 2)))
    failing, keep = job(fail), job(keep=rows(3, 3))
    outcomes = disk.commit([failing, keep])
    assert [one for one, _, error in outcomes if error] == [failing]
    assert not disk._file.db.in_transaction
    assert (disk._rows, disk._done, disk._last) == (3, 0, 3)
    disk.close()
    again = opened(tmp_path / "a.sqlite")
    assert again._file.count() == 3
    again.close()


# Damaged files


def damaged(path: Path, count: int) -> None:
    """Leave a file of which only the last page of so many events cannot be read."""
    disk = opened(path)
    commit(disk, job(keep=rows(1, count, 300)))
    disk.close()
    page = path.read_bytes().rindex(b"x" * 300) // 4096
    overwrite(path, 4096 * page, bytes(4096))


def test_of_those_who_find_a_damaged_file_together_one_gets_it(tmp_path: Path) -> None:
    together = 4

    def worker(folder: Path, barrier: threading.Barrier) -> str:
        barrier.wait()
        disk = opened(folder)
        commit(disk, job(keep=rows(101, 105)))
        barrier.wait()  # all are open at once
        disk.close()
        return disk._file.path.name

    with ThreadPoolExecutor(together) as pool:
        for turn in range(5):
            folder = tmp_path / str(turn)
            folder.mkdir()
            (folder / "drift-a.sqlite").write_bytes(os.urandom(20_000))
            barrier = threading.Barrier(together, timeout=10)
            workers = [pool.submit(worker, folder, barrier) for _ in range(together)]
            names = [done.result() for done in workers]
            assert len(set(names)) == together
            for name in names:
                with contextlib.closing(sqlite3.connect(folder / name)) as db:
                    assert db.execute("SELECT count(*) FROM events").fetchone() == (5,)
            assert len(list(folder.glob("*.damaged-*"))) == 1
            assert list(folder.glob("*.lock")) == []


def test_who_opens_a_file_keeps_others_from_it(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with files._opening(path, 0):
        for _ in range(2):
            with pytest.raises(OutboxLockedError):
                opened(path)
    opened(path).close()
    assert not list(tmp_path.glob("*.lock"))


def test_a_lock_that_was_removed_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, connect = tmp_path / "a.lock", sqlite3.connect
    first, before = files._lock(lock, 0), list[Any]()

    def slow(path: Any, *args: Any, **settings: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(path, *args, **settings)
        if not before:  # who had it ends just between two steps of the next one
            before.append(db)
            lock.unlink()
            first.close()
        return db

    monkeypatch.setattr(sqlite3, "connect", slow)
    second = files._lock(lock, 0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        files._lock(lock, 0)
    second.close()


class _KilledError(BaseException):
    """Ends what is under way, as the end of the process would."""


def die(*_: object) -> None:
    raise _KilledError


rename = Path.rename


def rename_or_die(old: Path, new: Path) -> None:
    if old.suffix == ".new":
        die()
    rename(old, new)


MOMENTS: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "before it is copied": lambda patch: patch.setattr(files, "_readable", die),
    "before it is set aside": lambda patch: patch.setattr(uuid, "uuid4", die),
    "before the copy has its name": lambda patch: patch.setattr(Path, "rename", rename_or_die),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("is_shared", [False, True])
def test_a_process_that_ends_while_it_replaces_a_file_loses_nothing(
    tmp_path: Path, moment: str, is_shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "drift-a.sqlite"
    damaged(path, 100)
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch)
        with pytest.raises(_KilledError):
            opened(path)
    again = opened(tmp_path if is_shared else path)
    assert again._file.path == path
    assert 80 <= commit(again, job(Disk.held))[0].pending < 100
    ((_, said),) = again.take_damage()
    assert "was damaged" in said
    again.close()
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1
    assert not list(tmp_path.glob("*.new*"))
    again = opened(path)
    assert again.take_damage() == []
    again.close()


def test_a_damaged_file_stays_until_there_is_space_for_what_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "drift-a.sqlite"
    damaged(path, 100)
    prepare = files._prepare

    def narrow(db: sqlite3.Connection, stem: str) -> None:
        prepare(db, stem)
        db.execute("PRAGMA max_page_count=6")

    ours = opened(tmp_path / "drift-0.sqlite")
    ours._outbox = tmp_path
    with monkeypatch.context() as patch:
        patch.setattr(files, "_prepare", narrow)
        with pytest.raises(InputError, match="full"):
            opened(path)
        (held,) = commit(ours, job(lambda disk: disk.adopt(0, 99), alone=True))
        assert held.pending == 0
    (held,) = commit(ours, job(lambda disk: disk.adopt(0, 199), alone=True))
    assert 80 <= held.pending < 100
    ours.close()


def test_a_file_that_could_not_be_replaced_is_replaced_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space")

    disk = opened(tmp_path / "a.sqlite")
    commit(disk, job(keep=rows(1, 100, 300)))
    disk._file.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    disk._file.db.execute("PRAGMA cache_size=0")
    overwrite(disk._file.path, 4096, bytes(4096 * 3))
    with monkeypatch.context() as patch:
        patch.setattr(files, "_salvage", full)
        for _ in range(2):
            ((_, _, error),) = disk.commit([job(keep=rows(101, 101))])
            assert error is not None
    commit(disk, job(keep=rows(101, 101)))
    assert len(disk.take_damage()) == 1
    disk.close()


# Closed


@pytest.mark.parametrize("many", [False, True])
async def test_who_waits_for_space_on_a_disk_is_told_when_the_client_is_closed(
    drift_events: Maker, tmp_path: Path, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = drift_events(1, base_url=NOWHERE, outbox=tmp_path, timeout=15)
    await events.open()
    client = core(events)
    full = asyncio.Event()
    loop, refused = asyncio.get_running_loop(), client._outbox._can_try_again

    async def can_try_again(*args: Any) -> bool:
        loop.call_soon_threadsafe(full.set)
        return bool(await refused(*args))

    def nothing(self: Disk, rows: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(client._outbox, "_can_try_again", can_try_again)
    monkeypatch.setattr(Disk, "_insert", nothing)
    waiting = asyncio.ensure_future(
        events.track_many([Track("Step", user_id=n) for n in range(5)])
        if many
        else events.track("Step", user_id=1)
    )
    await full.wait()
    await events.close(0)
    async with asyncio.timeout(3):
        with pytest.raises(ClosedError):
            await waiting
    assert events.stats().pending == 0


async def test_what_is_asked_of_a_closed_store_is_answered(tmp_path: Path) -> None:
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path) as events:
        store = events._outbox.store
    async with asyncio.timeout(3):
        for asked in (store.dead(), store.load(0, 1, 1), store.forget(()), store.bury([])):
            with pytest.raises(ClosedError):
                await asked


# Dead letters over the limit


async def test_dead_letters_that_go_when_a_file_is_opened_are_counted(
    drift_events: Maker, tmp_path: Path
) -> None:
    path = tmp_path / "a.sqlite"

    def leave_dead_letters() -> None:
        disk = opened(path)
        commit(disk, job(keep=rows(1, 9)))
        bury(disk, 1, 9)
        disk.close()

    await asyncio.to_thread(leave_dead_letters)
    losses: list[Any] = []
    for limits, reason, count in (
        ({"max_dead": 2}, "dead_full", 7),
        ({"dead_days": 1e-9}, "dead_old", 2),
    ):
        async with drift_events(
            1, base_url=NOWHERE, outbox=path, on_drop=losses.append, **limits
        ) as events:
            stats = events.stats()
        assert dict(stats.dropped) == {reason: count}
        assert total(stats) == stats.accepted
        assert (losses[-1].reason, losses[-1].count) == (reason, count)
    assert len(losses) == 2


async def test_dead_letters_that_go_after_the_disk_was_full_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, is_full = Disk.bury, True

    def bury(self: Disk, graves: Any) -> Any:
        if is_full:
            raise sqlite3.OperationalError("database or disk is full")
        return real(self, graves)

    monkeypatch.setattr(Disk, "bury", bury)
    losses: list[Any] = []
    async with (
        Server(reply(b"", "400 Bad Request")) as server,
        DriftEvents(
            1, base_url=server.url, outbox=tmp_path, max_dead=3, on_drop=losses.append, linger=0
        ) as events,
    ):
        for n in range(10):
            await events.track("Step", user_id=n)
        await events.flush()
        assert events.stats().dead == 10
        is_full = False
        await on_disk(events, lambda disk: None)  # an occasion, as any
        assert len(await events.dead()) == 3
        stats = events.stats()
        assert (stats.dead, dict(stats.dropped), total(stats)) == (3, {"dead_full": 7}, 10)
        assert sum(loss.count for loss in losses) == 7
        assert await events.replay() == 3


async def test_old_dead_letters_are_not_shown_nor_replayed(
    drift_events: Maker, outbox: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 0.0
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    async with (
        Server(reply(b"", "400 Bad Request")) as server,
        drift_events(1, base_url=server.url, outbox=outbox, dead_days=1, linger=0) as events,
    ):
        for _ in range(2):
            await events.track("Step", user_id=1)
            await events.flush()
            assert events.stats().dead == 1
            ahead += 100_000
            shown = await events.dead() if ahead < 150_000 else await events.replay()
            assert shown in ([], 0)
        stats = events.stats()
        assert (stats.dead, dict(stats.dropped), total(stats)) == (0, {"dead_old": 2}, 2)


# Whose it is


async def test_a_file_is_of_one_kind_of_client(
    drift_events: Maker, segmentstream: Maker, tmp_path: Path
) -> None:
    path = tmp_path / "a.sqlite"
    async with drift_events(1, base_url=NOWHERE, outbox=path) as events:
        await events.identify(user_id="u")
        await events.close(0)
    async with Server(reply(b"", "204 No Content")) as server:
        with pytest.raises(InputError, match="another kind of client"):
            await segmentstream("token", base_url=server.url, outbox=path).open()
        assert server.got == []
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=0")  # as from before that was noted
    for _ in range(2):
        async with drift_events(1, base_url=NOWHERE, outbox=path) as events:
            assert (await events.close(0)).recovered == 1
    with pytest.raises(InputError, match="another kind of client"):
        await segmentstream("token", base_url=NOWHERE, outbox=path).open()
