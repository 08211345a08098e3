"""What arrives at the server, in what order, and what becomes of the rest; on both faces."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drift_async.sandbox import Sandbox
from tests.support.events import SOON, Maker, are_in_order, numbers_of, total
from tests.support.server import Got, Server, dead_url, reply

pytestmark = pytest.mark.anyio


@pytest.mark.smoke
async def test_events_of_both_kinds_arrive_in_the_order_of_their_user(
    box: Sandbox, drift_events: Maker, outbox: str | None
) -> None:
    async with drift_events(123_458, base_url=box.url, outbox=outbox, linger=0.01) as events:
        for n in range(120):
            if n % 5:
                await events.track("Step", user_id=n % 7, attributes={"n": n})
            else:
                await events.identify(user_id=str(n % 7), attributes={"n": n})
        await events.track("Step", company_id="c", attributes={"n": 0})
        stats = await events.flush()
    assert (stats.accepted, stats.delivered, stats.pending) == (121, 121, 0)
    seen = numbers_of(box)
    assert sum(map(len, seen.values())) == 121
    assert are_in_order(seen)
    assert {request.raw_path for request in box.seen} == {"/track/multi", "/identify/multi"}
    assert not any(name == "Authorization" for request in box.seen for name, _ in request.headers)


async def test_batches_are_as_large_as_the_api_takes(box: Sandbox, drift_events: Maker) -> None:
    async with drift_events(123_458, base_url=box.url, window=1, linger=60) as events:
        for n in range(1500):
            await events.track("Step", user_id=n, attributes={"n": n})
        await events.flush()
    sizes = [len(json.loads(request.body)) for request in box.seen]
    assert sizes == [600, 600, 300]


async def test_a_batch_holds_so_many_bytes_at_most(box: Sandbox, drift_events: Maker) -> None:
    async with drift_events(123_458, base_url=box.url, window=1, linger=60) as events:
        for n in range(40):
            await events.track("Step", user_id=n, attributes={"text": "x" * 60_000})
        stats = await events.flush()
    assert stats.delivered == 40
    assert len(box.seen) == 3
    assert all(len(request.body) <= 1 << 20 for request in box.seen)


async def test_hits_go_one_by_one_with_basic_authentication(
    box: Sandbox, segmentstream: Maker, outbox: str | None
) -> None:
    async with segmentstream(
        "sandbox-stream", base_url=box.segmentstream_url, outbox=outbox
    ) as stream:
        for n in range(60):
            await stream.track({"name": "Step", "n": n}, user_id=f"u{n % 7}")
        await stream.track({"n": 0}, anonymous_id="a", hit_id="mine", context={"ip": "192.0.2.7"})
        stats = await stream.flush()
    assert (stats.accepted, stats.delivered) == (61, 61)
    assert are_in_order(numbers_of(box, "segmentstream"))
    assert len(box.seen) == 61
    wanted = "Basic " + base64.b64encode(b"sandbox-stream:").decode()
    assert {dict(request.headers)["Authorization"] for request in box.seen} == {wanted}
    assert {dict(request.headers)["Content-Type"] for request in box.seen} == {"application/json"}
    last = box.events("segmentstream", "a")[0].value
    assert (last["hitId"], last["context"]) == ("mine", {"ip": "192.0.2.7"})
    assert len({event.value["hitId"] for event in box.events("segmentstream")}) == 61


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"cut": "before"}])
async def test_what_fails_is_sent_again_to_the_byte(
    box: Sandbox, drift_events: Maker, outbox: str | None, fault: Any
) -> None:
    box.fail("*", times=3, **fault)
    async with drift_events(
        123_458, base_url=box.url, window=1, retry=SOON, outbox=outbox, linger=60
    ) as events:
        for n in range(9):
            await events.track("Step", user_id=1, attributes={"n": n})
        stats = await events.flush()
    assert stats.delivered == 9
    assert len(box.seen) == 4
    assert len({request.body for request in box.seen}) == 1
    assert box.event_counts("drift").accepted == 9


async def test_a_lost_reply_sends_again_and_segmentstream_knows_the_hit(
    box: Sandbox, segmentstream: Maker
) -> None:
    box.fail("segmentstream.track", cut="after", times=5)
    async with segmentstream(
        "sandbox-stream", base_url=box.segmentstream_url, retry=SOON
    ) as stream:
        for n in range(20):
            await stream.track({"n": n}, user_id=f"u{n}")
        stats = await stream.flush()
    counts = box.event_counts("segmentstream")
    assert stats.delivered == 20
    assert (counts.accepted, counts.repeats, counts.changed) == (25, 5, 0)
    assert len(box.events("segmentstream")) == 20


@pytest.mark.parametrize(
    "fault", [{"cut": "after"}, {"raw": b"garbage\r\n\r\n"}, {"status": 500}, {"status": 504}]
)
async def test_of_unknown_fate_are_set_aside_where_that_is_wanted(
    box: Sandbox, drift_events: Maker, outbox: str | None, fault: Any
) -> None:
    box.fail("events.track_many", **fault)
    async with drift_events(
        123_458, base_url=box.url, window=1, on_unknown="dead", outbox=outbox, linger=60
    ) as events:
        for n in range(5):
            await events.track("Step", user_id=1, attributes={"n": n})
        stats = await events.flush()
        assert (stats.delivered, stats.dead, stats.pending) == (0, 5, 0)
        await events.track("Step", user_id=1, attributes={"n": 5})
        assert (await events.flush()).delivered == 1
        dead = await events.dead()
        assert [letter.reason for letter in dead] == ["unknown"] * 5
        assert dead[0].operation == "track"
        assert dead[0].event["attributes"] == {"n": 0}
        assert await events.replay() == 5
        stats = await events.flush()
    assert (stats.accepted, stats.delivered, stats.dead) == (6, 6, 0)
    # What was cut off after it was applied is there twice now, since it was replayed by hand.
    assert box.event_counts("drift").repeats == (5 if "cut" in fault else 0)


async def test_an_identify_is_sent_again_all_the_same(box: Sandbox, drift_events: Maker) -> None:
    box.fail("events.identify_many", cut="after")
    async with drift_events(123_458, base_url=box.url, on_unknown="dead", retry=SOON) as events:
        await events.identify(user_id=1, attributes={"email": "ada@example.com"})
        stats = await events.flush()
    assert (stats.delivered, stats.dead) == (1, 0)


def refusing(word: bytes, status: str = "400 Bad Request") -> Callable[[int, Got], bytes]:
    """Refuse each request that holds *word*."""
    return lambda _, got: reply(b"{}", status) if word in got.body else reply(b"{}")


async def test_one_bad_event_is_found_and_the_rest_arrives(
    drift_events: Maker, outbox: str | None
) -> None:
    async with (
        Server(refusing(b"poison")) as server,
        drift_events(1, base_url=server.url, window=1, linger=60, outbox=outbox) as events,
    ):
        for n in range(1000):
            name = "poison" if n == 700 else "Step"
            await events.track(name, user_id=n % 3, attributes={"n": n})
        stats = await events.flush()
        assert (stats.delivered, stats.dead, stats.pending) == (999, 1, 0)
        (letter,) = await events.dead()
        assert (letter.reason, letter.status) == ("refused", 400)
        assert letter.event["event"] == "poison"
        assert "poison" not in repr(letter)
    good = [json.loads(got.body) for got in server.got if b"poison" not in got.body]
    numbers = [event["attributes"]["n"] for event in itertools.chain(*good)]
    assert sorted(numbers) == [n for n in range(1000) if n != 700]
    for user in range(3):
        mine = [n for n in numbers if n % 3 == user]
        assert mine == sorted(mine)
    assert len(server.got) < 2 + 2 * 10  # halves of halves


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed"])
async def test_where_there_are_no_batches_events_go_singly(
    drift_events: Maker, status: str
) -> None:
    def answer(_: int, got: Got) -> bytes:
        return reply(b"", status) if got.target.endswith("/multi") else reply(b"{}")

    async with (
        Server(answer) as server,
        drift_events(1, base_url=server.url, window=1, linger=60) as events,
    ):
        for n in range(20):
            await events.track("Step", user_id=n, attributes={"n": n})
        await events.flush()
        await events.track("Step", user_id=1, attributes={"n": 20})
        stats = await events.flush()
    assert (stats.delivered, stats.dead) == (21, 0)
    assert [got.target for got in server.got] == ["/track/multi", *["/track"] * 21]
    numbers = [json.loads(got.body)["attributes"]["n"] for got in server.got[1:]]
    assert numbers == list(range(21))


async def test_a_batch_that_is_too_large_for_the_server_is_halved(drift_events: Maker) -> None:
    def answer(_: int, got: Got) -> bytes:
        return reply(b"", "413 Too Large") if len(json.loads(got.body)) > 10 else reply(b"{}")

    async with (
        Server(answer) as server,
        drift_events(1, base_url=server.url, window=1, linger=60) as events,
    ):
        for n in range(33):
            await events.track("Step", user_id=n)
        stats = await events.flush()
    assert (stats.delivered, stats.dead) == (33, 0)


async def test_a_refused_hit_is_set_aside_and_the_next_goes_on(segmentstream: Maker) -> None:
    async with (
        Server(refusing(b"poison")) as server,
        segmentstream("t", base_url=server.url, window=1) as stream,
    ):
        for name in ("one", "poison", "two"):
            await stream.track({"name": name}, user_id="u7")
        stats = await stream.flush()
        assert (stats.delivered, stats.dead) == (2, 1)
        assert [letter.status for letter in await stream.dead()] == [400]


async def test_a_refused_token_stops_delivery_until_there_is_another(
    box: Sandbox, segmentstream: Maker, outbox: str | None
) -> None:
    async with segmentstream("old", base_url=box.segmentstream_url, outbox=outbox) as stream:
        for n in range(30):
            await stream.track({"n": n}, user_id=f"u{n % 3}")
        stats = await stream.flush(10)
        assert (stats.delivered, stats.pending, stats.dead) == (0, 30, 0)
        assert "401" in stats.stopped
        asked = len(box.seen)
        assert asked <= 3
        assert (await stream.flush(10)).pending == 30  # at once
        await stream.track({"n": 30}, user_id="u0")
        assert len(box.seen) == asked
        await stream.set_token("sandbox-stream")
        stats = await stream.flush()
        assert (stats.delivered, stats.stopped) == (31, None)
    assert are_in_order(numbers_of(box, "segmentstream"))


async def test_a_401_from_drift_which_wants_no_token_is_a_refusal(drift_events: Maker) -> None:
    async with (
        Server(reply(b"", "401 Unauthorized")) as server,
        drift_events(1, base_url=server.url) as events,
    ):
        await events.track("Step", user_id=1)
        stats = await events.flush()
        assert (stats.dead, stats.stopped) == (1, None)


@pytest.mark.parametrize("status", ["302 Found", "501 Not Implemented", "403 Forbidden"])
async def test_other_refusals_are_final(drift_events: Maker, status: str) -> None:
    async with (
        Server(reply(b"", status, Location="http://127.0.0.1:9/")) as server,
        drift_events(1, base_url=server.url) as events,
    ):
        await events.track("Step", user_id=1)
        assert (await events.flush()).dead == 1
    assert len(server.got) == 1


async def test_a_delivered_batch_whose_reply_breaks_off_is_delivered(
    drift_events: Maker,
) -> None:
    cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"
    async with Server(cut) as server, drift_events(1, base_url=server.url) as events:
        await events.track("Step", user_id=1)
        await events.flush()
        assert events.stats().delivered == 1
    assert len(server.got) == 1


async def test_flush_and_close_return_in_time_without_a_server(
    drift_events: Maker, outbox: str | None
) -> None:
    loop = asyncio.get_running_loop()
    async with dead_url() as url:
        events = drift_events(1, base_url=url, outbox=outbox)
        await events.open()
        for n in range(50):
            await events.track("Step", user_id=n)
        began = loop.time()
        stats = await events.flush(0.2)
        assert 0.199 <= loop.time() - began < 1  # uvloop's clock counts milliseconds
        assert (stats.accepted, stats.pending) == (50, 50)
        stats = await events.close(0.2)
        assert loop.time() - began < 2
        assert (stats.accepted, stats.pending, stats.delivered) == (50, 50, 0)
        assert total(stats) == stats.accepted
        assert await events.close() == stats


async def test_what_close_leaves_is_delivered_after_opening_again(
    box: Sandbox, drift_events: Maker, outbox: str | None
) -> None:
    box.fail("*", status=503, times=None)
    events = drift_events(123_458, base_url=box.url, outbox=outbox, retry=SOON)
    async with events:
        for n in range(50):
            await events.track("Step", user_id=n % 4, attributes={"n": n})
        assert (await events.close(0.1)).pending == 50
    box.heal()
    async with events:
        stats = await events.flush()
    assert (stats.accepted, stats.delivered, stats.pending) == (50, 50, 0)
    assert stats.recovered == (0 if outbox is None else 50)
    assert are_in_order(numbers_of(box))


async def test_dead_letters_are_bounded_and_counted(
    drift_events: Maker, outbox: str | None
) -> None:
    losses: list[Any] = []
    async with (
        Server(reply(b"", "400 Bad Request")) as server,
        drift_events(
            1, base_url=server.url, max_dead=3, outbox=outbox, on_drop=losses.append
        ) as events,
    ):
        for n in range(10):
            await events.track(f"e{n}", user_id=1)
            await events.flush()
        stats = events.stats()
        assert (stats.accepted, stats.dead, stats.pending) == (10, 3, 0)
        assert dict(stats.dropped) == {"dead_full": 7}
        assert total(stats) == 10
        assert [letter.event["event"] for letter in await events.dead()] == ["e7", "e8", "e9"]
    assert [(loss.reason, loss.count) for loss in losses] == [("dead_full", 1)] * 7


async def test_dead_letters_grow_old(drift_events: Maker, outbox: str | None) -> None:
    async with (
        Server(reply(b"", "400 Bad Request")) as server,
        drift_events(1, base_url=server.url, dead_days=0, outbox=outbox) as events,
    ):
        for _ in range(2):
            await events.track("Step", user_id=1)
            await events.flush()
        stats = events.stats()
        assert stats.dropped["dead_old"] >= 1
        assert total(stats) == 2


async def test_hooks_hear_of_each_request_and_see_nothing_personal(drift_events: Maker) -> None:
    told: list[Any] = []
    answers = [reply(b"", "503 Busy"), reply(b"{}")]
    async with (
        Server(lambda n, _: answers[n - 1]) as server,
        drift_events(
            1,
            base_url=server.url,
            retry=SOON,
            on_request=told.append,
            on_response=told.append,
            on_retry=told.append,
        ) as events,
    ):
        await events.track("Step", user_id="planted-ada", attributes={"a": "planted-b"})
        await events.flush()
        assert "planted" not in repr(events) + repr(events.stats())
    kinds = [type(info).__name__ for info in told]
    assert kinds == ["RequestInfo", "ResponseInfo", "RetryInfo", "RequestInfo", "ResponseInfo"]
    assert {info.operation for info in told} == {"POST /track/multi"}
    assert [info.attempt for info in told] == [1, 1, 1, 2, 2]
    assert "planted" not in repr(told)


async def test_two_outboxes_in_one_directory_do_not_mix(
    box: Sandbox, drift_events: Maker, segmentstream: Maker, tmp_path: Path
) -> None:
    async with (
        drift_events(123_458, base_url=box.url, outbox=tmp_path) as events,
        drift_events(123_458, base_url=box.url, outbox=tmp_path) as others,
        segmentstream("sandbox-stream", base_url=box.segmentstream_url, outbox=tmp_path) as stream,
    ):
        for client in (events, others):
            await client.track("Step", user_id=1, attributes={"n": 1})
        await stream.track({"n": 1}, user_id="u1")
        for client in (events, others, stream):
            assert (await client.flush()).delivered == 1
        assert len(list(tmp_path.glob("*.sqlite"))) == 3
    assert list(tmp_path.iterdir()) == []
