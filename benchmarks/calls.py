"""P1, P2, P3: an awaited call, against aiohttp below it and httpx beside it, in CPU time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import aiohttp
from yarl import URL

from drift_async import Drift

from .harness import (
    HEADERS,
    TOKEN,
    AsyncCall,
    Bench,
    Loads,
    awaited,
    codecs,
    installed,
    reading_with,
)
from .measure import Row, Spread, Target, pinned

IN_FLIGHT = (1, 16, 64)


def p1(bench: Bench) -> Iterator[Row]:
    """A call to a dict against the least that aiohttp's public interface can do."""
    ratios = []
    for name, loads in codecs():
        with _client(bench) as (runner, drift), reading_with(loads):
            bare, close = runner.run(bare_call(bench, loads))
            ours = partial(drift.request, "GET", "/contacts/7")
            assert runner.run(ours()) == runner.run(bare())
            for tasks in IN_FLIGHT:
                row = _compared(
                    bench, runner, "P1", f"request, {name}, {tasks} in flight",
                    "bare aiohttp", Target(1.20), tasks, ours, bare,
                )  # fmt: skip
                ratios.append(row.ratio.median)
                yield row
            runner.run(close())
    yield Row("P1", "request, all of these", "bare aiohttp", Target(1.12), Spread.of(ratios))


def p2(bench: Bench) -> Iterator[Row]:
    """A typed call against aiohttp as its first page shows it."""
    for name, loads in codecs():
        with _client(bench) as (runner, drift), reading_with(loads):
            session = runner.run(_naive_session())
            url = f"{bench.server.url}/contacts/7"

            async def naive(session: aiohttp.ClientSession = session, url: str = url) -> Any:
                async with session.get(url) as response:
                    return await response.json()

            ours = partial(drift.contacts.get, 7)
            assert runner.run(ours()).extra == {"leadStage": "qualified"}
            target = Target(1.05 if name == "json" else 1.00)
            for tasks in IN_FLIGHT:
                yield _compared(
                    bench, runner, "P2", f"contacts.get, {name}, {tasks} in flight",
                    "naive aiohttp, json", target, tasks, ours, naive,
                )  # fmt: skip
            runner.run(session.close())


def p3(bench: Bench) -> Iterator[Row]:
    """A typed call against the clients that people reach for first, to a dict."""
    for name, open_peer, target in (
        ("httpx", _httpx, Target(0.20)),
        ("niquests", _niquests, Target()),
    ):
        if not installed(name):
            continue
        with _client(bench) as (runner, drift), reading_with(json.loads):
            theirs, close = runner.run(open_peer(f"{bench.server.url}/contacts/7"))
            ours = partial(drift.contacts.get, 7)
            assert runner.run(ours()).id == runner.run(theirs())["data"]["id"]
            yield _compared(
                bench, runner, "P3", "contacts.get, json, 16 in flight",
                f"{name}, to a dict", target, 16, ours, theirs, rounds=18,
            )  # fmt: skip
            runner.run(close())


async def _httpx(url: str) -> tuple[AsyncCall, AsyncCall]:
    import httpx

    client = httpx.AsyncClient(headers=HEADERS)

    async def call() -> Any:
        return (await client.get(url)).json()

    return call, client.aclose


async def _niquests(url: str) -> tuple[AsyncCall, AsyncCall]:
    session = import_module("niquests").AsyncSession()
    session.headers.update(HEADERS)

    async def call() -> Any:
        return (await session.get(url)).json()

    return call, session.close


@contextlib.contextmanager
def _client(bench: Bench) -> Iterator[tuple[asyncio.Runner, Drift]]:
    """Give a loop on the first core, and a client that is open in it."""
    with pinned(), asyncio.Runner() as runner:
        drift = Drift(TOKEN, base_url=bench.server.url)
        runner.run(drift.open())
        try:
            yield runner, drift
        finally:
            runner.run(drift.close())


async def bare_call(
    bench: Bench, loads: Loads, connections: int = 100
) -> tuple[AsyncCall, AsyncCall]:
    """Return a call by aiohttp alone, and what closes its session."""
    session = aiohttp.ClientSession(
        headers=HEADERS,
        connector=aiohttp.TCPConnector(limit=connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
    )
    url = URL(f"{bench.server.url}/contacts/7", encoded=True)

    async def call() -> Any:
        response = await session.get(url)
        return loads(await response.read())

    return call, session.close


async def _naive_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers=HEADERS)


def _compared(
    bench: Bench,
    runner: asyncio.Runner,
    id: str,
    what: str,
    against: str,
    target: Target,
    tasks: int,
    ours: AsyncCall,
    peer: AsyncCall,
    *,
    rounds: int = 36,
) -> Row:
    calls = bench.calls(384, 64)
    return bench.compare(
        id,
        what,
        against,
        target,
        awaited(runner, ours, tasks, calls),
        awaited(runner, peer, tasks, calls),
        rounds=rounds,
        calls=calls,
    )
