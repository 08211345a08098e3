"""Opening, closing and accepting that are cut short, or go on at the same time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from drift_async import ClosedError, DriftEvents, OutboxFullError, SegmentStream, Track
from tests.support.event_storage import on_disk
from tests.support.events import Maker, total
from tests.support.server import Server, dead_url, reply
from tests.support.virtual import run

pytestmark = pytest.mark.anyio

NOWHERE = "http://127.0.0.1:9"
TURNS = pytest.mark.parametrize("count", range(1, 11))
"""Turns of the loop in which opening or closing a file is mostly done."""


async def leave_five(path: Path) -> None:
    async with DriftEvents(1, base_url=NOWHERE, outbox=path) as events:
        for n in range(5):
            await events.track("Step", user_id=n)
        await events.close(0)


async def found_by_another(path: Path) -> int:
    """Return how many events another client finds; an error if the file is not free."""
    async with DriftEvents(1, base_url=NOWHERE, outbox=path) as events:
        return (await events.close(0)).recovered


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Closing


async def leave_in_a_cancelled_scope(events: DriftEvents) -> None:
    with anyio.CancelScope() as scope:
        async with events:
            for n in range(5):
                await events.track("Step", user_id=n)
            scope.cancel()
    assert scope.cancelled_caught


async def test_a_close_in_a_cancelled_scope_is_finished_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    events = DriftEvents(1, base_url=NOWHERE, outbox=path)
    await leave_in_a_cancelled_scope(events)
    assert (await events.close()).pending == 5
    assert await found_by_another(path) == 5
    await events.open()
    assert (await events.close(0)).pending == 5


def test_a_close_in_a_cancelled_scope_is_finished_by_the_end_of_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    events = DriftEvents(1, base_url=NOWHERE, outbox=path)
    asyncio.run(leave_in_a_cancelled_scope(events))
    assert asyncio.run(found_by_another(path)) == 5


@TURNS
async def test_a_close_that_is_cancelled_in_any_turn_closes_all_the_same(
    tmp_path: Path, count: int
) -> None:
    path = tmp_path / "a.sqlite"
    events = DriftEvents(1, base_url=NOWHERE, outbox=path)
    await events.open()
    await events.track("Step", user_id=1)
    closing = asyncio.create_task(events.close(0))
    await turns(count)
    closing.cancel()
    await asyncio.wait([closing])
    assert (await events.close(0)).pending == 1
    assert await found_by_another(path) == 1


async def test_of_two_closes_the_shorter_one_ends_both(outbox: str | None) -> None:
    async with dead_url() as url:
        events = DriftEvents(1, base_url=url, outbox=outbox)
        await events.open()
        await events.track("Step", user_id=1)
        first = asyncio.create_task(events.close(60))
        await turns(2)
        again = asyncio.create_task(events.open())
        await turns(2)
        assert not first.done()
        assert not again.done()
        assert (await events.close(0)).pending == 1
        assert (await first).pending == 1
        await again
        await events.track("Step", user_id=1)
        assert (await events.close(0)).pending == 2


# Opening


async def test_ten_open_clients_are_mentioned_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    clients = [DriftEvents(1, base_url=NOWHERE) for _ in range(12)]
    for client in clients:
        await client.open()
    for client in clients:
        await client.close(0)
    assert caplog.text.count("clients with events are open") == 1


@TURNS
async def test_an_open_that_is_cancelled_in_any_turn_leaves_the_file_free(
    tmp_path: Path, count: int
) -> None:
    path = tmp_path / "a.sqlite"
    await leave_five(path)
    events = DriftEvents(1, base_url=NOWHERE, outbox=path)
    opening = asyncio.create_task(events.open())
    await turns(count)
    opening.cancel()
    await asyncio.wait([opening])
    await events.close(0)
    assert await found_by_another(path) == 5
    await events.open()
    assert (await events.close(0)).pending == 5


async def test_an_open_that_was_cancelled_may_follow_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    await leave_five(path)
    events = DriftEvents(1, base_url=NOWHERE, outbox=path)
    opening, other = asyncio.create_task(events.open()), asyncio.create_task(events.open())
    await turns(2)
    opening.cancel()
    await other
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert (await events.close(0)).pending == 5


@TURNS
async def test_what_is_opened_while_it_is_being_closed_is_open_after_that(
    tmp_path: Path, count: int
) -> None:
    events = DriftEvents(1, base_url=NOWHERE, outbox=tmp_path)
    await events.open()
    await events.track("Step", user_id=1)
    closing = asyncio.create_task(events.close(0))
    await turns(count)
    await events.open()
    await closing
    await events.track("Step", user_id=1)
    assert (await events.close(0)).pending == 2


def test_many_tasks_may_open_at_once_in_one_loop_after_another(tmp_path: Path) -> None:
    events = DriftEvents(1, base_url=NOWHERE, outbox=tmp_path)

    async def use() -> None:
        await asyncio.gather(*(events.open() for _ in range(3)))
        await events.track("Step", user_id=1)
        await events.close(0)

    for _ in range(2):
        asyncio.run(use())
    assert events.stats().pending == 2


# Accepting


async def test_an_error_of_the_items_leaves_those_before_it_accepted(
    drift_events: Maker, outbox: str | None
) -> None:
    def failing(count: int) -> Iterator[Track]:
        for n in range(count):
            yield Track("Step", user_id=n)
        raise ZeroDivisionError

    async with drift_events(1, base_url=NOWHERE, outbox=outbox) as events:
        for count, accepted in ((0, 0), (10, 10), (1010, 1020)):
            with pytest.raises(ZeroDivisionError):
                await events.track_many(failing(count))
            assert events.stats().accepted == accepted
        await events.close(0)


async def stalling(count: int, then: asyncio.Event) -> AsyncIterator[Track]:
    """Give events at once, and one more then."""
    for n in range(count):
        yield Track("Step", user_id=n)
    await then.wait()
    yield Track("Step", user_id=0)


async def accepting(events: DriftEvents, count: int) -> None:
    """Return once so many are accepted."""
    async with asyncio.timeout(5):
        while events.stats().accepted < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # nothing tells


@pytest.mark.parametrize("count", [1, 700])
async def test_events_are_accepted_while_their_source_stalls(
    outbox: str | None, count: int
) -> None:
    async with DriftEvents(1, base_url=NOWHERE, outbox=outbox) as events:
        endless = asyncio.create_task(events.track_many(stalling(count, asyncio.Event())))
        await accepting(events, count)
        endless.cancel()
        await asyncio.wait([endless])
        gate = asyncio.Event()
        resumed = asyncio.create_task(events.track_many(stalling(count, gate)))
        await accepting(events, 2 * count)
        gate.set()
        assert await resumed == count + 1
        assert (await events.close(0)).accepted == 2 * count + 1


async def test_a_source_that_goes_on_after_close_is_told_so(outbox: str | None) -> None:
    events = DriftEvents(1, base_url=NOWHERE, outbox=outbox, timeout=2)
    await events.open()
    gate = asyncio.Event()
    many = asyncio.create_task(events.track_many(stalling(10, gate)))
    await accepting(events, 10)
    assert (await events.close(0)).pending == 10
    gate.set()
    with pytest.raises(ClosedError):
        await many
    assert events.stats().accepted == 10


async def test_a_source_is_told_that_there_was_no_room(outbox: str | None) -> None:
    gate = asyncio.Event()
    async with DriftEvents(
        1, base_url=NOWHERE, outbox=outbox, when_full="error", max_events=3
    ) as events:
        many = asyncio.create_task(events.track_many(stalling(5, gate)))
        await accepting(events, 3)
        gate.set()
        with pytest.raises(OutboxFullError):
            await many
        assert (await events.close(0)).accepted == 3


async def test_what_was_taken_from_the_items_is_accepted_also_when_cancelled(
    outbox: str | None,
) -> None:
    taken = 0

    def items() -> Iterator[Track]:
        nonlocal taken
        for taken in range(1, 9999):
            if taken == 50:
                many.cancel()
            yield Track("Step", user_id=1)

    async with DriftEvents(1, base_url=NOWHERE, outbox=outbox) as events:
        many = asyncio.create_task(events.track_many(items()))
        await asyncio.wait([many])
        assert many.cancelled()
        stats = await events.close(0)
        assert stats.accepted == stats.pending == taken > 50


async def test_closing_ends_the_wait_for_a_full_disk(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        (pages,) = file._db.execute("PRAGMA page_count").fetchone()
        file._db.execute(f"PRAGMA max_page_count={pages}")

    events = DriftEvents(1, base_url=NOWHERE, outbox=tmp_path, timeout=2)
    await events.open()
    await events.track("Step", user_id=1)
    await on_disk(events, fill)
    large = {"text": "x" * 9999}
    waiting = asyncio.create_task(events.track("Step", user_id=1, attributes=large))
    await turns(1)
    stats = await events.close(0)
    with pytest.raises(ClosedError):
        await waiting
    assert stats.accepted == events.stats().accepted == 1


def test_who_comes_to_wait_for_room_after_close_is_refused_until_it_is_open_again() -> None:
    async def story() -> None:
        async with dead_url() as url:
            events = DriftEvents(1, base_url=url, max_events=1)
            await events.open()
            await events.track("Step", user_id=1)
            await events.close(0)
            capacity, until = events._queue.capacity, asyncio.get_running_loop().time() + 9
            with pytest.raises(ClosedError):
                await capacity.reserve(1, until)
            await events.open()
            with pytest.raises(TimeoutError):
                await capacity.reserve(1, until)
            await events.close(0)

    run(story())


# Counts


async def test_the_counts_add_up_while_a_loss_is_being_told() -> None:
    sums: list[tuple[str, int, int]] = []

    def look(loss: Any) -> None:
        stats = client.stats()
        sums.append((loss.reason, stats.accepted, total(stats)))

    client: Any
    client = DriftEvents(1, base_url=NOWHERE, max_events=3, when_full="drop_old", on_drop=look)
    async with client:
        for n in range(5):
            await client.track("Step", user_id=n)
        await client.close(0)
    assert sums == [("full", 3, 3), ("full", 4, 4)]
    sums.clear()
    async with Server(reply(b"", "400 Bad")) as server:
        client = SegmentStream("t", base_url=server.url, max_dead=2, window=1, on_drop=look)
        async with client:
            for n in range(4):
                await client.track({"n": n}, user_id="u")
            await client.flush()
    assert sums == [("dead_full", 4, 4)] * 2
