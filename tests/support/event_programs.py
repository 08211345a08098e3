"""Runs small programs against a sandbox in this process, on either face, as a person would."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
import time
from collections.abc import Mapping

import attrs

BOUND = 15.0

AWAITED = """
import asyncio, contextlib, json, logging, os, sys, time
from drift_async import Drift, DriftEvents, Hit, SegmentStream, Track
env = json.loads(sys.argv[1])
def say(value):
    print(json.dumps(value), flush=True)
"""
BLOCKING = AWAITED.replace("from drift_async import", "from drift_async.sync import")


@attrs.frozen
class Ended:
    """What a program said, line by line, and how long it ran."""

    said: list[object]
    errors: str
    seconds: float
    code: int | None


async def run(
    env: Mapping[str, str], program: str, *, face: str = "blocking", options: tuple[str, ...] = ()
) -> Ended:
    """Run a program: as it stands (``plain``), as the body of a coroutine, or by the twin law."""
    program = textwrap.dedent(program)
    if face == "awaited":
        body = textwrap.indent(program, "    ")
        program = f"{AWAITED}\nasync def main():\n{body}\nasyncio.run(main())\n"
    elif face == "plain":
        program = AWAITED + program
    else:
        program = BLOCKING + program.replace("await ", "").replace("async ", "")
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", *options),
        *("-c", program, json.dumps(dict(env))),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(BOUND):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(
        [json.loads(line) for line in out.splitlines()],
        errors.decode(),
        time.monotonic() - began,
        process.returncode,
    )
