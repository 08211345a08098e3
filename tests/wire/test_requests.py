"""Each call puts on the wire exactly what the documentation wants."""

from __future__ import annotations

import json
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

import drift_async
from drift_async.sandbox import Sandbox
from tests.support.expected_requests import ROWS, Row

pytestmark = [pytest.mark.anyio, pytest.mark.smoke]


async def run(drift: Any, row: Row) -> Any:
    """Make the call; of what is walked, walk all."""
    result = attrgetter(row.call)(drift)(*row.args, **row.kwargs)
    return await (result.collect() if hasattr(result, "collect") else result)


@pytest.mark.parametrize("row", ROWS, ids=[f"{n}-{row.call}" for n, row in enumerate(ROWS)])
async def test_a_call_sends_exactly_these_requests(drift: Any, box: Sandbox, row: Row) -> None:
    for operation, fault in row.faults:
        box.fail(operation, **fault)
    if row.raises:
        with pytest.raises(getattr(drift_async, row.raises)):
            await run(drift, row)
    else:
        await run(drift, row)

    assert [f"{one.method} {one.raw_path}" for one in box.seen] == [
        " ".join(line.split(" ", 2)[:2]) for line in row.wire
    ]
    for one, line in zip(box.seen, row.wire, strict=True):
        headers = [(name.lower(), value) for name, value in one.headers]
        named = dict(headers)
        assert [value for name, value in headers if name == "authorization"] == [
            "Bearer sandbox-token"
        ]
        assert "cookie" not in named
        assert named["host"] == box.url.removeprefix("http://")
        assert named["user-agent"].startswith("drift-async/")
        _, _, *body = line.split(" ", 2)
        if body:
            assert named["content-type"] == "application/json"
            value = json.loads(one.body)
            assert value == json.loads(body[0])
            compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            assert one.body == compact.encode()
            assert named["content-length"] == str(len(one.body))
        else:
            assert one.body == b""
            assert named.get("content-type") != "application/json"
            assert named.get("content-length", "0") == "0"


async def test_a_download_sends_one_request_and_no_range(
    drift: Any, box: Sandbox, tmp_path: Path
) -> None:
    assert await drift.conversations.download_attachment(700_002, tmp_path / "x", max_bytes=4096)
    assert [(one.method, one.raw_path, one.body) for one in box.seen] == [
        ("GET", "/attachments/700002/data", b"")
    ]
    assert "range" not in {name.lower() for name, _ in box.seen[0].headers}


async def test_an_attempt_is_repeated_with_the_same_bytes(
    make: Any, box: Sandbox, tmp_path: Path
) -> None:
    box.fail("contacts.create", status=503, times=2)
    retry = drift_async.Retry(base=0, throttled_base=0)
    async with make(box.token, base_url=box.url, retry=retry) as drift:
        await drift.contacts.create("zoë@x.example", attributes={"b": 1, "a": 2, "c": 0.1})
    assert len(box.seen) == 3
    assert len({(one.method, one.raw_path, one.body) for one in box.seen}) == 1


async def test_nothing_is_sent_before_the_first_step_of_a_walk(drift: Any, box: Sandbox) -> None:
    pagers = drift.accounts.all(), drift.conversations.all(), drift.scim.all(), drift.users.all()
    assert box.seen == []
    await pagers[0].first()
    assert len(box.seen) == 1


async def test_get_many_without_ids_sends_nothing(drift: Any, box: Sandbox) -> None:
    assert await drift.users.get_many([]) == {}
    assert box.seen == []
