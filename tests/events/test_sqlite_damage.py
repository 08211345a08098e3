"""Errors of disks, damaged rows and files, and dead letters over the limit."""

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
    DriftError,
    DriftEvents,
    InputError,
    Track,
)
from drift_async.events import sqlite_format
from drift_async.events.sqlite import SqliteStorage
from drift_async.events.sqlite_file import SqliteFile
from drift_async.sandbox import Sandbox
from tests.support.event_storage import (
    LIMITS,
    events as some_events,
    letters,
    on_disk,
    opened,
    store,
)
from tests.support.events import (
    NOWHERE,
    ORG,
    Maker,
    left,
    numbers_of,
    overwrite,
    total,
    until,
)
from tests.support.server import Server, reply

pytestmark = pytest.mark.anyio


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


async def test_a_replay_that_fails_does_not_keep_the_rest_from_being_read(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(SqliteFile, "replay", fail)
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path, linger=0) as events:
        replay = asyncio.ensure_future(events.replay())
        track = asyncio.ensure_future(events.track("Step", user_id=1, attributes={"n": 0}))
        with pytest.raises(DriftError, match="disk I/O error"):
            await replay
        await track
        stats = await events.flush(3)
        assert (stats.accepted, stats.delivered) == (1, 1)


# Files of others


async def test_a_file_that_cannot_be_opened_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, last in (("a", 1), ("b", 2), ("c", 4)):
        await left(tmp_path, name, last)
    connect = sqlite3.connect

    def refuse(path: Any, *args: Any, **settings: Any) -> Any:
        if Path(path).name == "drift-b.sqlite":
            raise sqlite3.OperationalError("unable to open database file")
        return connect(path, *args, **settings)

    monkeypatch.setattr(sqlite3, "connect", refuse)
    with pytest.raises(InputError, match="cannot be opened"):
        await DriftEvents(1, base_url=NOWHERE, outbox=tmp_path / "drift-b.sqlite").open()
    async with (
        Server(reply()) as server,
        DriftEvents(1, base_url=server.url, outbox=tmp_path, linger=0) as events,
    ):
        await until(lambda: events.stats().recovered == 5)
        await events.flush()
    assert [path.name for path in tmp_path.glob("*.sqlite")] == ["drift-b.sqlite"]
    assert "drift-b.sqlite is not taken over" in caplog.text


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
        await left(tmp_path, "0", 1, "v")
    is_same = damage == "a text"  # to the byte
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path, linger=0) as events:
        await until(lambda: events.stats().recovered == 3 + taken_over)
        await events.track("Step", user_id="w", attributes={"n": 9})
        stats = await events.flush(5)
        assert total(stats) == stats.accepted == 4 + taken_over
        assert (stats.pending, stats.bytes, stats.dead) == (0, 0, not is_same)
        assert [letter.reason for letter in await events.dead()] == ["damaged"] * (not is_same)
        assert await events.replay() == 0
        assert (await on_disk(events, lambda file: file.summary(LIMITS))).pending == 0
    wanted = {"u": [0, 1, 2] if is_same else [0, 2], "w": [9]}
    assert numbers_of(box) == wanted | ({"v": [0]} if taken_over else {})


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
        await on_disk(events, lambda file: file._db.execute(f"UPDATE dead SET {damage}"))
        (letter,) = await events.dead()
        assert letter.event is not None
        assert await events.replay() == 1


# Damaged files


def damaged(path: Path, count: int) -> None:
    """Leave a file of which only the last page of so many events cannot be read."""
    file = opened(path)
    store(file, some_events(1, count, 300))
    file.close(keep_empty=True)
    page = path.read_bytes().rindex(b"x" * 300) // 4096
    overwrite(path, 4096 * page, bytes(4096))


