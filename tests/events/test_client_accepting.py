"""Accepting events: when, how many, and what happens when there is no room; on both faces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import drift_async
import drift_async.sync
from drift_async import (
    ClosedError,
    CredentialsError,
    DriftEvents,
    Hit,
    Identify,
    InputError,
    OutboxFullError,
    SegmentStream,
    Track,
    WrongLoopError,
)
from drift_async.sandbox import Sandbox
from tests.support.events import UNFINISHED, Maker, total
from tests.support.server import Server, dead_url, reply

pytestmark = pytest.mark.anyio

ORG = 123_458


async def test_a_full_outbox_refuses_where_that_is_wanted(
    drift_events: Maker, outbox: str | None
) -> None:
    async with (
        dead_url() as url,
        drift_events(1, base_url=url, max_events=3, when_full="error", outbox=outbox) as events,
    ):
        for _ in range(3):
            await events.track("Step", user_id=1)
        with pytest.raises(OutboxFullError) as caught:
            await events.track("Step", user_id=1)
        assert caught.value.applied is False
        stats = events.stats()
        assert (stats.accepted, stats.pending, dict(stats.dropped)) == (3, 3, {})
        await events.close(0)


@pytest.mark.parametrize("policy", ["drop_new", "drop_old"])
async def test_a_full_outbox_drops_what_it_was_told_to_and_says_so(
    drift_events: Maker, outbox: str | None, policy: str
) -> None:
    losses: list[Any] = []
    async with Server(reply(b"", "503 Busy", Retry_After="60")) as server:
        events = drift_events(
            1,
            base_url=server.url,
            max_events=3,
            when_full=policy,
            outbox=outbox,
            on_drop=losses.append,
            linger=60,
            window=1,
        )
        async with events:
            for n in range(10):
                await events.track(f"e{n}", user_id=1)
            stats = events.stats()
            assert (stats.accepted, stats.pending, dict(stats.dropped)) == (10, 3, {"full": 7})
            assert total(stats) == 10
            for _ in range(50):
                await events.flush(0.1)  # sends what is left: the server gets to see it
                if server.got:
                    break
            await events.close(0)
    kept = [f"e{n}" for n in (range(3) if policy == "drop_new" else range(7, 10))]
    assert [name for name in kept if name.encode() not in server.got[0].body] == [], server.got
    assert [(loss.reason, loss.count) for loss in losses] == [("full", 1)] * 7


async def test_drop_old_drops_the_new_event_where_all_older_ones_are_being_sent(
    drift_events: Maker,
) -> None:
    losses: list[Any] = []
    async with (
        Server(UNFINISHED) as server,
        drift_events(
            1,
            base_url=server.url,
            max_events=1,
            when_full="drop_old",
            on_drop=losses.append,
            linger=0,
            window=1,
        ) as events,
    ):
        await events.track("e0", user_id=1)
        while not server.got:  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # nothing tells
        await events.track("e1", user_id=1)
        stats = events.stats()
        assert (stats.accepted, stats.in_flight, stats.pending) == (2, 1, 1)
        assert dict(stats.dropped) == {"full": 1}
        await events.close(0)
    (loss,) = losses
    assert (loss.reason, loss.count) == ("full", 1)
    assert "a new event was dropped: all the others are being sent" in loss.detail


async def test_a_full_outbox_blocks_until_there_is_room(
    box: Sandbox, drift_events: Maker, outbox: str | None
) -> None:
    async with drift_events(ORG, base_url=box.url, max_events=3, outbox=outbox, linger=0) as events:
        for n in range(20):
            await events.track("Step", user_id=1, attributes={"n": n})
        assert (await events.flush()).delivered == 20
    numbers = [event.value["attributes"]["n"] for event in box.events()]
    assert numbers == list(range(20))


async def test_blocking_ends_with_the_timeout(drift_events: Maker, outbox: str | None) -> None:
    loop = asyncio.get_running_loop()
    async with (
        dead_url() as url,
        drift_events(1, base_url=url, max_events=2, timeout=0.2, outbox=outbox) as events,
    ):
        for _ in range(2):
            await events.track("Step", user_id=1)
        began = loop.time()
        with pytest.raises(OutboxFullError):
            await events.track("Step", user_id=1)
        assert 0.199 <= loop.time() - began < 2  # uvloop's clock counts milliseconds
        assert events.stats().accepted == 2
        await events.close(0)


async def test_the_bytes_that_wait_are_bounded_too(drift_events: Maker, outbox: str | None) -> None:
    async with (
        dead_url() as url,
        drift_events(1, base_url=url, max_bytes=1000, when_full="error", outbox=outbox) as events,
    ):
        await events.track("Step", user_id=1, attributes={"text": "x" * 900})
        with pytest.raises(OutboxFullError):
            await events.track("Step", user_id=1, attributes={"text": "x" * 900})
        assert 900 < events.stats().bytes <= 1000
        await events.close(0)


async def test_closing_ends_the_wait_for_room() -> None:
    async with dead_url() as url:
        events = DriftEvents(1, base_url=url, max_events=1)
        await events.open()
        await events.track("Step", user_id=1)
        waiting = asyncio.create_task(events.track("Step", user_id=1))
        await asyncio.sleep(0)
        stats = await events.close(0)
        with pytest.raises(ClosedError):
            await waiting
        assert stats.accepted == total(stats) == 1


async def test_a_cancelled_wait_leaves_no_trace() -> None:
    async with (
        dead_url() as url,
        DriftEvents(1, base_url=url, max_events=1) as events,
    ):
        await events.track("Step", user_id=1)
        waiting = asyncio.create_task(events.track("Step", user_id=1))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert events.stats().accepted == 1
        assert events._queue.capacity.events == 1
        await events.close(0)


async def test_what_raises_in_on_drop_is_logged_and_does_no_harm(
    drift_events: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Any) -> None:
        raise ZeroDivisionError

    async with (
        dead_url() as url,
        drift_events(1, base_url=url, max_events=1, when_full="drop_new", on_drop=fails) as events,
    ):
        await events.track("Step", user_id=1)
        await events.track("Step", user_id=1)
        assert events.stats().dropped["full"] == 1
        await events.close(0)
    assert "on_drop raised" in caplog.text


def steps(count: int) -> Iterator[Track]:
    for n in range(count):
        yield Track("Step", user_id=n % 3, attributes={"n": n})


async def test_many_are_accepted_in_order(
    box: Sandbox, drift_events: Maker, outbox: str | None
) -> None:
    async with drift_events(ORG, base_url=box.url, outbox=outbox) as events:
        assert await events.track_many(steps(1200)) == 1200
        people = [Identify(user_id=1, attributes={"n": 1}), Identify(company_id="c")]
        assert await events.identify_many(people) == 2
        assert await events.track_many([]) == 0
        assert (await events.flush()).delivered == 1202
    for user in range(3):
        tracks = [e for e in box.events("drift", str(user)) if e.kind == "track"]
        numbers = [event.value["attributes"]["n"] for event in tracks]
        assert numbers == list(range(user, 1200, 3))


async def test_the_blocking_face_walks_items_in_the_callers_thread(box: Sandbox) -> None:
    walked_in: set[int] = set()

    def walk(events: drift_async.sync.SegmentStream) -> Iterator[Hit]:
        for n in range(600):
            walked_in.add(threading.get_ident())
            if n == 300:
                events.track({"n": -1}, user_id="inner")  # it may call the client itself
            yield Hit({"n": n}, user_id="u7")

    def work() -> tuple[int, int]:
        with drift_async.sync.SegmentStream.from_env(box.env) as events:
            accepted = events.track_many(walk(events))
            events.flush()
            return accepted, threading.get_ident()

    accepted, thread = await asyncio.to_thread(work)
    assert accepted == 600
    assert walked_in == {thread}
    assert box.event_counts("segmentstream").accepted == 601


async def test_the_awaited_face_walks_async_items_too(box: Sandbox) -> None:
    async def walk() -> AsyncIterator[Track]:
        for item in steps(10):
            await asyncio.sleep(0)
            yield item

    async with DriftEvents.from_env(box.env) as events:
        assert await events.track_many(walk()) == 10


async def test_a_bad_item_is_named_and_those_before_it_are_accepted(
    box: Sandbox, drift_events: Maker
) -> None:
    items: list[Any] = [*steps(700), Track("Step"), *steps(3)]
    async with drift_events(ORG, base_url=box.url) as events:
        with pytest.raises(InputError) as caught:
            await events.track_many(items)
        assert caught.value.field == "items[700].user_id"
        assert events.stats().accepted == 700
        for wrong in (7, [Identify(user_id=1)], ["x"]):
            with pytest.raises(InputError):
                await events.track_many(wrong)


async def test_times_are_fixed_when_the_event_is_accepted(
    box: Sandbox, drift_events: Maker, segmentstream: Maker
) -> None:
    noon = datetime(2024, 1, 5, 12, tzinfo=UTC)
    before = datetime.now(UTC).timestamp() * 1000 - 1
    async with drift_events(ORG, base_url=box.url) as events:
        await events.track("Step", user_id=1)
        await events.track("Step", user_id=1, created_at=noon)
        await events.identify(user_id=1, created_at=noon)
    async with segmentstream("sandbox-stream", base_url=box.segmentstream_url) as stream:
        await stream.track({}, user_id="1", sent_at=noon)
        with pytest.raises(InputError):
            await stream.track({}, user_id="1", sent_at=datetime(2024, 1, 5))  # noqa: DTZ001
        with pytest.raises(InputError):
            await stream.track({}, user_id="1", hit_id="x" * 129)
    now, *then = [event.value["createdAt"] for event in box.events("drift")]
    assert before < now < before + 60_000
    assert then == [1_704_456_000_000] * 2
    assert box.events("segmentstream")[0].value["sentAt"] == "2024-01-05T12:00:00.000Z"


async def test_bad_input_is_refused_before_anything_is_counted(
    drift_events: Maker, segmentstream: Maker
) -> None:
    async with dead_url() as url, drift_events(1, base_url=url) as events:
        for call in (
            events.track("Step"),
            events.track("page", user_id=1),
            events.identify(),
            events.identify(user_id=1, attributes={"a": {}}),
        ):
            with pytest.raises(InputError):
                await call
        assert events.stats().accepted == 0
    async with dead_url() as url, segmentstream("t", base_url=url) as stream:
        with pytest.raises(InputError):
            await stream.track({})
        with pytest.raises(InputError):
            await stream.set_token("two words")
        assert stream.stats().accepted == 0


async def test_an_awaited_client_says_where_it_can_be_used() -> None:
    events = DriftEvents(1, base_url="http://127.0.0.1:9")
    for call in (
        events.track("Step", user_id=1),
        events.flush(),
        events.dead(),
        events.replay(),
        events.track_many([Track("Step", user_id=1)]),
    ):
        with pytest.raises(ClosedError):
            await call
    await events.open()
    await events.open()

    def elsewhere() -> None:
        asyncio.run(events.track("Step", user_id=1))

    with pytest.raises(WrongLoopError):
        await asyncio.to_thread(elsewhere)
    closing = asyncio.create_task(events.close())
    await closing
    assert (await events.close()).accepted == 0
    with pytest.raises(ClosedError):
        await events.track("Step", user_id=1)


async def test_many_tasks_may_open_at_once(tmp_path: Path) -> None:
    events = DriftEvents(1, base_url="http://127.0.0.1:9", outbox=tmp_path)
    await asyncio.gather(*(events.open() for _ in range(10)))
    await events.track("Step", user_id=1)
    await events.close(0)
    assert len(list(tmp_path.glob("*.sqlite"))) == 1


SETTINGS: list[dict[str, Any]] = [
    {"org_id": -1},
    {"org_id": "7"},
    {"outbox": 7},
    {"outbox": ""},
    {"outbox": "a\0b"},
    {"when_full": "explode"},
    {"when_full": ["block"]},
    {"max_events": 0},
    {"max_bytes": 0},
    {"max_dead": -1},
    {"dead_days": -1},
    {"window": 0},
    {"linger": -1},
    {"on_unknown": "forget"},
    {"on_drop": "print"},
    {"base_url": "http://event.api.drift.com"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    for module in (drift_async, drift_async.sync):
        with pytest.raises(InputError) as caught:
            module.DriftEvents(**{"org_id": 7, **settings})
        assert caught.value.field == next(iter(settings))


@pytest.mark.parametrize(
    ("kind", "env", "word"),
    [
        (DriftEvents, {}, "DRIFT_ORG_ID"),
        (DriftEvents, {"DRIFT_ORG_ID": "seven"}, "not a number"),
        (SegmentStream, {}, "SEGMENTSTREAM_TOKEN"),
    ],
)
async def test_what_is_missing_in_the_environment_shows_at_open(
    kind: Any, env: dict[str, str], word: str, tmp_path: Path
) -> None:
    client = kind.from_env(env, outbox=tmp_path / "none")
    with pytest.raises(CredentialsError, match=word):
        await client.open()
    assert not (tmp_path / "none").exists()
    twin = getattr(drift_async.sync, kind.__name__).from_env(env)
    with pytest.raises(CredentialsError, match=word):
        await asyncio.to_thread(twin.open)


async def test_the_environment_points_to_the_sandbox(box: Sandbox, face: str) -> None:
    module: Any = drift_async if face == "awaited" else drift_async.sync
    assert repr(module.DriftEvents.from_env({"DRIFT_ORG_ID": "1"})).count("event.api.drift.com")
    stream = module.SegmentStream.from_env({"SEGMENTSTREAM_TOKEN": "planted"}, window=2)
    assert "track.segmentstream.com" in repr(stream)
    assert "planted" not in repr(stream)


def test_items_are_inert_and_show_nothing() -> None:
    item = Track("Step", user_id="planted", attributes={"a": "planted"})
    assert "planted" not in repr(item)
    assert item == Track("Step", user_id="planted", attributes={"a": "planted"})
    with pytest.raises(AttributeError):
        item.event = "Other"  # type: ignore[misc]
