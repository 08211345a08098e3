"""Name look-ups: their thread, their end, and what they leave behind."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest

from drift_async.core.resolver import Resolver

pytestmark = pytest.mark.anyio


async def test_it_gives_what_the_http_library_wants() -> None:
    resolver = Resolver()
    found = await resolver.resolve("localhost", 8900)
    assert found[0] == {
        "hostname": "localhost",
        "host": "127.0.0.1",
        "port": 8900,
        "family": socket.AF_INET,
        "proto": socket.IPPROTO_TCP,
        "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    }
    await resolver.close()


async def test_a_name_that_is_not_there_is_an_os_error_and_the_thread_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.getaddrinfo

    def fails(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "localhost":
            return real(host, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    resolver = Resolver()
    with pytest.raises(OSError, match="unknown"):
        await resolver.resolve("nowhere.example")
    assert await resolver.resolve("localhost")
    await resolver.close()


async def test_a_look_up_can_be_cancelled_and_its_answer_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()
    real = socket.getaddrinfo

    def slow(*args: Any, **kwargs: Any) -> Any:
        go_on.wait(5)
        return real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    resolver = Resolver()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await resolver.resolve("localhost")
    go_on.set()
    assert await resolver.resolve("localhost")
    await resolver.close()


def test_one_serves_several_loops_and_close_ends_the_thread() -> None:
    before = set(threading.enumerate())  # those of earlier tests may end meanwhile
    resolver = Resolver()
    for _ in range(2):
        assert asyncio.run(resolver.resolve("localhost"))
    new = set(threading.enumerate()) - before
    [ours] = [thread for thread in new if thread.name == "drift-async-resolver"]
    asyncio.run(resolver.close())
    ours.join(5)
    assert not ours.is_alive()


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=15
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.smoke
def test_it_answers_while_the_interpreter_ends_and_never_holds_it_up() -> None:
    said = run(
        """
        import asyncio, atexit, socket, time
        from drift_async.core.resolver import Resolver
        resolver = Resolver()
        def at_exit():
            print(asyncio.run(resolver.resolve("localhost"))[0]["host"])
            socket.getaddrinfo = lambda *args, **kwargs: time.sleep(60)
            async def hangs():
                asyncio.ensure_future(resolver.resolve("localhost"))
                await asyncio.sleep(0.01)
            asyncio.run(hangs())
        atexit.register(at_exit)
        """
    )
    assert said == "127.0.0.1\n"
