"""Whose a file is: locks, links, rights, and delivering files of ended processes in place."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drift_async import DriftEvents, InputError, OutboxLockedError, Track
from drift_async.events import ownership
from drift_async.sandbox import Sandbox
from tests.support.events import NOWHERE, ORG, Maker, left, numbers_of, until
from tests.support.server import Server, reply

pytestmark = pytest.mark.anyio

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")


def test_a_lock_keeps_all_others_out(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    lock = ownership.Lock(path)
    for _ in range(2):
        with pytest.raises(OutboxLockedError):
            ownership.Lock(path)
    lock.release()
    assert list(tmp_path.iterdir()) == []
    ownership.Lock(path).release()


@POSIX
def test_a_lock_file_that_was_removed_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sqlite"
    first, real, descriptors = ownership.Lock(path), ownership._try_lock, list[int]()

    def slow(descriptor: int) -> None:
        if not descriptors:  # the owner ends just between two steps of the next one
            first.release()
        descriptors.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(ownership, "_try_lock", slow)
    second = ownership.Lock(path)
    assert len(descriptors) == 2
    with pytest.raises(OutboxLockedError):
        ownership.Lock(path)
    second.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    program = """
import os, sys, time
from pathlib import Path
from drift_async.events.ownership import Lock
Lock(Path(sys.argv[1]))
if not os.fork():
    print("child", flush=True)
    sys.stdin.read()
    os._exit(0)
os._exit(0)
"""
    path = tmp_path / "a.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.wait(10) == 0
    assert process.stdout is not None
    assert process.stdout.readline() == b"child\n"
    ownership.Lock(path).release()  # the child lives
    process.communicate()


# Links and rights


def plant(path: Path, how: str, aim: Path) -> None:
    """Put something in the place of a file of ours."""
    if how == "link":
        path.symlink_to(aim)
    elif how == "link to nothing":
        path.symlink_to(aim.with_name("nothing"))
    elif how == "pipe":
        os.mkfifo(path)
    else:
        path.touch(0o600)
        if how == "writable by others":
            path.chmod(0o666)
        else:
            os.chown(path, 12345, -1)


@POSIX
@pytest.mark.parametrize("end", ["", "-wal", "-journal", "-shm", ".owner"])
@pytest.mark.parametrize(
    "how", ["link", "link to nothing", "pipe", "writable by others", "of another user"]
)
async def test_planted_files_are_refused_and_their_targets_left_alone(
    tmp_path: Path, end: str, how: str
) -> None:
    if how == "of another user" and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    aim = tmp_path / "precious"
    aim.write_text("precious")
    path = tmp_path / "a.sqlite"
    plant(path.with_name(path.name + end), how, aim)
    with pytest.raises(InputError, match=r"outbox: .*a\.sqlite"):
        await DriftEvents(1, base_url=NOWHERE, outbox=path).open()
    assert aim.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


@POSIX
async def test_planted_files_in_a_directory_are_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "outbox"
    folder.mkdir()
    folder.chmod(0o777)
    planted = folder / "drift-000000000000.sqlite"
    with sqlite3.connect(planted) as db:
        db.execute("CREATE TABLE events (a)")
    db.close()
    planted.chmod(0o666)
    before = planted.read_bytes()
    async with DriftEvents(1, base_url=NOWHERE, outbox=folder) as events:
        await events.track("Step", user_id=1)
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir() if path != planted} == {
            0o600
        }
        await events.close(0)
    assert planted.read_bytes() == before
    warnings = [r.getMessage() for r in caplog.records if "all users of this machine" in r.message]
    assert len(warnings) == 1


async def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "mine.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE precious (a)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match="something else"):
        await DriftEvents(1, base_url=NOWHERE, outbox=path).open()
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["mine.sqlite"]


@POSIX
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
async def test_a_directory_that_becomes_read_only_ends_in_typed_errors_and_a_closed_file(
    tmp_path: Path,
) -> None:
    events = DriftEvents(1, base_url=NOWHERE, outbox=tmp_path)
    await events.open()
    await events.track("Step", user_id=1)
    tmp_path.chmod(0o500)
    try:
        assert (await events.close(0)).pending == 1
    finally:
        tmp_path.chmod(0o700)
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path) as again:
        assert (await again.close(0)).recovered == 1


async def test_a_file_that_cannot_be_removed_or_renamed_is_closed_and_free_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(30, "Read-only file system")

    events = DriftEvents(1, base_url=NOWHERE, outbox=tmp_path, timeout=0.3)
    await events.open()
    await events.track("Step", user_id=1)
    with monkeypatch.context() as patch:
        for name in ("unlink", "rename", "mkdir", "touch"):
            patch.setattr(Path, name, refuse)
        assert (await events.close(0)).pending == 1
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path) as again:
        assert (await again.close(0)).recovered == 1


# Files of ended processes


async def test_what_was_adopted_uses_no_capacity(tmp_path: Path) -> None:
    await left(tmp_path, "a", 300)
    await left(tmp_path, "b", 300)
    async with DriftEvents(
        1, base_url=NOWHERE, outbox=tmp_path, max_events=100, when_full="error"
    ) as events:
        await until(lambda: events.stats().recovered == 600)
        for n in range(100):
            await events.track("Step", user_id=n)
        stats = await events.close(0)
    assert (stats.accepted, stats.pending) == (700, 700)


TAKER = """
import asyncio, sys
from drift_async import DriftEvents
async def main(folder, url):
    async with DriftEvents(123458, base_url=url, outbox=folder, linger=0, window=2) as events:
        await events.track("Step", user_id="own", attributes={"n": 0})
        await asyncio.sleep(60)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
