"""The files of an outbox: one owner each, adopted when free, set aside when damaged, full disks."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drift_async import DriftEvents, InputError, OutboxLockedError, Track
from drift_async.events import client as client_module, storage as storage_module
from drift_async.events.sqlite_file import SqliteFile
from drift_async.sandbox import Sandbox
from tests.support.event_storage import on_disk
from tests.support.events import (
    NOWHERE,
    ORG,
    Maker,
    are_in_order,
    image,
    left,
    numbers_of,
    overwrite,
    total,
    until,
)
from tests.support.server import Server, dead_url, reply

pytestmark = pytest.mark.anyio


async def test_a_file_has_one_owner(drift_events: Maker, tmp_path: Path) -> None:
    path = tmp_path / "one.sqlite"
    began = time.monotonic()
    async with drift_events(1, base_url=NOWHERE, outbox=path):
        with pytest.raises(OutboxLockedError) as caught:
            await drift_events(1, base_url=NOWHERE, outbox=path).open()
        assert caught.value.applied is False
        program = (
            "from drift_async.sync import *; from drift_async.sync import DriftEvents;"
            f"DriftEvents(1, base_url={NOWHERE!r}, outbox={str(path)!r}).open()"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        assert b"OutboxLockedError: one.sqlite has an owner" in errors
        assert time.monotonic() - began < 10
    async with drift_events(1, base_url=NOWHERE, outbox=path):
        pass


async def test_a_path_that_cannot_be_used_is_bad_input(drift_events: Maker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(InputError, match="outbox"):
        await drift_events(1, base_url=NOWHERE, outbox=tmp_path / "file").open()
    with sqlite3.connect(tmp_path / "mine.sqlite") as foreign:
        foreign.execute("CREATE TABLE precious (a)")
    foreign.close()
    with pytest.raises(InputError, match="something else"):
        await drift_events(1, base_url=NOWHERE, outbox=tmp_path / "mine.sqlite").open()
    assert [path.name for path in tmp_path.glob("mine*")] == ["mine.sqlite"]


async def test_files_can_be_read_by_their_owner_only(tmp_path: Path) -> None:
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path / "outbox") as events:
        await events.track("Step", user_id=1)
        modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "outbox").iterdir()}
        await events.close(0)
    assert (tmp_path / "outbox").stat().st_mode & 0o777 == 0o700
    assert modes == {0o600}


async def test_what_others_have_left_is_taken_over(box: Sandbox, tmp_path: Path) -> None:
    await left(tmp_path, "a", 10, "ua")
    await left(tmp_path, "b", 700, "ub")
    await left(tmp_path, "c", 5, "uc")
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path) as events:
        await events.track("Step", user_id="mine", attributes={"n": 0})
        await until(lambda: events.stats().recovered == 715)
        stats = await events.flush()
        assert (stats.accepted, stats.delivered, stats.recovered) == (716, 716, 715)
    seen = numbers_of(box)
    assert {user: len(numbers) for user, numbers in seen.items()} == {
        "ua": 10,
        "ub": 700,
        "uc": 5,
        "mine": 1,
    }
    assert are_in_order(seen)
    assert list(tmp_path.iterdir()) == []  # an empty file is removed


async def test_an_owners_file_is_left_alone_until_it_is_gone(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ADOPT_EVERY", 0.02)
    owner = DriftEvents(ORG, base_url=NOWHERE, outbox=tmp_path)
    await owner.open()
    await owner.track("Step", user_id=1, attributes={"n": 1})
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path) as events:
        await asyncio.sleep(0.1)
        assert events.stats().accepted == 0
        await owner.close(0)
        await until(lambda: events.stats().delivered)
    assert box.event_counts("drift").accepted == 1


async def test_dead_letters_are_taken_over_too(tmp_path: Path) -> None:
    async with Server(reply(b"", "400 Bad Request")) as server:
        path = tmp_path / "drift-a.sqlite"
        async with DriftEvents(1, base_url=server.url, outbox=path) as events:
            await events.track("Step", user_id=1)
        await left(tmp_path, "0", 1)
        async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path) as events:
            await until(lambda: events.stats().dead)
            stats = events.stats()
            assert (stats.accepted, stats.pending, stats.dead) == (2, 1, 1)
            assert await events.replay() == 1
            stats = await events.close(0)
            assert (stats.accepted, stats.pending, stats.dead) == (2, 2, 0)


WORKER = """
import asyncio, sys
from drift_async import DriftEvents
async def main(folder, url, user):
    events = DriftEvents(123458, base_url=url, outbox=folder, linger=0)
    await events.open()
    n = 0
    while True:
        await events.track("Step", user_id=user, attributes={"n": n})
        print(n, flush=True)
        n += 1
