"""Counts and delivery when who waited is gone: cancelled, or in a loop that ended uncancelled."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from drift_async import DriftEvents
from drift_async.events.sqlite_file import SqliteFile
from drift_async.sandbox import Sandbox
from tests.support.event_storage import on_disk
from tests.support.events import SOON, UNFINISHED, total
from tests.support.server import Server, reply

pytestmark = pytest.mark.anyio

ORG = 123_458

Work = Callable[[], Awaitable[None]]


async def in_a_loop_that_just_ends(work: Work) -> None:
    """Run *work* in a loop that is then closed over whatever still runs in it."""

    def run() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        try:
            loop.run_until_complete(work())
        finally:
            loop.close()

    await asyncio.to_thread(run)


def collect() -> None:
    """End the tasks of loops that are gone, as the collector does at some time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their sockets
        gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_tasks_of_a_loop_that_ended_do_not_stop_the_delivery_of_the_next(
    box: Sandbox, outbox: str | None
) -> None:
    events = DriftEvents(ORG, base_url=box.url, outbox=outbox, linger=0)

    async def begins() -> None:
        await events.open()
        await events.track("Step", user_id=1)
        await events.flush()
        await asyncio.sleep(0.01)  # the workers wait for more

    await in_a_loop_that_just_ends(begins)
    async with events:
        await asyncio.sleep(0.01)  # so do the new ones
        collect()
        await events.track("Step", user_id=1)
        async with asyncio.timeout(5):
            while events.stats().delivered < 2:  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.005)
    assert box.event_counts("drift").accepted == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_what_was_under_way_in_a_loop_that_ended_is_not_sent_twice_if_it_must_not(
    outbox: str | None,
) -> None:
    async with Server(lambda n, got: UNFINISHED if n == 1 else reply()) as server:
        events = DriftEvents(
            ORG, base_url=server.url, outbox=outbox, linger=0, on_unknown="dead", retry=SOON
        )

        async def begins() -> None:
            await events.open()
            await events.track("Step", user_id=1)
            while not server.got:  # noqa: ASYNC110
                await asyncio.sleep(0.005)  # nothing tells

        await in_a_loop_that_just_ends(begins)
        async with events:
            collect()
            await events.track("Next", user_id=1)
            stats = await events.flush(5)
    assert (stats.accepted, stats.delivered, stats.dead, stats.pending) == (2, 1, 1, 0)
    assert [b"Next" in got.body for got in server.got] == [False, True]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_what_a_loop_that_ended_did_not_hand_to_the_disk_holds_up_nothing(
    box: Sandbox, tmp_path: Path
) -> None:
    events = DriftEvents(ORG, base_url=box.url, outbox=tmp_path, linger=0)

    async def begins() -> None:
        await events.open()
        unheard = asyncio.ensure_future(events.track("Lost", user_id=1))
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop)
        await unheard

    with pytest.raises(RuntimeError, match="stopped before"):
        await in_a_loop_that_just_ends(begins)
    async with events, asyncio.timeout(5):
        await events.track("Step", user_id=1)
        stats = await events.flush()
    assert (stats.accepted, stats.delivered) == (1, 1)
    collect()


async def test_a_replay_counts_also_when_who_asked_for_it_is_cancelled(
    outbox: str | None,
) -> None:
    async with (
        Server(reply(b"", "400 Bad Request")) as server,
        DriftEvents(1, base_url=server.url, outbox=outbox, linger=0) as events,
    ):
        for n in range(5):
            await events.track("Step", user_id=n)
        assert (await events.flush()).dead == 5
        for _ in range(3):
            replay = asyncio.ensure_future(events.replay())
            await asyncio.sleep(0)
            replay.cancel()
            await asyncio.wait([replay])
            assert replay.cancelled() == (outbox is not None)  # in memory there is no wait
            assert total(events.stats()) == 5
        await events.dead()  # after what was asked for before
        stats = await events.flush()
        assert (stats.accepted, stats.dead, stats.pending) == (5, 5, 0)
        assert len(await events.dead()) == 5
    assert len(server.got) > 1


async def test_a_flush_does_not_wait_for_events_that_were_replayed_after_it(
    outbox: str | None,
) -> None:
    async with (
        Server(
            lambda _, got: reply(b"", "400 Bad" if b"Bad" in got.body else "503 Busy")
        ) as server,
        DriftEvents(
            1, base_url=server.url, outbox=outbox, window=1, linger=0, retry=SOON
        ) as events,
    ):
        for _ in range(2):
            await events.track("Bad", user_id=1)
        assert (await events.flush()).dead == 2
        await events.track("Step", user_id=1)
        flush = asyncio.ensure_future(events._queue.flushed())
        await asyncio.sleep(0)
        assert await events.replay() == 2
        (partition,) = events._queue.partitions
        while len(partition.waiting) + len(partition.in_flight) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # nothing tells
        (step,) = (e for e in (*partition.in_flight, *partition.waiting) if b"Step" in e.body)
        assert not flush.done()
        events._queue._remove(events._queue.own, [step])
        await flush
        events._queue.own.pending += 1
        await events.close(0)


def wipe(file: SqliteFile) -> None:
    file._db.execute("DELETE FROM events")


async def test_a_flush_ends_when_what_it_waits_for_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drift_async.events.storage.MEMORY_EVENTS", 2)
    async with (
        Server(lambda n, _: reply(b"", "503 Busy", Retry_After="60")) as server,
        DriftEvents(1, base_url=server.url, outbox=tmp_path, window=1, linger=0) as events,
    ):
        await events.track("Step", user_id=1)
        while not server.got:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for _ in range(4):
            await events.track("Step", user_id=1)
        flush = asyncio.ensure_future(events.flush(10))
        await asyncio.sleep(0)
        await on_disk(events, wipe)
        # What is in memory is delivered: by then the rest is looked for.
        (partition,) = events._queue.partitions
        rows = [*partition.in_flight, *partition.waiting]
        partition.waiting.clear()
        await events._queue.settle(partition, rows)
        async with asyncio.timeout(5):
            stats = await flush
        assert stats.pending == 0
        assert stats.dropped["damaged"] > 0
        assert stats.accepted == total(stats) == 5
