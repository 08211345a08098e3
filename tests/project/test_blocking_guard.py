"""The whole suite runs under a guard against calls that block an event loop; it is awake."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockingError

import drift_async
from drift_async.sync.portal import LoopThread


def sleepy(file: str) -> Coroutine[Any, Any, None]:
    """Return a coroutine that sleeps as if it stood in a file of the package."""
    path = Path(drift_async.__file__).parent / file
    scope: dict[str, Any] = {"time": time}
    exec(compile("async def nap(): time.sleep(0.001)", path, "exec"), scope)
    nap: Coroutine[Any, Any, None] = scope["nap"]()
    return nap


@pytest.mark.anyio
@pytest.mark.parametrize("file", ["client.py", "core/call.py", "resources/users.py"])
async def test_a_sleep_on_the_loop_is_found(file: str) -> None:
    with pytest.raises(BlockingError):
        await sleepy(file)


@pytest.mark.anyio
async def test_the_sandbox_may_sleep() -> None:
    await sleepy("sandbox/server.py")


def test_a_sleep_on_the_thread_of_a_blocking_client_is_found() -> None:
    thread = LoopThread()
    with pytest.raises(BlockingError):
        thread.run(sleepy("core/call.py"))
    thread.stop()
