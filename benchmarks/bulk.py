"""Measure bulks: reading many contacts, against a loop over `requests`, and how memory grows.

    python -m benchmarks.bulk [--quick] [--only P5,memory] [--json] [--items 1000000]

Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import drift_async.sync
from benchmarks.cases import TOKEN, installed, reading_with
from benchmarks.measure import Lane, Row, Target, compare, serving, wall
from benchmarks.overhead import LINE, line
from drift_async import Drift

READS = 2_000
LATENCY = 0.02
MEBIBYTE = 1024 * 1024
MAY_GROW = 64


def p5(quick: bool) -> Iterator[Row]:
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
            total = READS // 10 if quick else READS
            reads = reads // 10 if quick else reads
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
                        rounds=1 if quick else 6,
                        calls=total,
                    )
            yield compare(
                "P5",
                f"get_many, {what}",
                "the awaited face",
                Target(1.10),
                ours,
                wall(partial(run_awaited, runner, awaited, total)),
                rounds=1 if quick else 18,
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


def memory(items: int) -> dict[str, Any]:
    """Read very many contacts out of a generator, and return by how much the peak has grown."""
    with serving() as server, drift_async.sync.Drift(TOKEN, base_url=server.url) as drift:
        blocking_bulk(drift, READS)  # connections, caches and code are there
        before = peak()
        bulk = drift.contacts.get_many(number for number in range(1, items + 1))
        last = 0
        for outcome in bulk:
            last += 1
            assert outcome.value.id == last, "not in order"
        assert last == items
        return {"items": items, "grown_mib": round((peak() - before) / MEBIBYTE, 1)}


def peak() -> int:
    """Return the most bytes that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> int:
    """Measure what was asked for, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one short round, no verdict")
    parser.add_argument("--only", default="P5,memory", help="P5 or memory")
    parser.add_argument("--items", type=int, default=1_000_000, help="how many for memory")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    wanted = options.only.lower().split(",")
    show: Callable[..., None] = (lambda *_, **__: None) if options.json else print
    rows: list[Row] = []
    show(LINE.format("id", "what", "against", "ratio", "quartiles", "target", "", "A/A"))
    if "p5" in wanted:
        for row in p5(options.quick):
            rows.append(row)
            show(line(row), flush=True)
    missed = [row for row in rows if not row.met]
    grown: dict[str, Any] = {}
    if "memory" in wanted:
        grown = memory(READS // 10 if options.quick else options.items)
        show("{items:,} items: peak memory grew by {grown_mib} MiB".format(**grown))
    if options.json:
        told = [asdict(row) | {"met": row.met} for row in rows]
        print(json.dumps({"rows": told, "memory": grown}, indent=1))
    too_much = grown.get("grown_mib", 0) >= MAY_GROW
    return 1 if (missed or too_much) and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