asyncio.run(main(*sys.argv[1:]))
"""


def killed_worker(folder: Path, url: str, user: str, seconds: float) -> int:
    """Run a worker, kill it some *seconds* after its first event.

    Returns how many events it was told are accepted.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), url, user],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate()
    return 1 + out.count("\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(
    box: Sandbox, tmp_path: Path
) -> None:
    accepted = {}
    for n in range(3):
        user = f"u{n}"
        accepted[user] = await asyncio.to_thread(killed_worker, tmp_path, box.url, user, 0.1)
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path) as events:
        await asyncio.sleep(0.1)  # until it has looked for more files than its own
        await events.flush()
    seen = numbers_of(box)
    for user, count in accepted.items():
        numbers = list(dict.fromkeys(seen[user]))
        assert numbers[:count] == list(range(count)), user
        assert len(numbers) <= count + 1  # one may have been kept and not yet acknowledged


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
async def test_of_workers_that_share_a_directory_one_is_killed_and_the_others_take_over(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ADOPT_EVERY", 0.05)

    async def worker(user: str) -> None:
        async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path) as events:
            for n in range(50):
                await events.track("Step", user_id=user, attributes={"n": n})
                await asyncio.sleep(0)
            await gone.wait()
            await until(lambda: numbers_of(box).get("killed", [])[-1:] >= [count - 1])

    gone = asyncio.Event()
    count = 0
    async with asyncio.TaskGroup() as tasks:
        for n in range(3):
            tasks.create_task(worker(f"u{n}"))
        count = await asyncio.to_thread(killed_worker, tmp_path, NOWHERE, "killed", 0.2)
        gone.set()
    seen = numbers_of(box)
    assert list(dict.fromkeys(seen["killed"]))[:count] == list(range(count))
    for n in range(3):
        assert seen[f"u{n}"] == list(range(50))


# Damage


def wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def flip(path: Path, at: int) -> None:
    before = path.read_bytes()
    overwrite(path, at, bytes([before[at] ^ 0x10]))


def flip_payload(path: Path) -> None:
    before = path.read_bytes()
    found = re.search(rb'("n":\d+,)?"text":"x', before)
    assert found
    changed = found[0][:-1] + b"Y"
    path.write_bytes(before.replace(found[0], changed))  # pages that were divided have copies


CHECKPOINT = "PRAGMA wal_checkpoint(TRUNCATE)"

