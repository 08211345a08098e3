"""The event API and SegmentStream: what they take, refuse, keep and count."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from drift_async.sandbox import EventCounts, Sandbox
from tests.support.sandbox_wire import Answer, ask, exchange, parse

pytestmark = pytest.mark.anyio

EVENT = {"orgId": 123_458, "userId": "u1", "event": "Signed up"}
HIT = {"hitId": "h1", "sentAt": "2024-01-05T09:30:00.000Z", "event": {"user": {"userId": "u1"}}}


async def track(box: Sandbox, body: Any = EVENT, path: str = "/track") -> Answer:
    return await ask(box, f"POST {path}", body, token=None)


async def hit(
    box: Sandbox,
    body: Any = HIT,
    *,
    token: str = "sandbox-stream:",
    kind: str = "application/json",
    line: str = "POST /segmentstream/track",
) -> Answer:
    secret = base64.b64encode(token.encode()).decode()
    extra = f"Authorization: Basic {secret}\r\nContent-Type: {kind}\r\n"
    return await ask(box, line, body, token=None, extra=extra)


def hit_of(size: int) -> bytes:
    empty = json.dumps({**HIT, "context": {"x": ""}})
    return json.dumps({**HIT, "context": {"x": "y" * (size - len(empty))}}).encode()


async def test_events_are_kept_in_order_and_by_user(box: Sandbox) -> None:
    await track(box, {**EVENT, "createdAt": 5}, "/identify")
    batch = [{**EVENT, "userId": user, "event": f"e{i}"} for i, user in enumerate([7, "u1", 7])]
    assert (await track(box, batch, "/track/multi")).json == {}
    company = {"orgId": 123_458, "companyId": "c", "userId": None}
    await track(box, [company], "/identify/multi")
    await hit(box, {"event": {"user": {"anonymousId": "u1"}}})
    kinds = [(one.api, one.kind, one.user) for one in box.events()]
    assert kinds == [
        ("drift", "identify", "u1"),
        *[("drift", "track", user) for user in ("7", "u1", "7")],
        ("drift", "identify", "c"),
        ("segmentstream", "track", "u1"),
    ]
    assert [one.value["event"] for one in box.events("drift", "7")] == ["e0", "e2"]
    assert [one.api for one in box.events(user="u1")] == ["drift", "drift", "segmentstream"]
    assert box.events("drift")[0].value == {**EVENT, "createdAt": 5}


async def test_drift_keeps_repeats_and_segmentstream_drops_them(box: Sandbox) -> None:
    for event in (EVENT, {**EVENT, "event": "x"}, dict(reversed(EVENT.items()))):
        await track(box, event)
    await track(box, [EVENT, EVENT], "/track/multi")
    assert box.event_counts("drift") == EventCounts(accepted=5, repeats=3)
    assert len(box.events("drift")) == 5
    bodies: list[Any] = [HIT, {**HIT, "hitId": "h2"}, HIT, {**HIT, "context": {}}]
    for body in bodies:
        assert (await hit(box, body)).status == 204
    for _ in range(2):
        await hit(box, {"event": HIT["event"]})
    assert box.event_counts("segmentstream") == EventCounts(accepted=6, repeats=2, changed=1)
    assert [one.value.get("hitId") for one in box.events("segmentstream")] == [
        *("h1", "h2", None, None)
    ]


async def test_what_is_kept_is_bounded_and_what_is_counted_is_not() -> None:
    async with Sandbox(keep_events=2) as box:
        for i in range(3):
            await hit(box, {**HIT, "hitId": f"h{i}"})
        box.forget()
        assert (box.events(), box.seen) == ([], [])
        for i in range(4):
            await hit(box, {**HIT, "hitId": f"h{i}"})
        assert box.event_counts("segmentstream") == EventCounts(accepted=7, repeats=3)
        assert [one.value["hitId"] for one in box.events()] == ["h3"]
    async with Sandbox(keep_events=0) as box:
        await track(box)
        assert (box.events(), box.event_counts("drift").accepted) == ([], 1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"orgId": None}, "orgId"),
        ({"orgId": 1}, "orgId"),
        ({"orgId": "x"}, "orgId"),
        ({"userId": None}, "userId"),
        ({"userId": ""}, "userId"),
        ({"userId": True}, "userId"),
        ({"userId": 1.5}, "userId"),
        ({"userId": None, "companyId": []}, "companyId"),
        ({"event": None}, "event"),
        ({"event": " "}, "event"),
        ({"attributes": []}, "attributes"),
        ({"attributes": {"a": {}}}, "attributes.a"),
        ({"attributes": {"a": []}}, "attributes.a"),
        ({"createdAt": "soon"}, "createdAt"),
        ({"createdAt": 1.5}, "createdAt"),
    ],
)
async def test_a_bad_event_is_refused_by_name(box: Sandbox, change: Any, named: str) -> None:
    bad = {**EVENT, **change}
    answer = await track(box, bad)
    assert answer.status == 400
    assert answer.json["error"]["type"] == "validation_error"
    assert answer.json["error"]["message"].startswith(f"{named}: ")
    batch = await track(box, [EVENT, EVENT, bad], "/track/multi")
    assert batch.status == 400
    assert batch.json["error"]["message"].startswith(f"[2].{named}: ")
    assert box.events() == []
    assert not any(one.applied for one in box.seen)


async def test_a_batch_holds_600_events(box: Sandbox) -> None:
    assert (await track(box, [EVENT] * 600, "/track/multi")).status == 200
    assert (await track(box, [EVENT] * 601, "/track/multi")).status == 400
    for body in ("{", "{}", "", '"x"', "[1]", "[NaN]"):
        assert (await track(box, body, "/track/multi")).status == 400
    assert box.event_counts("drift").accepted == 600


@pytest.mark.parametrize(
    "token", ["", "sandbox-stream", "sandbox-stream:x", "other:", ":sandbox-stream", "\xff:"]
)
async def test_segmentstream_wants_its_token_as_user(box: Sandbox, token: str) -> None:
    answer = await hit(box, token=token)
    assert (answer.status, answer.headers["www-authenticate"][:5]) == (401, "Basic")
    assert answer.json["error"]["type"] == "authentication_error"
    for extra in ("", "Authorization: Basic ???\r\n", "Authorization: Bearer sandbox-stream\r\n"):
        line = "POST /segmentstream/track"
        assert (await ask(box, line, HIT, token=None, extra=extra)).status == 401
    assert box.events() == []


async def test_a_token_of_segmentstream_can_change(box: Sandbox) -> None:
    box.revoke(box.segmentstream_token)
    assert (await hit(box)).status == 401
    box.add_segmentstream_token("new")
    assert (await hit(box, token="new:")).status == 204
    assert (await hit(box)).status == 401


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("", "body"),
        ("{", "body"),
        ([HIT], "body"),
        ({"event": None}, "event"),
        ({"event": []}, "event"),
        ({"event": {}}, "event.user"),
        ({"event": {"user": "u1"}}, "event.user"),
        ({"event": {"user": {"userId": 1}}}, "event.user.userId"),
        ({"event": {"user": {"anonymousId": ""}}}, "event.user.anonymousId"),
        ({**HIT, "hitId": ""}, "hitId"),
        ({**HIT, "hitId": "x" * 129}, "hitId"),
        ({**HIT, "sentAt": "soon"}, "sentAt"),
        ({**HIT, "sentAt": 1704447000000}, "sentAt"),
        ({**HIT, "context": []}, "context"),
        ({**HIT, "integrations": 1}, "integrations"),
    ],
)
async def test_a_bad_hit_is_refused_by_name(box: Sandbox, body: Any, named: str) -> None:
    answer = await hit(box, body)
    assert answer.status == 400
    assert answer.json["error"]["message"].startswith(f"{named}")
    assert box.event_counts("segmentstream").accepted == 0


async def test_a_hit_is_json_of_64_kib_at_most(box: Sandbox) -> None:
    assert (await hit(box, hit_of(65_536), kind="Application/JSON; charset=utf-8")).status == 204
    for size in (65_537, 1 << 20, (1 << 20) + 1):
        assert (await hit(box, hit_of(size))).status == 400
    for kind in ("text/plain", "application/jsonx", ""):
        assert (await hit(box, kind=kind)).status == 400
    assert (await hit(box, line="GET /segmentstream/track")).status == 405


async def test_the_host_of_segmentstream_has_the_path_without_prefix(box: Sandbox) -> None:
    text = "POST /track HTTP/1.1\r\nHost: track.segmentstream.com\r\nContent-Length: 0\r\n\r\n"
    assert parse(await exchange(box, text.encode())).status == 401
    assert box.seen[0].operation == "segmentstream.track"


async def test_strict_wants_hit_id_and_time() -> None:
    async with Sandbox(strict=True) as box:
        assert (await hit(box)).status == 204
        for key in ("hitId", "sentAt"):
            assert (await hit(box, {**HIT, key: None})).status == 400


async def test_faults_and_limits_reach_the_event_apis() -> None:
    clock = [0.0]
    async with Sandbox(event_rate=1, burst=2, clock=lambda: clock[0]) as box:
        box.fail("events.track", status=503, headers={"Retry-After": "2"})
        box.fail("segmentstream.track", cut="after")
        assert [(await track(box)).status for _ in range(4)] == [503, 200, 200, 429]
        refused = await track(box, EVENT, "/identify")
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        with pytest.raises(IndexError):  # nothing comes back
            await hit(box)
        assert [(await hit(box)).status for _ in range(2)] == [204, 429]
        assert box.event_counts("segmentstream") == EventCounts(accepted=2, repeats=1)
        assert (await ask(box, "GET /users/list")).status == 200


async def test_the_burst_of_an_event_api_is_a_tenth_of_its_own_second() -> None:
    async with Sandbox(rate=100, event_rate=30, clock=lambda: 0.0) as box:
        assert [(await track(box)).status for _ in range(4)] == [200, 200, 200, 429]
        assert [(await hit(box)).status for _ in range(4)] == [204, 204, 204, 429]


async def test_each_event_api_has_windows_of_its_own() -> None:
    clock = [0.0]
    async with Sandbox(event_rate=0.2, window=10, clock=lambda: clock[0]) as box:
        assert (await track(box)).status == 200
        clock[0] = 4.0
        assert (await track(box, EVENT, "/identify")).status == 200
        refused = await track(box)
        assert (refused.status, refused.headers["retry-after"]) == (429, "6")
        assert [(await hit(box)).status for _ in range(3)] == [204, 204, 429]
        clock[0] = 10.0
        assert [(await track(box)).status for _ in range(3)] == [200, 200, 429]
        refused = await hit(box)
        assert (refused.status, refused.headers["retry-after"]) == (429, "4")
        assert (await ask(box, "GET /users/list")).status == 200


async def test_a_token_sent_along_gives_an_event_api_no_second_limit() -> None:
    async with Sandbox(rate=1, event_rate=1, clock=lambda: 0.0) as box:
        assert (await ask(box, "GET /users/list")).status == 200
        codes = [
            (await ask(box, "POST /track", EVENT, token=token)).status
            for token in ("sandbox-token", None)
        ]
        assert codes == [200, 429]


async def test_the_control_api_shows_events(box: Sandbox) -> None:
    await track(box)
    await track(box, {**EVENT, "userId": 2})
    shown = (await ask(box, "GET /_sandbox/events?api=drift&user=2", token=None)).json
    one = {"api": "drift", "kind": "track", "user": "2", "value": {**EVENT, "userId": 2}}
    assert shown["events"] == [one]
    assert shown["counts"]["drift"] == {"accepted": 2, "repeats": 0, "changed": 0}
    assert (await ask(box, "GET /_sandbox/events?api=x", token=None)).status == 400
    assert (await ask(box, "DELETE /_sandbox/events", token=None)).status == 204
    assert box.events() == []
    with pytest.raises(ValueError, match="api"):
        box.event_counts("x")
