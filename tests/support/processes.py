"""Runs programs on the blocking face in processes of their own, and a server that never answers."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

BOUND = 5.0

PREAMBLE = """
import asyncio, contextlib, gc, json, logging, multiprocessing, os, signal, sys, threading, time
from drift_async.sync import ClosedError, Drift, DriftError, ForkError, WrongLoopError
env = json.loads(sys.argv[1])
def say(value): print(json.dumps(value), flush=True)
# Developers' mode also tells of slow turns of the loop, and so of how busy the machine is.
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing"))
"""

# Newer Pythons warn about any fork beside threads; here that is the point.
QUIET_FORK = ("-W", "ignore:This process:DeprecationWarning")


async def run(
    env: dict[str, str],
    text: str,
    *,
    ready: asyncio.Event | None = None,
    options: Any = ("-X", "dev"),
) -> list[Any]:
    """Run a program, with Ctrl-C once it is *ready*, and return what it said, line by line."""
    program = PREAMBLE + textwrap.dedent(text)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *options,
        "-c",
        program,
        json.dumps(env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(BOUND * 2):  # half of it for a slow start of the interpreter
            if ready is not None:
                await ready.wait()
                process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert err.decode() == ""
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[dict[str, str], asyncio.Event]]:
    """A server that takes requests and never answers; the event tells that one is in."""
    arrived = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A process that ends may have connected without having sent anything.
        with suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            arrived.set()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield {"DRIFT_TOKEN": "t", "DRIFT_BASE_URL": f"http://127.0.0.1:{port}"}, arrived
    finally:
        server.close()


FORKED = pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork")