# What is done to the file, and how many of 500 events must come through. Of these 300 lie in the
# database and 200 in the WAL; where the harm is done to the database, all of them lie there.
DAMAGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "header overwritten": (lambda path: overwrite(path, 0, b"x" * 100), 0),
    "a page zeroed": (lambda path: overwrite(path, 4096 * 9, bytes(4096)), 400),
    "cut to a half": (lambda path: os.truncate(path, path.stat().st_size // 2), 100),
    "emptied": (lambda path: os.truncate(path, 0), 0),
    "garbage": (lambda path: path.write_bytes(os.urandom(20_000)), 0),
    "a byte of an event changed": (flip_payload, 499),
}


LOG_DAMAGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "WAL deleted": (lambda path: wal(path).unlink(), 300),
    "WAL cut": (lambda path: os.truncate(wal(path), wal(path).stat().st_size // 2), 300),
    "WAL with one bit flipped": (lambda path: flip(wal(path), wal(path).stat().st_size // 2), 300),
}
"""What SQLite does not tell, and nothing else notices: it takes the log for one that is shorter."""


@pytest.mark.parametrize("damage", DAMAGES | LOG_DAMAGES)
async def test_damage_is_noticed_and_what_can_be_read_is_sent(
    box: Sandbox, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    def step(n: int) -> Track:
        return Track("Step", user_id=n % 7, attributes={"n": n, "text": "x" * 100})

    events = DriftEvents(ORG, base_url=NOWHERE, outbox=tmp_path / "outbox")
    await events.open()
    await events.track_many(step(n) for n in range(300))
    await on_disk(events, lambda file: file._db.execute(CHECKPOINT).fetchall())
    await events.track_many(step(n) for n in range(300, 500))
    if "WAL" not in damage:
        await on_disk(events, lambda file: file._db.execute(CHECKPOINT).fetchall())
    path = image(tmp_path / "outbox", tmp_path / "copy")
    await events.close(0)
    caplog.clear()
    harm, least = (DAMAGES | LOG_DAMAGES)[damage]
    harm(path)

    losses: list[Any] = []
    for turn in range(3):
        async with DriftEvents(
            ORG, base_url=box.url, outbox=tmp_path / "copy", on_drop=losses.append
        ) as again:
            stats = await again.flush()
            assert total(stats) == stats.accepted
            assert stats.pending == 0
            if turn == 1:
                await again.track("Step", user_id=1, attributes={"n": 999, "text": "x" * 100})
    arrived = [event.value["attributes"] for event in box.events()]
    assert all(one["text"] == "x" * 100 for one in arrived)
    numbers = [one["n"] for one in arrived]
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) <= {*range(500), 999}
    assert 999 in numbers
    assert least <= len(numbers) - 1 < 500
    if damage in LOG_DAMAGES:
        return
    assert [loss.reason for loss in losses] == ["damaged"]  # reported once, not at each start
    assert [record.levelname for record in caplog.records].count("ERROR") >= 1
    assert any((tmp_path / "copy").glob("*.damaged-*")) == (least != 499)


async def test_a_damaged_event_is_kept_as_a_dead_letter_and_never_sent(
    box: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "a.sqlite"
    async with DriftEvents(ORG, base_url=NOWHERE, outbox=path) as events:
        await events.track("Step", user_id=1, attributes={"text": "x" * 9})
        await events.close(0)
    flip_payload(path)
    async with DriftEvents(ORG, base_url=box.url, outbox=path) as events:
        stats = await events.flush()
        assert (stats.accepted, stats.dead, stats.pending) == (1, 1, 0)
        (letter,) = await events.dead()
        assert letter.reason == "damaged"
        assert await events.replay() == 0
        assert events.stats().dead == 1
    assert box.seen == []


async def test_a_file_damaged_while_it_is_open_is_replaced(box: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    losses: list[Any] = []
    async with DriftEvents(
        ORG, base_url=box.url, outbox=path, on_drop=losses.append, linger=60
    ) as events:
        await events.track("Step", user_id=1, attributes={"n": 0})

        def harm(file: SqliteFile) -> None:
            file._db.execute(CHECKPOINT).fetchall()
            file._db.execute("PRAGMA cache_size=0")
            overwrite(path, 4096, bytes(4096 * 3))

        await on_disk(events, harm)
        for n in range(1, 30):
            await events.track("Step", user_id=1, attributes={"n": n})
        stats = await events.flush()
        assert total(stats) == stats.accepted == 30
    numbers = [event.value["attributes"]["n"] for event in box.events()]
    assert numbers == list(range(30))
    assert [loss.reason for loss in losses] == ["damaged"]
    assert list(tmp_path.glob("a.sqlite.damaged-*"))


async def test_events_over_the_window_in_memory_wait_on_disk_in_order(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "MEMORY_EVENTS", 50)
    box.fail("*", status=503, times=1)
    async with (
        dead_url(),
        DriftEvents(ORG, base_url=box.url, outbox=tmp_path, linger=0) as events,
    ):
        accepted = await events.track_many(
            Track("Step", user_id=n % 5, attributes={"n": n}) for n in range(1000)
        )
        in_memory = sum(len(one.waiting) + len(one.in_flight) for one in events._queue.partitions)
        assert in_memory <= 100
        stats = await events.flush()
        assert (accepted, stats.delivered) == (1000, 1000)
    seen = numbers_of(box)
    assert sum(map(len, seen.values())) == 1000
    assert are_in_order(seen)
