"""What the attempts of a call put on the wire, and what they leave at the server."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from drift_async import OutcomeUnknownError, Retry
from drift_async.sandbox import Sandbox
from tests.support.proxy import Chaos, Proxy
from tests.support.server import Got, Server, reply

pytestmark = pytest.mark.anyio

AT_ONCE = Retry(base=0, throttled_base=0)
CONVERSATION = 4_300_000_000


def payloads(chance: random.Random) -> Iterator[Any]:
    """Give JSON values without end."""

    def value(depth: int) -> Any:
        match chance.randrange(5 + 2 * (depth < 4)):
            case 0:
                return chance.choice([None, True, False])
            case 1:
                return chance.randrange(-(2**63), 2**63)
            case 2:
                return chance.uniform(-1, 1) * 10.0 ** chance.randrange(-300, 300)
            case 3 | 4:
                return text()
            case 5:
                return [value(depth + 1) for _ in range(chance.randrange(5))]
        return {text(): value(depth + 1) for _ in range(chance.randrange(5))}

    def text() -> str:
        return "".join(chance.choices('aZ0 "\\/\n\t\x7fé☂🙂\u2028', k=chance.randrange(20)))

    while True:
        yield {text(): value(0) for _ in range(1 + chance.randrange(8))}


async def test_all_attempts_send_the_same_bytes(make: Any) -> None:
    def answer(n: int, _: Got) -> bytes | None:
        return None if n % 3 else reply()

    some = payloads(random.Random("bodies"))
    async with Server(answer) as server:
        for _ in range(50):  # one client would soon have used up its retries
            async with make("token", base_url=server.url, retry=AT_ONCE) as drift:
                for _ in range(20):
                    await drift.request("POST", "/x", json=next(some), effect="idempotent")
    sums = [hashlib.sha256(got.body).hexdigest() for got in server.got]
    assert len(sums) == 3000
    assert sums[0::3] == sums[1::3] == sums[2::3]
    assert len(set(sums)) > 950


async def test_no_message_is_posted_twice_through_connections_that_break(make: Any) -> None:
    calls, chance = 1000, random.Random("cuts")

    def requests(_: int) -> Chaos | None:
        return Chaos(cut="after", reset=chance.random() < 0.5) if chance.random() < 0.2 else None

    async with Sandbox() as box:
        port = int(box.url.rpartition(":")[2])
        async with (
            Proxy(port, requests) as proxy,
            make(box.token, base_url=proxy.url, retry=AT_ONCE) as drift,
        ):
            numbers, unknown = iter(range(calls)), Counter[bool | None]()

            async def post() -> None:
                for number in numbers:
                    try:
                        await drift.conversations.create_message(CONVERSATION, f"<p>{number}</p>")
                    except OutcomeUnknownError as error:
                        unknown[error.applied] += 1

            await asyncio.gather(*(post() for _ in range(16)))
        assert unknown == {None: proxy.cuts}
        assert proxy.cuts > calls / 10
        async with make(box.token, base_url=box.url) as drift:
            bodies = [m.body async for m in drift.conversations.messages(CONVERSATION)]
    posted = Counter(bodies)
    assert [posted[f"<p>{number}</p>"] for number in range(calls)] == [1] * calls
