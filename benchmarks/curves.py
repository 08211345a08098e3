"""How cost grows with size. None of these may bend upwards.

    python -m benchmarks.curves [NAME ...] [--quick]

Prints the points, and draws them into `benchmarks/plots/` where matplotlib is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import drift_async.sync
from drift_async import Drift, DriftEvents

from .blocking import blocking_client, sessions
from .bulk import grown_by
from .calls import bare_call
from .events import ATTRIBUTES, NAME, USERS
from .harness import TOKEN, AsyncCall, Bench, awaited, installed, reading_with, threaded
from .measure import Lane, cpu, pinned, serving, wall

LaneOf = Callable[[int], tuple[Lane, int]]
"""Returns what measures a size, and how many units of work that is."""

PLOTS = Path(__file__).with_name("plots")


@dataclass(frozen=True)
class Curve:
    """Points by line: a size, and what it cost."""

    title: str
    size: str
    cost: str
    lines: dict[str, list[tuple[int, float]]]


def in_flight(bench: Bench) -> Curve:
    """The CPU time of a call, from 1 to 1,024 at once."""
    sizes, calls = _sizes(bench, 1, 1024, 4), bench.calls(1024, 64)
    with pinned(), asyncio.Runner() as runner, reading_with(json.loads):
        drift = Drift(TOKEN, base_url=bench.server.url, max_connections=1024)
        runner.run(drift.open())
        bare, close = runner.run(bare_call(bench, json.loads, connections=1024))

        def lane_of(call: AsyncCall) -> LaneOf:
            return lambda size: (awaited(runner, call, size, calls), calls)

        ours = partial(drift.request, "GET", "/contacts/7")
        lanes = {"drift.request": lane_of(ours), "bare aiohttp": lane_of(bare)}
        lines = _measured(bench, sizes, lanes)
        runner.run(close())
        runner.run(drift.close())
    return Curve("A call by calls in flight", "calls in flight", "CPU us a call", lines)


def threads(bench: Bench) -> Curve:
    """The time of a blocking call, from 1 to 64 threads on one client."""
    sizes = _sizes(bench, 1, 64, 2)
    with (
        reading_with(json.loads),
        blocking_client(bench, "asyncio") as drift,
        contextlib.ExitStack() as stack,
    ):

        def lane_of(calls: Sequence[Callable[[], Any]]) -> LaneOf:
            return lambda size: (wall(threaded(calls[:size], 256)), 256)

        ours = partial(drift.request, "GET", "/contacts/7")
        lanes = {"one drift_async.sync.Drift": lane_of([ours] * 64)}
        if installed("requests"):
            theirs, close = sessions("requests", f"{bench.server.url}/contacts/7", 64)
            stack.callback(close)
            lanes["a requests.Session a thread"] = lane_of(theirs)
        lines = _measured(bench, sizes, lanes)
    return Curve("A blocking call by threads", "threads", "us a call, all threads", lines)


def pages(bench: Bench) -> Curve:
    """The CPU time of a page, in walks over 10 to 10,000 pages of 25 conversations."""
    sizes = _sizes(bench, 10, 10_000, 10)
    with pinned(), asyncio.Runner() as runner, reading_with(json.loads):
        drift = Drift(TOKEN, base_url=f"{bench.server.url}/walk")
        runner.run(drift.open())

        async def walk(size: int) -> None:
            seen = 0
            async for page in drift.conversations.all(page_size=25).pages():
                assert len(page.items) == 25
                seen += 1
                if seen == size:
                    break

        def walks(size: int) -> tuple[Lane, int]:
            # Short walks are repeated, so that the clock has something to measure.
            times = max(1, 100 // size)
            return cpu(lambda: [runner.run(walk(size)) for _ in range(times)]), size * times

        lines = _measured(bench, sizes, {"conversations.all().pages()": walks}, rounds=2)
        runner.run(drift.close())
    return Curve("A page by length of the walk", "pages walked", "CPU us a page", lines)


def bulk_memory(bench: Bench) -> Curve:
    """By how much the peak of memory grows over a bulk, from 1,000 to 1,000,000 contacts."""
    sizes = _sizes(bench, 100 if bench.quick else 1_000, 1_000_000, 10)
    with drift_async.sync.Drift(TOKEN, base_url=bench.server.url) as drift:
        points = [(size, grown_by(drift, size)) for size in (sizes[0], *sizes)][1:]
    lines = {"one bulk after the other": points}
    return Curve("Memory by items of a bulk", "items", "MiB the peak grew by", lines)


def waiting_cost(bench: Bench) -> Curve:
    """The CPU time of an event, accepted and then delivered, when so many wait in memory."""
    sizes = _sizes(bench, 100 if bench.quick else 1_000, 1_000_000, 10)
    accepted, delivered = [], []
    with pinned():
        for size in (sizes[0], *sizes):
            # A few are not enough to measure, so they are accepted and delivered again and again.
            costs = [
                asyncio.run(_accept_and_deliver(bench, size))
                for _ in range(bench.calls(max(1, 100_000 // size), 1))
            ]
            accepted.append((size, statistics.median(cost for cost, _ in costs) / size * 1e6))
            delivered.append((size, statistics.median(cost for _, cost in costs) / size * 1e6))
    lines = {"accepted": accepted[1:], "delivered": delivered[1:]}  # the first warms up
    return Curve("An event by events that wait", "events that wait", "CPU us an event", lines)


async def _accept_and_deliver(bench: Bench, size: int) -> tuple[float, float]:
    async with _outbox(bench, size) as events:
        began = time.process_time()
        await _accept(events, size)  # does not give way, so nothing is delivered meanwhile
        full = time.process_time()
        stats = await events.flush(600)
        empty = time.process_time()
    assert stats.delivered == size, stats
    return full - began, empty - full


def waiting_memory(bench: Bench) -> Curve:
    """The memory of an event that waits, by how many there are."""
    sizes = _sizes(bench, 100 if bench.quick else 1_000, 1_000_000, 10)
    points = [(size, asyncio.run(_bytes_held(bench, size)) / size) for size in sizes]
    lines = {"in memory": points}
    return Curve("Memory by events that wait", "events that wait", "bytes an event", lines)


async def _bytes_held(bench: Bench, size: int) -> int:
    async with _outbox(bench, size) as events:
        tracemalloc.start()
        await _accept(events, size)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await events.flush(600)
    return held


def _outbox(bench: Bench, size: int) -> DriftEvents:
    return DriftEvents(1, base_url=bench.server.url, max_events=size, max_bytes=size * 1024)


async def _accept(events: DriftEvents, size: int) -> None:
    for n in range(size):
        await events.track(NAME, user_id=f"user-{n % USERS}", attributes=ATTRIBUTES)


CURVES: dict[str, Callable[[Bench], Curve]] = {
    "in-flight": in_flight,
    "threads": threads,
    "pages": pages,
    "bulk-memory": bulk_memory,
    "waiting-cost": waiting_cost,
    "waiting-memory": waiting_memory,
}


def _sizes(bench: Bench, first: int, last: int, step: int) -> Sequence[int]:
    sizes = [first]
    while sizes[-1] * step <= last:
        sizes.append(sizes[-1] * step)
    return sizes[:2] if bench.quick else sizes


def _measured(
    bench: Bench, sizes: Sequence[int], lanes: dict[str, LaneOf], rounds: int = 7
) -> dict[str, list[tuple[int, float]]]:
    """Measure all points in turn, again and again, and return the median of each."""
    points: dict[tuple[str, int], list[float]] = {}
    for turn in range(bench.rounds(rounds) + 1):
        for size in sizes:
            for name, lane_of in lanes.items():
                lane, units = lane_of(size)
                gc.collect()  # or what others left would be collected in the middle
                cost = lane() / units * 1e6
                if turn:  # the first warms up
                    points.setdefault((name, size), []).append(cost)
    return {
        name: [(size, statistics.median(points[name, size])) for size in sizes] for name in lanes
    }


def draw(name: str, curve: Curve) -> None:
    """Write the curve as an SVG that is the same when the points are."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = name
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.6, 2.8), layout="constrained")
    for label, points in curve.lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    axes.set(title=curve.title, xlabel=curve.size, ylabel=curve.cost, xscale="log")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")
    PLOTS.mkdir(exist_ok=True)
    figure.savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


def told(curve: Curve) -> Iterator[str]:
    """Give the curve as lines of text."""
    yield f"{curve.title} ({curve.cost})"
    for label, points in curve.lines.items():
        yield f"  {label:28} " + "  ".join(
            f"{size:,}: {cost:{',.0f' if cost >= 100 else '.3g'}}" for size, cost in points
        )


def main(arguments: Any = None) -> int:
    """Measure and draw what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.curves",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CURVES)}")
    parser.add_argument("--quick", action="store_true", help="two points, once, and no plot")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(CURVES)):
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(CURVES)}")
    names = options.names or list(CURVES)
    if len(names) > 1:
        # Each in a process of its own: memory that one has freed would hide what another needs.
        again = [sys.executable, "-m", "benchmarks.curves", *["--quick"] * options.quick]
        return max(subprocess.run([*again, name], check=False).returncode for name in names)
    with serving() as server:
        curve = CURVES[names[0]](Bench(server, quick=options.quick))
    print("\n".join(told(curve)), flush=True)
    if installed("matplotlib") and not options.quick:
        draw(names[0], curve)
    return 0


if __name__ == "__main__":
    sys.exit(main())
