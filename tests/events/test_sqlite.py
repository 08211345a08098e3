"""The thread of an outbox file: what waits for it, in which order it answers, what it holds up."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from drift_async import DeadlineError, DriftEvents, Track
from drift_async.events.sqlite import SqliteStorage
from drift_async.events.sqlite_file import SqliteFile
from drift_async.events.storage import QueuedEvent
from drift_async.sandbox import Sandbox
from tests.support.event_storage import LIMITS, events as some_events, on_disk
from tests.support.events import NOWHERE, ORG, image, numbers_of, overwrite, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("damage", [False, True])
async def test_after_a_crash_what_was_delivered_is_not_sent_again(
    box: Sandbox, tmp_path: Path, damage: bool
) -> None:
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path / "outbox") as events:
        await events.track_many(
            Track("Step", user_id=n % 7, attributes={"n": n}) for n in range(300)
        )
        await events.flush()
        await on_disk(events, lambda file: None)  # after what was asked before
        path = image(tmp_path / "outbox", tmp_path / "copy")
    if damage:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        overwrite(path, 100, bytes(4096 * 2))
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path / "copy") as again:
        stats = await again.flush()
    assert stats.accepted == 0
    assert any((tmp_path / "copy").glob("*.damaged-*")) == damage
    assert sorted(n for numbers in numbers_of(box).values() for n in numbers) == list(range(300))


async def test_many_events_do_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    released = threading.Event()
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path, timeout=0.2) as events:
        stuck = on_disk(events, lambda file: released.wait())
        with pytest.raises(DeadlineError, match="the disk has not answered"):
            await events.track_many(Track("Step", user_id=n) for n in range(5000))
        released.set()
        await stuck
        await events.close(0)


async def test_a_cancellation_in_the_moment_of_the_timeout_is_a_cancellation(
    tmp_path: Path,
) -> None:
    released = threading.Event()
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path, timeout=0.05) as events:
        stuck = on_disk(events, lambda file: released.wait())
        track = asyncio.ensure_future(events.track("Step", user_id=1))
        await asyncio.sleep(0)
        time.sleep(0.1)  # noqa: ASYNC251  # the timeout and the cancellation come in one turn
        track.cancel()
        await asyncio.wait([track])
        assert track.cancelled()
        released.set()
        await stuck
        await events.close(0)


async def test_the_next_events_are_made_while_the_disk_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, released, made = SqliteFile._insert, threading.Event(), 0

    def insert(self: SqliteFile, number: int, events: Sequence[QueuedEvent]) -> None:
        released.wait()
        real(self, number, events)

    def items() -> Iterator[Track]:
        nonlocal made
        for made in range(1, 1001):
            yield Track("Step", user_id=made)

    monkeypatch.setattr(SqliteFile, "_insert", insert)
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path) as events:
        many = asyncio.create_task(events.track_many(items()))
        await until(lambda: made == 1000)
        assert events.stats().accepted == 0
        released.set()
        assert await many == 1000
        await events.close(0)


async def test_the_source_waits_for_a_disk_that_does_not_keep_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, made = threading.Event(), 0

    def items() -> Iterator[Track]:
        nonlocal made
        for made in range(1, 100_001):
            yield Track("Step", user_id=made)

    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path) as events:
        stuck = on_disk(events, lambda file: released.wait())
        many = asyncio.create_task(events.track_many(items()))
        before = -1
        while made != before:
            before = made
            for _ in range(200):
                await asyncio.sleep(0)
        assert made < 3000
        many.cancel()
        await asyncio.wait([many])
        released.set()
        await stuck
        await events.close(0)


async def test_many_events_that_are_cancelled_leave_no_task_behind(tmp_path: Path) -> None:
    released = threading.Event()
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path) as events:
        stuck = on_disk(events, lambda file: released.wait())
        before = asyncio.all_tasks()
        many = asyncio.create_task(events.track_many(Track("Step", user_id=n) for n in range(600)))
        for _ in range(20):
            await asyncio.sleep(0)
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many
        for _ in range(3):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() - before == set()
        released.set()
        await stuck
        stats = await events.close(0)
    assert stats.accepted == stats.pending == 600  # what was on its way to the disk arrives


async def test_answers_come_in_the_order_of_the_work(tmp_path: Path) -> None:
    begun, released = threading.Event(), threading.Event()
    order: list[str] = []

    def hold(files: Any) -> None:
        begun.set()
        released.wait()

    def note(name: str, future: asyncio.Future[Any]) -> None:
        future.add_done_callback(lambda _: order.append(name))

    storage = SqliteStorage(tmp_path, "drift", time.time)
    await storage.open(LIMITS)
    stuck = storage._ask(hold)
    await asyncio.to_thread(begun.wait)
    one, many = some_events(1, 1), some_events(2, 600)
    read = storage.read(0, 9999, 1 << 20)
    note("read", read)
    note("one", storage.append(one))
    note("many", storage.append(many))
    await asyncio.sleep(0)
    released.set()
    await stuck
    await storage.dead(LIMITS)
    # What is read holds all that was stored before it, and that is answered before.
    assert order == ["one", "many", "read"]
    assert [event.number for event in read.result().events] == list(range(1, 601))
    await storage.close()


async def test_a_flush_ends_also_where_one_event_came_just_before_many(
    box: Sandbox, tmp_path: Path
) -> None:
    begun, released = threading.Event(), threading.Event()

    def hold(file: SqliteFile) -> None:
        begun.set()
        released.wait()

    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path) as events:
        stuck = on_disk(events, hold)
        await asyncio.to_thread(begun.wait)
        one = asyncio.create_task(events.track("Step", user_id="a"))
        many = asyncio.create_task(
            events.track_many(Track("Step", user_id=n, attributes={"n": n}) for n in range(512))
        )
        await asyncio.sleep(0.01)
        released.set()
        await asyncio.gather(one, many, stuck)
        async with asyncio.timeout(10):
            stats = await events.flush(60)
    assert (stats.accepted, stats.delivered) == (513, 513)


async def test_a_failed_read_is_logged_and_tried_again(
    box: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real, fails = SqliteFile.read, 2

    def read(self: SqliteFile, *args: Any) -> Any:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise sqlite3.OperationalError("disk I/O error")
        return real(self, *args)

    async with DriftEvents(ORG, base_url=NOWHERE, outbox=tmp_path) as events:
        for n in range(3):
            await events.track("Step", user_id=1, attributes={"n": n})
        await events.close(0)
    monkeypatch.setattr(SqliteFile, "read", read)
    monkeypatch.setattr("drift_async.events.queue.RETRY_READ", 0.01)
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path) as events:
        assert (await events.flush(10)).delivered == 3
    assert caplog.text.count("cannot be read, it is tried again") == 2


async def test_a_file_that_is_removed_while_it_is_open_is_made_anew(
    box: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, losses = tmp_path / "outbox", list[Any]()
    box.fail("*", status=503, times=None)
    async with DriftEvents(ORG, base_url=box.url, outbox=folder, on_drop=losses.append) as events:
        for n in range(3):
            await events.track("Step", user_id=1, attributes={"n": n})
        await asyncio.to_thread(shutil.rmtree, folder)
        await events.track("Step", user_id=1, attributes={"n": 3})
        assert [loss.reason for loss in losses] == ["damaged"]
        assert "it was removed" in losses[0].detail
        (path,) = folder.glob("*.sqlite")
        await events.track("Step", user_id=1, attributes={"n": 4})
        path.unlink()
        await events.track("Step", user_id=1, attributes={"n": 5})
        assert (await events.close(0)).pending == 6
    box.heal()
    async with DriftEvents(ORG, base_url=box.url, outbox=folder) as events:
        assert (await events.flush()).recovered == 6
    assert numbers_of(box) == {"1": list(range(6))}
    assert "ERROR" in {record.levelname for record in caplog.records}
