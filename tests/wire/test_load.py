"""Very many calls at once: bounded connections, bounded memory."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap

import pytest

from tests.support.server import Server, reply

pytestmark = pytest.mark.anyio

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from drift_async import Drift

def mebibytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024

async def main(url, calls):
    async with Drift("token", base_url=url, timeout=300) as drift:
        await asyncio.gather(*(drift.users.get(7) for _ in range(100)))
        before = mebibytes("VmRSS")
        got = await asyncio.gather(*(drift.users.get(7) for _ in range(calls)))
        return {"users": sum(user.id == 7 for user in got), "growth": mebibytes("VmHWM") - before}

print(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2])))))
"""


@pytest.mark.parametrize("calls", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_many_calls_at_once_are_bounded_in_connections_and_memory(calls: int) -> None:
    async with Server(reply(b'{"data": {"id": 7}}')) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            textwrap.dedent(PROGRAM),
            server.url,
            str(calls),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        told = json.loads(out)
        assert told["users"] == calls
        assert len(server.got) == calls + 100
        assert server.connections <= 100
        assert told["growth"] < calls / 100  # MiB
