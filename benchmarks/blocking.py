"""P4: blocking calls, against sessions of blocking clients, in calls a second on all cores."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import drift_async.sync
from drift_async.sync import portal

from .harness import HEADERS, TOKEN, Bench, installed, reading_with, threaded
from .measure import Row, Target, wall


def p4(bench: Bench) -> Iterator[Row]:
    """Calls to a dict; the peers get a session for each thread, as they are not made to share."""
    for loop, peer, threads, bound in (
        ("asyncio", "requests", 1, 1.8),
        ("asyncio", "requests", 8, 4.0),
        ("uvloop", "requests", 1, None),
        ("uvloop", "requests", 8, None),
        ("asyncio", "niquests", 8, None),
    ):
        if installed(loop) and installed(peer):
            yield _compared(bench, loop, peer, threads, Target(bound, at_least=True))


def _compared(bench: Bench, loop: str, peer: str, threads: int, target: Target) -> Row:
    url = f"{bench.server.url}/contacts/7"
    calls = bench.calls(400, 8)
    with reading_with(json.loads), blocking_client(bench, loop) as drift:
        theirs, close = sessions(peer, url, threads)
        try:
            return bench.compare(
                "P4",
                f"blocking request, {loop}, {threads} thread{'s' * (threads > 1)}",
                f"{peer}.Session, calls/s",
                target,
                wall(threaded([partial(drift.request, "GET", "/contacts/7")] * threads, calls)),
                wall(threaded(theirs, calls)),
                rounds=18,
                calls=calls,
            )
        finally:
            close()


@contextlib.contextmanager
def blocking_client(bench: Bench, loop: str) -> Iterator[drift_async.sync.Drift]:
    """Give an open client that runs on that kind of *loop*, whatever is installed."""
    before = portal._loop_factory
    if loop == "asyncio":
        portal._loop_factory = _asyncio
    try:
        with drift_async.sync.Drift(TOKEN, base_url=bench.server.url) as drift:
            yield drift
    finally:
        portal._loop_factory = before


@functools.cache
def _asyncio() -> Callable[[], asyncio.AbstractEventLoop]:
    return asyncio.new_event_loop


def sessions(name: str, url: str, count: int) -> tuple[list[Callable[[], Any]], Callable[[], None]]:
    """Return a call for each of *count* sessions of a peer, and what closes them."""
    library = import_module(name)
    made = [library.Session() for _ in range(count)]
    for session in made:
        session.headers.update(HEADERS)

    def call(session: Any) -> Any:
        return session.get(url).json()

    def close() -> None:
        for session in made:
            session.close()

    return [partial(call, session) for session in made], close
