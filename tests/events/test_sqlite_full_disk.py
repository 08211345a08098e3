"""Full disks: real small ones where file systems can be mounted, limits of files elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drift_async import DriftEvents, OutboxFullError
from drift_async.events.sqlite_file import SqliteFile
from drift_async.sandbox import Sandbox
from tests.support.event_programs import run
from tests.support.event_storage import on_disk
from tests.support.events import NOWHERE, ORG, SOON, numbers_of, total, until

pytestmark = pytest.mark.anyio


# Full disks


def fill(file: SqliteFile) -> None:
    """Let the file take a few pages more and then nothing."""
    (pages,) = file._db.execute("PRAGMA page_count").fetchone()
    file._db.execute(f"PRAGMA max_page_count={pages + 8}")


async def fill_up(events: DriftEvents) -> None:
    for _ in range(100):
        await events.track("Step", user_id=1, attributes={"text": "x" * 999})


def empty(file: SqliteFile) -> None:
    file._db.execute("PRAGMA max_page_count=1000000")


async def test_a_full_disk_refuses_where_that_is_wanted(tmp_path: Path) -> None:
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path, when_full="error") as events:
        await events.track("Step", user_id=1)
        await on_disk(events, fill)
        with pytest.raises(OutboxFullError, match="full"):
            await fill_up(events)
        stats = events.stats()
        assert total(stats) == stats.accepted
        await on_disk(events, empty)
        await events.track("Step", user_id=1)
        assert events.stats().accepted == stats.accepted + 1
        await events.close(0)


@pytest.mark.parametrize("policy", ["drop_new", "drop_old"])
async def test_a_full_disk_drops_what_it_was_told_to(tmp_path: Path, policy: Any) -> None:
    async with DriftEvents(
        1, base_url=NOWHERE, outbox=tmp_path, when_full=policy, linger=60
    ) as events:
        await events.track("first", user_id=1, attributes={"text": "x" * 999})
        await on_disk(events, fill)
        for n in range(60):
            await events.track(f"e{n}", user_id=1, attributes={"text": "x" * 999})
            stats = events.stats()
            assert total(stats) == stats.accepted == n + 2
        assert stats.dropped["full"] > 20
        assert stats.pending > 1
        await events.close(0)
        kept = [json_name(event) for one in events._queue.partitions for event in one.waiting]
    assert ("first" in kept) == (policy == "drop_new")
    assert ("e59" in kept) == (policy == "drop_old")


def json_name(row: Any) -> str:
    return str(json.loads(row.body)["event"])


async def test_a_full_disk_blocks_until_there_is_space(box: Sandbox, tmp_path: Path) -> None:
    async with DriftEvents(ORG, base_url=box.url, outbox=tmp_path, linger=0) as events:
        await on_disk(events, fill)
        for n in range(60):  # more than fits at once: what is delivered makes room
            await events.track("Step", user_id=1, attributes={"n": n, "text": "x" * 999})
        stats = await events.flush()
        assert (stats.accepted, stats.delivered) == (60, 60)
    assert numbers_of(box) == {"1": list(range(60))}


async def test_blocking_on_a_full_disk_ends_with_the_timeout(tmp_path: Path) -> None:
    async with DriftEvents(1, base_url=NOWHERE, outbox=tmp_path, timeout=0.3) as events:
        await on_disk(events, fill)
        with pytest.raises(OutboxFullError, match="in time"):
            await fill_up(events)
        await events.close(0)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
async def test_a_disk_that_ends_in_the_middle_loses_nothing(tmp_path: Path, face: str) -> None:
    # In a process of its own, since such a limit is for all files of a process.
    ended = await run(
        {},
        f"""
        import resource
        from drift_async.errors import OutboxFullError
        from drift_async.sync.sandbox import Sandbox
        with Sandbox() as box:
            box.fail("*", status=503, times=None)
            events = DriftEvents.from_env(
                box.env, outbox={str(tmp_path)!r}, when_full="error", max_bytes=1_000_000
            )
            await events.open()
            unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, unlimited[1]))
            def step(n):
                return dict(user_id=n % 10, attributes={{"n": n, "text": "x" * 500}})
            n = 0
            try:
                while True:
                    await events.track("Step", **step(n))
                    n += 1
            except OutboxFullError as error:
                say("disk" in str(error))
            say(n > 20)
            box.heal()
            stats = await events.flush(10)
            say([stats.delivered == stats.accepted == n, stats.pending])
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            for n in range(n, n + 200):
                await events.track("Step", **step(n))
            stats = await events.close(10)
            say([stats.delivered == stats.accepted == n + 1, stats.pending])
            sent = [event.value["attributes"]["n"] for event in box.events("drift")]
            say([len(set(sent)) == n + 1, len(sent) - len(set(sent))])
        """,
        face=face,
    )
    assert ended.errors == ""
    assert ended.said == [True, True, [True, 0], [True, 0], [True, 0]]


# Small file systems


@pytest.fixture(params=[2, 8])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of so many megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}m,mode=700", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_rest(folder: Path, leave: int = 0) -> Path:
    """Fill a disk with a file of something else, but for some bytes."""
    filler = folder / "filler"
    free = os.statvfs(folder)
    with filler.open("wb") as file, contextlib.suppress(OSError):
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - leave)))
    return filler


def step(n: int, size: int = 500) -> dict[str, Any]:
    return {"user_id": n % 10, "attributes": {"n": n, "text": "x" * size}}


async def fill_with_events(events: DriftEvents, most: int = 100_000) -> int:
    """Track until the disk is full; return how many were accepted."""
    for n in range(most):
        try:
            await events.track("Step", **step(n))
        except OutboxFullError:
            return n
    raise AssertionError("the disk is not full")


def repeats(box: Sandbox) -> int:
    return sum(Counter(n for ns in numbers_of(box).values() for n in ns).values()) - len(
        {n for ns in numbers_of(box).values() for n in ns}
    )


@pytest.mark.parametrize("end", ["close", "kill"])
async def test_what_was_delivered_on_a_full_disk_is_not_sent_again(
    box: Sandbox, small_disk: Path, end: str
) -> None:
    box.fail("*", status=503, times=None)
    events = DriftEvents(
        ORG, base_url=box.url, outbox=small_disk / "o", when_full="error", retry=SOON
    )
    await events.open()
    count = await fill_with_events(events)
    assert count > 1000
    fill_rest(small_disk)
    box.heal()
    stats = await events.flush()
    await on_disk(events, lambda file: None)  # after the deletions
    assert (stats.delivered, stats.pending, events.stats().undeleted) == (count, 0, 0)
    again = small_disk / "o"
    if end == "kill":
        again = small_disk.parent / "copy"
        shutil.copytree(small_disk / "o", again)
    stats = await events.close()
    assert (stats.delivered, stats.undeleted) == (count, 0)
    async with DriftEvents(ORG, base_url=box.url, outbox=again) as events:
        assert (await events.flush()).recovered == 0
    assert repeats(box) == 0
    assert sum(map(len, numbers_of(box).values())) == count


async def test_an_outbox_on_a_full_disk_opens_and_delivers(
    box: Sandbox, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with DriftEvents(ORG, base_url=NOWHERE, outbox=small_disk / "o") as events:
        for n in range(500):
            await events.track("Step", **step(n))
        await events.close(0)
    filler = fill_rest(small_disk)
    events = DriftEvents(ORG, base_url=box.url, outbox=small_disk / "o", when_full="error")
    await events.open()
    stats = await events.flush()
    assert (stats.delivered, stats.pending) == (500, 0)
    if stats.undeleted:  # no byte is free: so it says
        assert stats.undeleted == 500
    filler.unlink()
    await events.track("Step", **step(500))
    stats = await events.close()
    assert (stats.delivered, stats.undeleted) == (501, 0)
    async with DriftEvents(ORG, base_url=box.url, outbox=small_disk / "o") as events:
        assert (await events.flush()).recovered == 0
    assert repeats(box) == 0


async def test_a_delivered_outbox_on_a_full_disk_is_removed(box: Sandbox, small_disk: Path) -> None:
    path = small_disk / "one.sqlite"
    async with DriftEvents(ORG, base_url=NOWHERE, outbox=path) as events:
        for n in range(200):
            await events.track("Step", **step(n))
        await events.close(0)
    fill_rest(small_disk)
    async with DriftEvents(ORG, base_url=box.url, outbox=path) as events:
        stats = await events.close()
    assert (stats.delivered, stats.undeleted) == (200, 0)
    async with DriftEvents(ORG, base_url=box.url, outbox=path) as events:
        assert (await events.flush()).recovered == 0
    assert repeats(box) == 0


async def test_what_could_not_be_deleted_is_counted_and_logged(
    box: Sandbox, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = small_disk / "one.sqlite"
    async with DriftEvents(ORG, base_url=NOWHERE, outbox=path) as events:
        for n in range(200):
            await events.track("Step", **step(n))
        await events.close(0)
    fill_rest(small_disk)
    box.fail("*", status=503, times=None)
    # Some events stay, so the file cannot be removed as a whole.
    events = DriftEvents(
        ORG, base_url=box.url, outbox=path, window=1, linger=0, retry=SOON, on_unknown="dead"
    )
    await events.open()
    (partition,) = events._queue.partitions
    await until(lambda: partition.in_flight or partition.waiting)
    everything = [*partition.in_flight, *partition.waiting]
    await events._queue.settle(partition, everything[:150])
    undeleted = events.stats().undeleted
    stats = await events.close(0)
    assert undeleted == stats.undeleted == 150
    assert "150 delivered events still in the outbox" in caplog.text


async def test_a_full_disk_stays_usable_once_its_events_are_delivered(
    box: Sandbox, small_disk: Path
) -> None:
    box.fail("*", status=503, times=None)
    async with DriftEvents(
        ORG, base_url=box.url, outbox=small_disk / "o", when_full="error", retry=SOON
    ) as events:
        count = await fill_with_events(events)
        fill_rest(small_disk)
        box.heal()
        await events.flush()
        for _ in range(2):  # free pages of the file are space
            for n in range(count // 2):
                await events.track("Step", **step(n))
            await events.flush()
        stats = await events.close()
    assert (stats.delivered, stats.dropped) == (count + 2 * (count // 2), {})


async def test_about_as_many_old_bytes_go_for_a_new_event_as_it_has(
    small_disk: Path,
) -> None:
    losses: list[Any] = []
    async with DriftEvents(
        1,
        base_url=NOWHERE,
        outbox=small_disk / "o",
        when_full="drop_old",
        on_drop=losses.append,
        linger=60,
        max_events=10_000_000,
        max_bytes=1 << 40,
    ) as events:
        for n in range(100_000):
            await events.track("Step", **step(n))
            if losses:
                break
        assert n > 1000
        losses.clear()
        for n in range(500):
            await events.track("Step", **step(n))
        await events.track("Step", **step(0, 20_000))
        stats = await events.close(0)
    dropped = sum(loss.count for loss in losses)
    assert total(stats) == stats.accepted
    assert 400 < dropped < 1000
    assert max(loss.count for loss in losses) < 100
    assert not any("a new event was dropped" in loss.detail for loss in losses)


async def test_an_event_that_never_fits_is_dropped_without_an_error(
    small_disk: Path,
) -> None:
    fill_rest(small_disk, 200_000)
    async with DriftEvents(
        1, base_url=NOWHERE, outbox=small_disk / "o", when_full="drop_old", linger=60
    ) as events:
        for n in range(200):
            await events.track("Step", **step(n, 5000))
        stats = await events.close(0)
    assert total(stats) == stats.accepted == 200
