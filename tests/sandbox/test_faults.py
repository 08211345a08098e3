"""Every kind of fault, as it looks from a raw socket."""

from __future__ import annotations

import asyncio
import gzip
import time
from typing import Any

import pytest

from drift_async.sandbox import Sandbox
from tests.support.sandbox_wire import ask, exchange, request_text

pytestmark = pytest.mark.anyio

GET = "GET /users/228225"
CREATE = ("POST /contacts", {"attributes": {"email": "f@example.com"}})


async def created(box: Sandbox) -> bool:
    box.heal()
    return bool((await ask(box, "GET /contacts?email=f@example.com")).json["data"])


@pytest.mark.parametrize(
    ("status", "kind", "start"),
    [
        (500, "application/json", b'{"error":{"type":"internal_error"'),
        (429, "application/json", b'{"error":{"type":"rate_limit"'),
        (502, "text/html", b"<html>"),
        (503, "text/html", b"<html>"),
        (504, "text/html", b"<html>"),
    ],
)
async def test_a_status_replaces_the_call(
    box: Sandbox, status: int, kind: str, start: bytes
) -> None:
    box.fail("contacts.create", status=status, headers={"Retry-After": "3"})
    answer = await ask(box, *CREATE)
    assert (answer.status, answer.headers["content-type"]) == (status, kind)
    assert answer.headers["retry-after"] == "3"
    assert answer.body.startswith(start)
    assert (box.seen[0].status, box.seen[0].applied) == (status, False)
    assert not await created(box)


async def test_a_call_can_be_carried_out_and_still_fail(box: Sandbox) -> None:
    box.fail("contacts.create", status=504, apply=True)
    assert (await ask(box, *CREATE)).status == 504
    assert box.seen[0].applied
    assert await created(box)


@pytest.mark.parametrize(("cut", "applied"), [("before", False), ("after", True)])
async def test_a_cut_closes_the_connection(box: Sandbox, cut: str, applied: bool) -> None:
    box.fail("contacts.create", cut=cut)
    assert (
        await exchange(
            box,
            request_text(
                "POST /contacts", '{"attributes": {"email": "f@example.com"}}', "sandbox-token", ""
            ),
        )
        == b""
    )
    assert (box.seen[0].status, box.seen[0].applied) == (None, applied)
    assert await created(box) is applied


async def test_a_reset_is_seen_as_one(box: Sandbox) -> None:
    box.fail("users.get", reset=True)
    with pytest.raises(ConnectionResetError):
        await exchange(box, request_text(GET, None, "sandbox-token", ""))
    box.fail("users.get", cut="after", reset=True)
    with pytest.raises(ConnectionResetError):
        await exchange(box, request_text(GET, None, "sandbox-token", ""))
    assert [one.applied for one in box.seen] == [False, True]


async def test_a_short_body_ends_too_early(box: Sandbox) -> None:
    box.fail("users.get", short=5)
    answer = await ask(box, GET)
    assert (answer.status, answer.whole) == (200, False)
    assert len(answer.body) == int(answer.headers["content-length"]) - 5
    assert box.seen[0].applied


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"


@pytest.mark.parametrize("raw", [b"SSH-2.0-x\r\n", CHUNKS])
async def test_raw_bytes_replace_http(box: Sandbox, raw: bytes) -> None:
    box.fail("users.get", raw=raw)
    host, port = box.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request_text(GET, None, "sandbox-token", ""))
    assert await reader.read() == raw
    writer.close()
    assert (box.seen[0].status, box.seen[0].applied) == (None, False)


@pytest.mark.parametrize(
    ("given", "body"),
    [(b"\xff{", b"\xff{"), ("grün", "grün".encode()), ({"a": [1]}, b'{"a": [1]}'), (b"", b"")],
)
async def test_a_body_replaces_the_true_one(box: Sandbox, given: Any, body: bytes) -> None:
    box.fail("users.get", body=given, headers={"content-type": "text/x", "X-Request-Id": "mine"})
    answer = await ask(box, GET)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, body, "text/x")
    assert answer.headers["x-request-id"] == "mine"
    assert box.seen[0].applied


BOMB = gzip.compress(bytes(1 << 20))


