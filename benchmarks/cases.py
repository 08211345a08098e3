"""The measurements: what is called on either side, and what the ratio has to be."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp
from yarl import URL

import drift_async.sync
from drift_async import Drift
from drift_async.core import strict_json

from .measure import Row, Server, Target, compare, cpu, pinned, wall

TOKEN = "benchmark-token"
IN_FLIGHT = (1, 16, 64)

AsyncCall = Callable[[], Coroutine[Any, Any, Any]]
Loads = Callable[[bytes], Any]


@dataclass
class Bench:
    """The server, how long to measure, and what was seen of the server's load."""

    server: Server
    quick: bool = False
    busy: list[float] = field(default_factory=list)

    def rounds(self, thorough: int) -> int:
        """Return how many rounds to run."""
        return 1 if self.quick else thorough

    def calls(self, thorough: int, least: int) -> int:
        """Return how many calls make a block."""
        return least if self.quick else thorough


def installed(name: str) -> bool:
    """Tell whether there is a module of that name."""
    return importlib.util.find_spec(name) is not None


def codecs() -> Iterator[tuple[str, Loads]]:
    """Give the JSON readers to measure with."""
    yield "json", json.loads
    if installed("orjson"):
        import orjson

        yield "orjson", orjson.loads


@contextlib.contextmanager
def reading_with(loads: Loads) -> Iterator[None]:
    """Make the library read JSON with *loads*."""
    before = strict_json._fast_loads
    strict_json._fast_loads = None if loads is json.loads else loads
    try:
        yield
    finally:
        strict_json._fast_loads = before


def p1(bench: Bench) -> Iterator[Row]:
    """A call to a dict against the least that aiohttp's public interface can do."""
    for name, loads in codecs():
        with pinned(), asyncio.Runner() as runner, reading_with(loads):
            drift = Drift(TOKEN, base_url=bench.server.url)
            runner.run(drift.open())
            session = runner.run(_bare_session())
            url = URL(f"{bench.server.url}/contacts/7", encoded=True)

            async def bare(loads: Loads = loads, session: Any = session, url: URL = url) -> Any:
                response = await session.get(url)
                return loads(await response.read())

            ours = partial(drift.request, "GET", "/contacts/7")
            assert runner.run(ours()) == runner.run(bare())
            for tasks in IN_FLIGHT:
                yield _awaited(
                    bench, runner, "P1", f"request, {name}, {tasks} in flight",
                    "bare aiohttp", Target(1.10), tasks, ours, bare,
                )  # fmt: skip
            runner.run(session.close())
            runner.run(drift.close())


def p2(bench: Bench) -> Iterator[Row]:
    """A typed call against aiohttp as its first page shows it."""
    for name, loads in codecs():
        with pinned(), asyncio.Runner() as runner, reading_with(loads):
            drift = Drift(TOKEN, base_url=bench.server.url)
            runner.run(drift.open())
            session = runner.run(_naive_session())
            url = f"{bench.server.url}/contacts/7"

            async def naive(session: aiohttp.ClientSession = session, url: str = url) -> Any:
                async with session.get(url) as response:
                    return await response.json()

            ours = partial(drift.contacts.get, 7)
            assert runner.run(ours()).extra == {"leadStage": "qualified"}
            target = Target(1.05 if name == "json" else 1.00)
            for tasks in IN_FLIGHT:
                yield _awaited(
                    bench, runner, "P2", f"contacts.get, {name}, {tasks} in flight",
                    "naive aiohttp, json", target, tasks, ours, naive,
                )  # fmt: skip
            runner.run(session.close())
            runner.run(drift.close())


def p4(bench: Bench) -> Iterator[Row]:
    """Blocking calls against requests, on all cores."""
    if not installed("requests"):
        return
    import requests

    url = f"{bench.server.url}/contacts/7"
    calls = bench.calls(400, 8)
    with (
        reading_with(json.loads),
        drift_async.sync.Drift(TOKEN, base_url=bench.server.url) as drift,
    ):
        for threads, bound in ((1, 2.0), (8, 4.0)):
            sessions = [requests.Session() for _ in range(threads)]
            ours = [partial(drift.request, "GET", "/contacts/7")] * threads
            theirs = [partial(_requests_call, session, url) for session in sessions]
            with bench.server.watched(bench.busy):
                yield compare(
                    "P4",
                    f"blocking request, {threads} thread{'s' * (threads > 1)}",
                    "requests.Session, calls/s",
                    Target(bound, at_least=True, decides=threads == 1),
                    wall(partial(_threaded, ours, calls)),
                    wall(partial(_threaded, theirs, calls)),
                    rounds=bench.rounds(18),
                    calls=calls,
                )
            for session in sessions:
                session.close()


def p11(bench: Bench) -> Iterator[Row]:
    """Imports, each in an interpreter of its own."""
    # Compiled code is kept for the run, wherever the packages live and whatever the environment
    # says: installers compile, checkouts do not.
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        for statement, bound in (
            ("from drift_async import Drift", 1.3),
            ("import drift_async", 0.3),
        ):
            yield compare(
                "P11",
                statement,
                "import aiohttp",
                Target(bound),
                partial(_import, statement, env),
                partial(_import, "import aiohttp", env),
                rounds=bench.rounds(24),
            )


CASES: dict[str, Callable[[Bench], Iterator[Row]]] = {"P1": p1, "P2": p2, "P4": p4, "P11": p11}


async def _bare_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {TOKEN}"},
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
    )


async def _naive_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"})


def _awaited(
    bench: Bench,
    runner: asyncio.Runner,
    id: str,
    what: str,
    against: str,
    target: Target,
    tasks: int,
    ours: AsyncCall,
    peer: AsyncCall,
) -> Row:
    calls = bench.calls(384, 64)

    def block(call: AsyncCall) -> None:
        runner.run(_in_flight(call, tasks, calls))

    with bench.server.watched(bench.busy):
        return compare(
            id,
            what,
            against,
            target,
            cpu(partial(block, ours)),
            cpu(partial(block, peer)),
            rounds=bench.rounds(36),
            calls=calls,
        )


async def _in_flight(call: AsyncCall, tasks: int, calls: int) -> None:
    async def work() -> None:
        for _ in range(calls // tasks):
            await call()

    await asyncio.gather(*(work() for _ in range(tasks)))


def _threaded(calls: Sequence[Callable[[], Any]], total: int) -> None:
    def work(call: Callable[[], Any]) -> None:
        for _ in range(total // len(calls)):
            call()

    if len(calls) == 1:
        work(calls[0])
        return
    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _requests_call(session: Any, url: str) -> Any:
    return session.get(url, headers={"Authorization": f"Bearer {TOKEN}"}).json()


def _import(statement: str, env: dict[str, str]) -> float:
    clock = "from time import perf_counter as clock; began = clock()"
    program = f"{clock}; {statement}; print(clock() - began)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    return float(done.stdout)
