"""The pure parts: how batches are cut, what outcomes mean, how long to pause; and room."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_async import DriftEvents, Retry, SegmentStream
from drift_async.core.endpoint import Reply
from drift_async.core.retry import Failure
from drift_async.events.delivery import Pause, judge
from drift_async.events.lanes import Lane, Row, cut
from drift_async.events.outbox import Outbox
from drift_async.events.room import Room
from drift_async.events.store import DeadLimits, MemoryStore
from tests.support.virtual import run

rows = st.lists(
    st.builds(Row, st.integers(0, 1), st.integers(0, 3), st.binary(max_size=30)), max_size=60
)


@given(rows, st.integers(1, 8), st.integers(2, 100))
def test_batches_hold_one_kind_fit_and_keep_the_order_of_each_key(
    given_rows: list[Row], most: int, most_bytes: int
) -> None:
    for n, row in enumerate(given_rows):
        row.seq = n
    line = deque(given_rows)
    taken: list[Row] = []
    while line:
        first = line[0]
        batch = cut(line, most, most_bytes)
        assert batch[0] is first
        assert len({row.kind for row in batch}) == 1
        assert len(batch) <= most
        sent = b"[" + b",".join(row.body for row in batch) + b"]"
        assert len(batch) == 1 or len(sent) <= most_bytes + 1
        taken += batch
    assert sorted(row.seq for row in taken) == list(range(len(given_rows)))
    for key in range(4):
        numbers = [row.seq for row in taken if row.key == key]
        assert numbers == sorted(numbers)


def test_a_batch_is_the_largest_there_is() -> None:
    line = deque(Row(n % 2, n, b"x") for n in range(1000))
    assert len(cut(line, 600, 1 << 20)) == 500
    assert len(line) == 500
    assert cut(deque(), 600, 1 << 20) == []
    assert len(cut(deque([Row(0, 0, b"x" * 100)]), 600, 50)) == 1


def test_a_lane_takes_back_what_was_flying_in_its_place() -> None:
    lane = Lane()
    for n in range(5):
        lane.rows.append(Row(0, 0, b"", n))
    batch = lane.cut(3, 1 << 20)
    lane.landed(batch[:1])
    assert [row.seq for row in lane.flying] == [1, 2]
    lane.recall()
    assert [row.seq for row in lane.rows] == [1, 2, 3, 4]
    assert lane.flying == []


@pytest.mark.parametrize("client", [DriftEvents, SegmentStream])
def test_the_routes_are_those_of_the_api(client: type[DriftEvents] | type[SegmentStream]) -> None:
    rows = json.loads((Path(__file__).parents[1] / "sandbox" / "operations.json").read_text())
    table = {row["operation"]: row for row in rows}
    api = "events" if client is DriftEvents else "segmentstream"
    names = set()
    for route in client._routes:
        for name, endpoint in ((route.name, route.one), (f"{route.name}_many", route.many)):
            if endpoint is not None:
                row = table[f"{api}.{name}"]
                path = row["path"].removeprefix("/segmentstream")  # a part of the base URL
                names.add(row["operation"])
                wanted = f"{row['method']} {path}", row["effect"]
                assert (endpoint.name, endpoint.effect) == wanted
    assert names == {name for name in table if name.startswith(f"{api}.")}


STATUSES = {
    **dict.fromkeys(range(200, 300), "delivered"),
    **dict.fromkeys((429, 503), "again"),
    **dict.fromkeys((408, 500, 502, 504), "again or unknown"),
    401: "unauthorized",
    404: "singly",
    405: "singly",
}


@pytest.mark.parametrize("repeats", [True, False])
def test_every_status_means_one_thing(repeats: bool) -> None:
    for status in range(100, 600):
        wanted = STATUSES.get(status, "split or refused")
        for size in (1, 2):
            for in_batch, has_token in ((True, False), (False, True)):
                verdict = judge(
                    Reply(status, {}, b""),
                    size=size,
                    in_batch=in_batch,
                    repeats=repeats,
                    has_token=has_token,
                )
                exact = wanted
                if wanted == "again or unknown":
                    exact = "again" if repeats else "unknown"
                elif (
                    wanted == "split or refused"
                    or (wanted == "unauthorized" and not has_token)
                    or (wanted == "singly" and not in_batch)
                ):
                    exact = "split" if size == 2 else "refused"
                assert verdict == exact, status


@pytest.mark.parametrize(
    ("failure", "repeated", "set_aside"),
    [
        (Failure("connect", "", sent=False), "again", "again"),
        (Failure("certificate", "", sent=False), "again", "again"),
        (Failure("stalled", "", sent=False), "again", "again"),
        (Failure("stalled", "", sent=True), "again", "unknown"),
        (Failure("lost", "", sent=True), "again", "unknown"),
        (Failure("protocol", "", sent=True), "again", "unknown"),
        (Failure("lost", "", sent=True, head=200), "delivered", "delivered"),
        (Failure("too_large", "", sent=True, head=204), "delivered", "delivered"),
    ],
)
def test_without_a_reply_it_depends_on_what_was_sent(
    failure: Failure, repeated: str, set_aside: str
) -> None:
    for repeats, wanted in ((True, repeated), (False, set_aside)):
        said = judge(failure, size=2, in_batch=True, repeats=repeats, has_token=False)
        assert said == wanted


def test_the_waits_of_a_lane_double_up_to_the_cap() -> None:
    pause = Pause(Retry())
    waits = [pause.failed(n, n, n, throttled=False, chance=1.0) for n in range(1, 9)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 20, 20]
    assert pause.failed(1, 9, 9, throttled=True, chance=0.5) == 0.5  # of a longer first step
    assert pause.failed(10_000, 9, 9, throttled=True, chance=1.0) == 20


def test_all_lanes_pause_once_several_requests_have_failed_in_a_row() -> None:
    pause = Pause(Retry())
    for _ in range(9):  # failures between successes concern their own lane
        pause.failed(1, 0.0, 0.0, throttled=False, chance=1.0)
        pause.failed(1, 0.0, 0.0, throttled=False, chance=1.0)
        assert pause.left(0.0) < 0
        pause.succeeded()
    for n in range(16):  # all lanes, at nearly the same time
        pause.failed(1, 0.0, 1.0 + n / 64, throttled=False, chance=1.0)
    assert pause.left(1.0) == 0.5 + 2 / 64  # what was under way does not prolong it
    pause.failed(2, 1.6, 2.0, throttled=False, chance=1.0)
    assert pause.left(2.0) == 1.0
    pause.hurry()
    assert pause.left(2.0) < 0


def test_room_is_given_first_come_first_served() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        room = Room(2, 100)
        assert room.take(10)
        assert room.take(10)
        assert not room.take(10)
        order: list[str] = []

        async def waits(name: str, size: int, seconds: float) -> None:
            try:
                await room.wait(size, loop.time() + seconds)
                order.append(name)
            except TimeoutError:
                order.append(f"{name} late")

        tasks = [
            asyncio.create_task(waits(name, size, seconds))
            for name, size, seconds in [("a", 90, 5.0), ("b", 1, 9.0), ("c", 1, 1.0)]
        ]
        await asyncio.sleep(0.5)
        room.free(1, 10)
        await asyncio.sleep(0.1)
        assert order == ["a"]  # 90 bytes fit beside 10
        assert not room.take(0)  # others wait
        await asyncio.sleep(1)
        assert order == ["a", "c late"]
        room.free(1, 90)
        await asyncio.sleep(0.1)
        assert order == ["a", "c late", "b"]
        assert (room.events, room.bytes) == (2, 11)
        room.free(2, 11)
        await asyncio.gather(*tasks)
        assert room.take(1000)  # one that is over the limit by itself

    run(story())


def test_a_small_event_does_not_pass_a_large_one_that_waits() -> None:
    async def story() -> None:
        store = MemoryStore(DeadLimits(rows=9, seconds=9), time.time)
        outbox = Outbox(store, 1, Room(9, 100), "block", None, time.time)
        assert outbox.offer(Row(0, 1, b"x" * 90))
        large = asyncio.create_task(outbox.put(Row(0, 2, b"x" * 20), 9))
        await asyncio.sleep(0)
        assert not outbox.offer(Row(0, 3, b"x" * 10))
        outbox.ledger.room.free(1, 90)
        await large
        assert outbox.offer(Row(0, 3, b"x" * 10))
        assert not outbox.offer(Row(0, 4, b"x" * 71))

    run(story())


def test_a_place_granted_in_the_moment_of_cancellation_goes_to_the_next() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        room = Room(1, 100)
        assert room.take(1)
        first = asyncio.create_task(room.wait(1, loop.time() + 9))
        second = asyncio.create_task(room.wait(2, loop.time() + 9))
        await asyncio.sleep(0)
        room.give_back(1, 1)
        first.cancel()
        await second
        assert (room.events, room.bytes) == (1, 2)
        third = asyncio.create_task(room.wait(3, loop.time() + 9))
        await asyncio.sleep(0)
        room.refuse(lambda: ValueError("closed"))
        with pytest.raises(ValueError, match="closed"):
            await third
        assert (room.events, room.bytes) == (1, 2)

    run(story())