@pytest.mark.parametrize(
    ("fault", "status", "headers", "body"),
    [
        (
            {"body": BOMB, "headers": {"Content-Encoding": "gzip"}},
            *(200, {"content-encoding": "gzip", "content-type": "application/json"}),
            BOMB,
        ),
        (
            {"body": b'{"a": "\xfc"}', "headers": {"Content-Type": "application/json; charset=x"}},
            *(200, {"content-type": "application/json; charset=x"}, b'{"a": "\xfc"}'),
        ),
        (
            {"body": "<html>", "headers": {"Content-Type": "text/html"}},
            *(200, {"content-type": "text/html"}, b"<html>"),
        ),
        (
            {"status": 307, "headers": {"Location": "http://other.example/"}},
            *(307, {"location": "http://other.example/"}, b""),
        ),
    ],
    ids=["gzip bomb", "charset", "html", "redirect"],
)
async def test_other_hostile_replies_are_made_of_these(
    box: Sandbox, fault: dict[str, Any], status: int, headers: dict[str, str], body: bytes
) -> None:
    box.fail("users.get", **fault)
    answer = await ask(box, GET)
    assert (answer.status, answer.body, answer.whole) == (status, body, True)
    assert answer.headers.items() >= headers.items()


async def test_alter_changes_the_json(box: Sandbox) -> None:
    box.fail("users.get", alter=lambda value: {"data": {**value["data"], "extra": [None]}})
    assert (await ask(box, GET)).json["data"]["extra"] == [None]
    assert "extra" not in (await ask(box, GET)).json["data"]


@pytest.mark.parametrize("kind", ["delay", "pause", "drip"])
async def test_slow_replies_take_their_time_and_are_whole(box: Sandbox, kind: str) -> None:
    true = await ask(box, "GET /conversations/stats")
    seconds = 0.1 / (len(true.body) if kind == "drip" else 1)
    waits: dict[str, Any] = {kind: seconds}
    box.fail("conversations.stats", **waits)
    began = time.monotonic()
    answer = await ask(box, "GET /conversations/stats")
    assert time.monotonic() - began >= 0.09
    assert (answer.status, answer.body, answer.whole) == (200, true.body, True)


async def test_a_pause_lies_between_head_and_body(box: Sandbox) -> None:
    box.fail("users.get", pause=60)
    host, port = box.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request_text(GET, None, "sandbox-token", ""))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    began = time.monotonic()
    await box.close()
    assert time.monotonic() - began < 5
    assert await reader.read() == b""
    writer.close()


async def test_faults_queue_by_operation_in_order(box: Sandbox) -> None:
    box.fail("users.get", status=500, skip=2)
    box.fail("users.get", status=503, times=2)
    box.fail("teams.all", status=502, times=None)
    codes = [(await ask(box, GET)).status for _ in range(6)]
    assert codes == [200, 200, 500, 503, 503, 200]
    assert [(await ask(box, "GET /teams/org")).status for _ in range(3)] == [502] * 3
    box.heal()
    assert (await ask(box, "GET /teams/org")).status == 200


async def test_one_operation_can_be_healed_alone(box: Sandbox) -> None:
    box.fail("users.get", status=500, skip=2)
    box.fail("*", status=503, times=None)
    assert (await ask(box, GET)).status == 503
    box.heal("*")
    assert (await ask(box, "DELETE /_sandbox/faults?operation=teams.all", token=None)).status == 204
    assert [(await ask(box, GET)).status for _ in range(3)] == [200, 500, 200]


async def test_a_star_hits_every_request(box: Sandbox) -> None:
    box.fail("*", status=500, times=3)
    lines = [GET, "GET /nope", "GET /scim/Users", GET]
    answers = [await ask(box, line) for line in lines]
    assert [one.status for one in answers] == [500, 500, 500, 200]
    assert answers[2].json["status"] == "500"


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("users.gte", {}),
        ("users.get", {"cut": "now"}),
        ("users.get", {"times": 0}),
        ("users.get", {"status": 99}),
        ("users.get", {"delay": -1}),
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused(
    box: Sandbox, operation: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        box.fail(operation, **arguments)