def test_of_those_who_find_a_damaged_file_together_one_gets_it(tmp_path: Path) -> None:
    together = 4

    def worker(folder: Path, barrier: threading.Barrier) -> str:
        barrier.wait()
        file = SqliteStorage(folder, "drift", time.time)._first_free()
        store(file, some_events(101, 105))
        barrier.wait()  # all are open at once
        file.close(keep_empty=True)
        return file.path.name

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
            assert list(folder.glob("*.owner")) == []


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
    "before it is copied": lambda patch: patch.setattr(sqlite_format, "_readable", die),
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
    again = SqliteStorage(tmp_path if is_shared else path, "drift", time.time)._first_free()
    assert again.path == path
    assert 80 <= again.summary(LIMITS).pending < 100
    (said,) = again.take_damage()
    assert "was damaged" in said
    again.close(keep_empty=True)
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1
    assert not list(tmp_path.glob("*.new*"))
    again = opened(path)
    assert again.take_damage() == []
    again.close(keep_empty=True)


def test_a_damaged_file_stays_until_there_is_space_for_what_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "drift-a.sqlite"
    damaged(path, 100)
    connect = sqlite_format.connect

    def narrow(*args: Any) -> sqlite3.Connection:
        db = connect(*args)
        db.execute("PRAGMA max_page_count=6")
        return db

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_format, "connect", narrow)
        with pytest.raises(InputError, match="full"):
            opened(path)
        assert SqliteStorage(tmp_path, "drift", time.time)._adopt({}, LIMITS) is None
    files: dict[Path, SqliteFile] = {}
    found = SqliteStorage(tmp_path, "drift", time.time)._adopt(files, LIMITS)
    assert found is not None
    assert 80 <= found[1].pending < 100
    files[path].close(keep_empty=True)


def test_a_file_that_could_not_be_replaced_is_replaced_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space")

    file = opened(tmp_path / "a.sqlite")
    store(file, some_events(1, 100, 300))
    file._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    file._db.execute("PRAGMA cache_size=0")
    overwrite(file.path, 4096, bytes(4096 * 3))
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_format, "salvage", full)
        for _ in range(2):
            (error,) = file.write([some_events(101, 101)], [])
            assert error is not None
    store(file, some_events(101, 101))
    assert len(file.take_damage()) == 1
    file.close(keep_empty=True)


# Closed


@pytest.mark.parametrize("many", [False, True])
async def test_a_caller_that_waits_for_space_on_a_disk_is_told_when_the_client_is_closed(
    drift_events: Maker, tmp_path: Path, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = drift_events(1, base_url=NOWHERE, outbox=tmp_path, timeout=15)
    await events.open()
    refused = threading.Event()

    def nothing(*_: Any) -> None:
        refused.set()
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(SqliteFile, "_insert", nothing)
    waiting = asyncio.ensure_future(
        events.track_many([Track("Step", user_id=n) for n in range(5)])
        if many
        else events.track("Step", user_id=1)
    )
    await asyncio.to_thread(refused.wait)
    await events.close(0)
    async with asyncio.timeout(3):
        with pytest.raises(ClosedError):
            await waiting
    assert events.stats().pending == 0


async def test_a_closed_storage_answers(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path, "drift", time.time)
    await storage.open(LIMITS)
    await storage.close()
    assert storage.undeleted == 0
    async with asyncio.timeout(3):
        for asked in (
            storage.dead(LIMITS),
            storage.read(0, 1, 1),
            storage.delete(()),
            storage.dead_letter([], LIMITS),
        ):
            with pytest.raises(ClosedError):
                await asked
        with pytest.raises(ClosedError):
            storage.append(some_events(1, 1))
        await storage.close()
    assert storage.undeleted == 0


# Dead letters over the limit


async def test_dead_letters_that_go_when_a_file_is_opened_are_counted(
    drift_events: Maker, tmp_path: Path
) -> None:
    path = tmp_path / "a.sqlite"

    def leave_dead_letters() -> None:
        file = opened(path)
        given = some_events(1, 9)
        store(file, given)
        file.dead_letter(letters(given), LIMITS)
        file.close(keep_empty=True)

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
    real, is_full = SqliteFile._move, True

    def move(self: SqliteFile, letters: Any) -> None:
        if is_full and letters:
            raise sqlite3.OperationalError("database or disk is full")
        real(self, letters)

    monkeypatch.setattr(SqliteFile, "_move", move)
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