async def test_the_order_of_a_user_outlives_the_process_that_took_it_over(
    box: Sandbox, tmp_path: Path
) -> None:
    count = 3000
    await left(tmp_path, "z", count, "user")
    await left(tmp_path, "0", 1, "first")  # which the taker owns
    box.fail("events.track_many", delay=0.02, times=None)
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", TAKER, str(tmp_path), box.url
        )
        before = len(numbers_of(box).get("user", ()))
        while len(numbers_of(box).get("user", ())) <= before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # nothing tells
        process.send_signal(signal.SIGKILL)
        await process.wait()
    box.heal()
    assert len(numbers_of(box)["user"]) < count
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path) as events:
        await until(lambda: events.stats().recovered and not events.stats().pending)
        await until(lambda: not any(tmp_path.glob("drift-z*")))
    arrived = list(dict.fromkeys(numbers_of(box)["user"]))
    assert arrived == list(range(count))
    assert list(tmp_path.iterdir()) == []


async def test_dead_letters_of_an_adopted_file_stay_in_it(tmp_path: Path) -> None:
    async with Server(reply(b"", "400 Bad Request")) as server:
        async with DriftEvents(
            1, base_url=server.url, outbox=tmp_path / "drift-a.sqlite"
        ) as events:
            await events.track_many(Track("Step", user_id=n) for n in range(5))
        await left(tmp_path, "0", 1)
        async with DriftEvents(
            1, base_url=server.url, outbox=tmp_path, max_dead=3, linger=0
        ) as events:
            await until(lambda: events.stats().recovered and not events.stats().pending)
            await until(lambda: events.stats().dropped)
            stats = events.stats()
            assert stats.dead == len(await events.dead()) <= 3
            assert stats.accepted == stats.dead + sum(stats.dropped.values()) == 6
            assert await events.replay() == stats.dead
            await events.close(0)
    assert "drift-a.sqlite" in {path.name for path in tmp_path.iterdir()}


async def test_an_empty_file_leaves_the_directory(drift_events: Maker, tmp_path: Path) -> None:
    for _ in range(3):
        async with drift_events(1, base_url=NOWHERE, outbox=tmp_path) as events:
            assert len(list(tmp_path.glob("*.sqlite"))) == 1
            await events.flush(0)
    assert list(tmp_path.iterdir()) == []
