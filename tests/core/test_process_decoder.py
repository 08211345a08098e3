"""Large bodies are read in a thread, so that everything else on the event loop goes on."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from drift_async import DecodeError, Drift
from drift_async.core import strict_json
from drift_async.core.process import DECODE_IN_THREAD_BYTES
from tests.support.server import Server, reply

ATTRIBUTES = json.dumps({f"attribute_{n}": f"the value of {n}" for n in range(9)})


def page(size: int) -> bytes:
    """Return a page of contacts of about so many bytes."""
    row = '{"id": %d, "createdAt": 1664572604326, "attributes": ' + ATTRIBUTES + "}"
    rows = (row % n for n in range(10**10, 10**10 + size // len(row) + 1))
    return f'{{"data": [{", ".join(rows)}]}}'.encode()


CALLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "plain": lambda drift: drift.contacts.find_by_external_id("x"),
    "walk": lambda drift: drift.contacts.find_by_email("a@b.example", limit=100_000),
    "request": lambda drift: drift.request("GET", "/x"),
}


class Reader:
    """The JSON library, watched: in which thread it reads; it can be held up."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.reading = threading.Event()

    def loads(self, body: bytes) -> Any:
        self.threads.append(threading.current_thread().name)
        self.reading.set()
        assert len(body) < DECODE_IN_THREAD_BYTES or self.go.wait(10)
        return json.loads(body)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    reader = Reader()
    monkeypatch.setattr(strict_json, "_fast_loads", reader.loads)
    yield reader
    reader.go.set()


@pytest.mark.anyio
@pytest.mark.parametrize("call", CALLS)
async def test_a_large_body_is_read_elsewhere_and_a_small_one_at_once(
    make: Any, reader: Reader, call: str
) -> None:
    sizes = iter((DECODE_IN_THREAD_BYTES // 2, DECODE_IN_THREAD_BYTES + 1000))
    async with (
        Server(lambda n, got: reply(page(next(sizes)))) as server,
        make("t", base_url=server.url) as drift,
    ):
        small, large = [await CALLS[call](drift) for _ in range(2)]
    loop, elsewhere = reader.threads
    assert "reader" not in loop
    assert "reader" in elsewhere
    small, large = [got["data"] if call == "request" else got for got in (small, large)]
    assert len(large) > len(small) > 1000
    assert large[0] == small[0]


@pytest.mark.anyio
@pytest.mark.parametrize("call", CALLS)
async def test_a_large_body_that_does_not_fit_is_the_same_error(make: Any, call: str) -> None:
    body = page(DECODE_IN_THREAD_BYTES + 1000)
    for wrong in (
        body[:-1],
        body.replace(b'"data"', b'"data": 5, "x"'),
        b"[" * (DECODE_IN_THREAD_BYTES + 1000),
    ):
        async with Server(reply(wrong)) as server, make("t", base_url=server.url) as drift:
            if call == "request" and wrong[-1:] == b"}":
                assert (await CALLS[call](drift))["data"] == 5
                continue
            with pytest.raises(DecodeError) as caught:
                await CALLS[call](drift)
            assert (caught.value.applied, caught.value.status) == (True, 200)
            assert len(str(caught.value)) < 1000


@pytest.mark.anyio
async def test_a_call_cancelled_while_its_reply_is_read_ends_at_once(reader: Reader) -> None:
    async with (
        Server(reply(page(DECODE_IN_THREAD_BYTES + 1000))) as server,
        Drift("t", base_url=server.url) as drift,
    ):
        reader.go.clear()
        # The second waits for the thread, which the first has.
        calls = [asyncio.ensure_future(CALLS["plain"](drift)) for _ in range(2)]
        assert await asyncio.to_thread(reader.reading.wait, 5)
        for call in calls:
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        reader.go.set()
        assert len(await drift.contacts.find_by_external_id("x")) > 1000
        assert len(reader.threads) <= 3


@pytest.mark.anyio
async def test_other_calls_go_on_while_a_large_reply_is_read(make: Any, reader: Reader) -> None:
    def answer(n: int, _: Any) -> bytes:
        return reply(page(DECODE_IN_THREAD_BYTES + 1000) if n == 1 else b'{"data": []}')

    async with Server(answer) as server, make("t", base_url=server.url) as drift:
        reader.go.clear()
        large = asyncio.ensure_future(CALLS["plain"](drift))
        assert await asyncio.to_thread(reader.reading.wait, 5)
        assert await CALLS["plain"](drift) == []
        assert not large.done()
        reader.go.set()
        assert len(await large) > 1000


# Newer Pythons warn about any fork beside threads; here that is the point.
QUIET_FORK = ("-W", "ignore:This process:DeprecationWarning")


def run(program: str) -> list[str]:
    """Return what a program prints, line by line; it has to end well, with nothing on stderr."""
    head = "import asyncio, atexit, os, sys\nfrom drift_async.core.process import run_in_decoder\n"
    done = subprocess.run(
        [sys.executable, *QUIET_FORK, "-c", head + textwrap.dedent(program)],
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert (done.stderr.decode(), done.returncode) == ("", 0)
    return done.stdout.decode().splitlines()


@pytest.mark.parametrize("used_before", [True, False])
def test_at_interpreter_exit_it_is_read_at_once(used_before: bool) -> None:
    said = run(f"""
        async def main(text):
            print(await run_in_decoder(len, text))
        atexit.register(lambda: asyncio.run(main("at exit")))
        if {used_before}:
            asyncio.run(main("before"))
        """)
    assert said == [*(["6"] if used_before else []), "7"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_has_a_thread_of_its_own() -> None:
    said = run("""
        async def main(text):
            async with asyncio.timeout(5):
                os.write(1, b"%d\\n" % await run_in_decoder(len, text))  # a line in one piece
        asyncio.run(main("parent"))
        child = os.fork()
        asyncio.run(main("both"))
        if child:
            os.waitpid(child, 0)
        """)
    assert said == ["6", "4", "4"]


# -- in figures


class Gaps:
    """Measures for how long the event loop did nothing else."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> Gaps:
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0.01)
        self.longest = 0.0
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0.01)
        self._task.cancel()

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last)
            last = now


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("library", ["json", "orjson"])
async def test_a_page_of_15_mb_holds_the_loop_no_longer_than_its_parser(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = pytest.importorskip(library).loads
    monkeypatch.setattr(strict_json, "_fast_loads", None if library == "json" else loads)
    body, ratios = page(15_000_000), []
    async with Server(reply(body)) as server, Drift("t", base_url=server.url) as drift:
        for _ in range(7):
            gc.collect()
            async with Gaps() as bare:
                loads(body)
            gc.collect()
            async with Gaps() as ours:
                contacts = await drift.contacts.find_by_external_id("x")
            assert len(contacts) > 30_000
            del contacts
            ratios.append(ours.longest / bare.longest)
    assert sorted(ratios)[3] <= 1.5, ratios
