"""P5, G3: reading many contacts, against a loop over `requests`, and how memory grows."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import drift_async.sync
from drift_async import Drift

from .harness import TOKEN, Bench, installed, reading_with
from .measure import Lane, Row, Spread, Target, compare, serving, wall

READS = 2_000
LATENCY = 0.02
MEBIBYTE = 1024 * 1024
MAY_GROW = 64


def p5(bench: Bench) -> Iterator[Row]:
    """A blocking bulk against a loop over requests.Session, and the twin against its core.

    The loop reads fewer contacts where each of them takes 20 ms, and counts for as many.
    """
    for delay, bound, reads in ((0.0, 5.0, READS), (LATENCY, 20.0, 100)):
        with (
            serving(delay) as server,
            reading_with(json.loads),
            drift_async.sync.Drift(TOKEN, base_url=server.url) as drift,
            asyncio.Runner() as runner,
        ):
            what = f"{delay * 1000:.0f} ms latency"
            total = bench.calls(READS, READS // 10)
            reads = bench.calls(reads, reads // 10)
            awaited = Drift(TOKEN, base_url=server.url)
            runner.run(awaited.open())
            ours = wall(partial(blocking_bulk, drift, total))
            if installed("requests"):
                import requests

                with requests.Session() as session:
                    loop = partial(requests_loop, session, server.url, min(reads, total))
                    yield compare(
                        "P5",
                        f"get_many, {what}",
                        "requests.Session",
                        Target(bound, at_least=True),
                        ours,
                        partial(in_proportion, wall(loop), total / min(reads, total)),
                        rounds=bench.rounds(6),
                        calls=total,
                    )
            yield compare(
                "P5",
                f"get_many, {what}",
                "the awaited face",
                Target(1.10),
                ours,
                wall(partial(run_awaited, runner, awaited, total)),
                rounds=bench.rounds(18),
                calls=total,
            )
            runner.run(awaited.close())


def blocking_bulk(drift: drift_async.sync.Drift, total: int) -> None:
    """Read contacts, and look that they come in order."""
    for number, outcome in enumerate(drift.contacts.get_many(range(1, total + 1)), 1):
        assert outcome.value.id == number


async def awaited_bulk(drift: Drift, total: int) -> None:
    """Read contacts, and look that they come in order."""
    number = 0
    async for outcome in drift.contacts.get_many(range(1, total + 1)):
        number += 1
        assert outcome.value.id == number


def run_awaited(runner: asyncio.Runner, drift: Drift, total: int) -> None:
    """Read contacts on the awaited face."""
    runner.run(awaited_bulk(drift, total))


def in_proportion(lane: Lane, factor: float) -> float:
    """Return what a lane would cost with so many times the work."""
    return lane() * factor


def requests_loop(session: Any, url: str, total: int) -> None:
    """Read contacts one after the other."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for number in range(1, total + 1):
        value = session.get(f"{url}/contacts/{number}", headers=headers).json()
        assert value["data"]["id"] == number


def g3(bench: Bench) -> Iterator[Row]:
    """By how much the peak of memory grows over a million contacts."""
    items = bench.calls(1_000_000, READS // 10)
    with drift_async.sync.Drift(TOKEN, base_url=bench.server.url) as drift:
        blocking_bulk(drift, READS)  # connections, caches and code are there
        grown = grown_by(drift, items)
    what = f"get_many of {items:,}"
    yield Row("G3", what, "MiB the peak grew by", Target(MAY_GROW), Spread.of([grown]))


def grown_by(drift: drift_async.sync.Drift, items: int) -> float:
    """Read contacts out of a generator, and return by how many MiB the peak has grown."""
    before = peak()
    last = 0
    for outcome in drift.contacts.get_many(number for number in range(1, items + 1)):
        last += 1
        assert outcome.value.id == last, "not in order"
    assert last == items
    return (peak() - before) / MEBIBYTE


def peak() -> int:
    """Return the most bytes that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
