"""P4: blocking calls, against sessions of blocking clients, in calls a second on all cores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import drift_async.sync

from .harness import HEADERS, TOKEN, Bench, installed, reading_with, threaded
from .measure import Row, Target, wall


def p4(bench: Bench) -> Iterator[Row]:
    """Calls to a dict; the peers get a session for each thread, as they are not made to share."""
    url = f"{bench.server.url}/contacts/7"
    calls = bench.calls(400, 8)
    with (
        reading_with(json.loads),
        drift_async.sync.Drift(TOKEN, base_url=bench.server.url) as drift,
    ):
        ours = partial(drift.request, "GET", "/contacts/7")
        for name, threads, target in (
            ("requests", 1, Target(2.0, at_least=True)),
            ("requests", 8, Target(4.0, at_least=True)),
            ("niquests", 8, Target(at_least=True)),
        ):
            if not installed(name):
                continue
            theirs, close = sessions(name, url, threads)
            yield bench.compare(
                "P4",
                f"blocking request, {threads} thread{'s' * (threads > 1)}",
                f"{name}.Session, calls/s",
                target,
                wall(threaded([ours] * threads, calls)),
                wall(threaded(theirs, calls)),
                rounds=18,
                calls=calls,
            )
            close()


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
