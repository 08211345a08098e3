"""Measure pacing: how close a learned rate comes to a limit unknown, and what a fixed one costs.

    python -m benchmarks.pacing [--quick] [--only P10,P12] [--json]

Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import json
import statistics
import sys
import time
import timeit
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product

from benchmarks.measure import Target
from benchmarks.simulate import Bucket, simulate
from drift_async.core.learn import Learner
from drift_async.core.rate import Limiter, Rate


@dataclass(frozen=True)
class Row:
    """A figure, and what it has to be; without a target it is told only."""

    id: str
    what: str
    value: float
    where: str = ""
    target: Target | None = None

    @property
    def met(self) -> bool:
        """Tell whether the target is met."""
        return self.target is None or self.target.met(self.value)


# P12, in simulated time.

RATES = (20, 50, 100, 200)
BURSTS = (1, 5, 20, 50)
JITTERS = (0.0, 0.05)
CHANGES = {"constant": 1.0, "halved": 0.5, "doubled": 2.0}
CHANGED, BEGIN, END = 60.0, 20.0, 120.0
LIMIT_USED = {"constant": (0.95, 0.88), "halved": (0.93, 0.85), "doubled": (0.88, 0.75)}
"""The least share of the limit that may be used: in the median, in the worst case."""


@dataclass(frozen=True)
class Cell:
    """One server of the grid, and what became of 64 tasks that called it."""

    rate: int
    burst: int
    jitter: float
    tells: bool
    change: str
    used: float
    refused: float

    def __str__(self) -> str:
        tells = "Retry-After" if self.tells else "no Retry-After"
        return f"{self.rate}/s, burst {self.burst}, {tells}"


def cell(rate: int, burst: int, jitter: float, tells: bool, change: str) -> Cell:
    """Let a learner meet one server."""
    later = rate * CHANGES[change]
    server = Bucket(rate, burst, tells=tells, change=(CHANGED, later))
    taken, refused = simulate(server, Learner(), jitter=jitter, seconds=END).counts(BEGIN)
    allowed = (CHANGED - BEGIN) * rate + (END - CHANGED) * later
    return Cell(rate, burst, jitter, tells, change, taken / allowed, refused / (taken + refused))


def learned(quick: bool) -> Iterator[Row]:
    """Run the grid."""
    rates = RATES[:1] if quick else RATES
    cells = [
        cell(*one)
        for one in product(rates, BURSTS, JITTERS, (True, False), CHANGES)
        if one[1] > 1 or not one[2]  # a burst of 1 leaves no room for requests that bunch
    ]
    for few in (False, True):  # bursts below 5 are told only
        for change, (median, worst) in LIMIT_USED.items():
            some = [one for one in cells if one.change == change and (one.burst < 5) is few]
            least, most = min(some, key=_used), max(some, key=_refused)
            name = f"{change}, burst 1" if few else change
            rows = (
                ("share of the limit, median", statistics.median(map(_used, some)), "", median),
                ("share of the limit, worst", least.used, str(least), worst),
                ("refused, median", statistics.median(map(_refused, some)), "", 0.02),
                ("refused, worst", most.refused, str(most), 0.02),
            )
            for what, value, where, bound in rows:
                target = None if few else Target(bound, at_least=bound > 0.5)
                yield Row("P12", f"{name}: {what}", value, where, target)


def _used(one: Cell) -> float:
    return one.used


def _refused(one: Cell) -> float:
    return one.refused


# P10, on the wall clock.


async def spend(rate: float, seconds: float, tasks: int = 32) -> list[float]:
    """Let *tasks* take all they can get at a fixed rate, and return when they got it."""
    limiter, got = Limiter(Rate(rate)), list[float]()
    end = time.monotonic() + seconds

    async def work() -> None:
        while True:
            if not limiter.take():
                await limiter.acquire()
            now = time.monotonic()
            if now > end:
                return
            got.append(now)

    await asyncio.gather(*(work() for _ in range(tasks)))
    return got


def fixed(quick: bool) -> Iterator[Row]:
    """Run a limiter with a fixed rate and a burst of 1."""
    for rate in (10, 100, 1000):
        got = asyncio.run(spend(rate, 0.6 if quick else 5.0))
        share = (len(got) - 1) / (got[-1] - got[0]) / rate
        worst = max(bisect.bisect_left(got, at + 1) - n for n, at in enumerate(got))
        yield Row("P10", f"share of {rate} a second", share, "", Target(0.99, at_least=True))
        name = f"worst second, to {rate} and the burst"
        yield Row("P10", name, worst / (rate + 1), "", Target(1.0))
    take, number = Limiter(Rate(1e9)).take, 1000 if quick else 200_000
    costs = timeit.repeat(take, timer=time.process_time, number=number, repeat=9)
    yield Row("P10", "microseconds for a slot at once", min(costs) / number * 1e6, "", Target(0.5))


CASES = {"P10": fixed, "P12": learned}


def main() -> int:
    """Measure what was asked for, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a few servers, no verdict")
    parser.add_argument("--only", default=",".join(CASES), help="such as P12")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    wanted = options.only.upper().split(",")
    if unknown := set(wanted) - set(CASES):
        parser.error(f"--only: {', '.join(sorted(unknown))}: choose from {', '.join(CASES)}")
    rows: list[Row] = []
    for id in wanted:
        for row in CASES[id](options.quick):
            rows.append(row)
            if not options.json:
                print(_line(row), flush=True)
    if options.json:
        print(json.dumps([asdict(row) | {"met": row.met} for row in rows], indent=1))
    return 0 if options.quick or all(row.met for row in rows) else 1


def _line(row: Row) -> str:
    verdict = "" if row.target is None else f"{row.target} {'met' if row.met else 'MISSED'}"
    return f"{row.id:4} {row.what:45} {row.value:6.3f}  {verdict:14} {row.where}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
