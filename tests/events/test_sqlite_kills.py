"""Many events through cuts, refusals, an outage and killed processes: none lost, in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from drift_async import Retry, SegmentStream
from tests.support.server import Got, reply

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there"),
]

USERS = 50
WINDOW = 16

WORKER = """
import asyncio, json, logging, sys
from drift_async import Retry, SegmentStream
logging.disable()

async def main(folder, url, first, last):
    retry = Retry(base=0.01, throttled_base=0.01, cap=0.1)
    stream = SegmentStream("t", base_url=url, outbox=folder, retry=retry, max_events=2000)
    async with stream:
        async def accept(user):
            for n in range(first, last):
                if n % 50 == user:
                    await stream.track({"n": n}, user_id=str(user), hit_id=str(n))
                    print(n)
                    sys.stdout.flush()
        await asyncio.gather(*(accept(user) for user in range(50)))
        await stream.close(60)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


@attrs.define
class Sink:
    """A server with faults that keeps what it applied, in order, and counts what it then cut."""

    chance: random.Random
    applied: list[dict[str, Any]] = attrs.Factory(list)
    times: Counter[str] = attrs.Factory(Counter)
    changed: int = 0
    cuts: int = 0
    is_down: bool = False
    bodies: dict[str, bytes] = attrs.Factory(dict)

    def answer(self, got: Got) -> bytes | None:
        dice = self.chance.random()
        if self.is_down:
            return None
        if dice < 0.05:
            return reply(b"", "503 Busy")
        if dice < 0.075:
            return None
        event = json.loads(got.body)
        hit_id = event["hitId"]
        self.times[hit_id] += 1
        if hit_id not in self.bodies:
            self.bodies[hit_id] = got.body
            self.applied.append(event["event"])
        self.changed += self.bodies[hit_id] != got.body
        if dice < 0.1:
            self.cuts += 1
            return None
        return reply(b"", "204 No Content")


@contextlib.asynccontextmanager
async def serving(sink: Sink) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                body = await reader.readexactly(size)
                out = sink.answer(Got("POST", "/track", {}, body))
                if out is None:
                    break
                writer.write(out)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def accepted(folder: Path, url: str, first: int, last: int, seconds: float) -> set[int]:
    """Have a worker accept events, killed after a while; return what it acknowledged."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", WORKER, str(folder), url, str(first), str(last)),
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    assert process.stdout is not None
    lines = [await process.stdout.readline()]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while line := await process.stdout.readline():
                lines.append(line)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    lines += (await process.communicate())[0].splitlines(keepends=True)
    return {int(line) for line in lines if line.endswith(b"\n")}


@pytest.mark.parametrize(
    ("count", "kills", "outage"),
    [(600, 2, 0.1), pytest.param(50_000, 40, 30.0, marks=pytest.mark.slow)],
)
async def test_every_acknowledged_event_arrives_once_and_in_order(
    tmp_path: Path, count: int, kills: int, outage: float
) -> None:
    sink = Sink(random.Random(7))
    acknowledged: set[int] = set()
    async with serving(sink) as url:

        async def goes_down() -> None:
            await asyncio.sleep(outage / 3)
            sink.is_down = True
            await asyncio.sleep(outage)
            sink.is_down = False

        trouble = asyncio.create_task(goes_down())
        for seconds in [
            *(sink.chance.uniform(0.1, 0.1 + count / kills / 1000) for _ in range(kills)),
            300.0,
        ]:
            # What the last one had begun and not acknowledged is not offered again.
            first = max(acknowledged) + USERS + 1 if acknowledged else 0
            acknowledged |= await accepted(tmp_path, url, first, count, seconds)
        await trouble
        retry = Retry(base=0.01, throttled_base=0.01, cap=1.0)
        async with SegmentStream("t", base_url=url, outbox=tmp_path, retry=retry) as stream:
            await asyncio.sleep(0.2)  # until it has looked for files of others
            stats = await stream.flush(120)
    assert stats.pending == 0
    assert stats.dead == 0
    arrived = [event["n"] for event in sink.applied]
    assert len(arrived) == len(set(arrived))
    assert acknowledged <= set(arrived)
    assert sink.changed == 0
    for user in range(USERS):
        mine = [n for n in arrived if n % USERS == user]
        assert mine == sorted(mine), user
    repeats = sum(sink.times.values()) - len(sink.times)
    assert repeats <= sink.cuts + kills * WINDOW
    assert len(acknowledged) > 0.6 * count
