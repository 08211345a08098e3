"""P10, P12: what a fixed rate costs, and how close a learned one comes to a limit unknown."""

from __future__ import annotations

import asyncio
import bisect
import statistics
import time
import timeit
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from drift_async.core.learn import Learner
from drift_async.core.rate import Limiter, Rate

from .harness import Bench
from .measure import Row, Spread, Target
from .simulate import Bucket, simulate

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


def p12(bench: Bench) -> Iterator[Row]:
    """Run the grid."""
    rates = RATES[:1] if bench.quick else RATES
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
                target = Target(None if few else bound, at_least=bound > 0.5)
                yield Row("P12", f"{name}: {what}", where, target, Spread.of([value]))


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


def p10(bench: Bench) -> Iterator[Row]:
    """Run a limiter with a fixed rate and a burst of 1.

    The share is the best of the runs: a process that gets no CPU cannot keep any pace.
    """
    for rate in (10, 100, 1000):
        seconds = 0.6 if bench.quick else 3.0
        runs = [asyncio.run(spend(rate, seconds)) for _ in range(bench.rounds(3))]
        shares = [(len(got) - 1) / (got[-1] - got[0]) / rate for got in runs]
        worst = max(bisect.bisect_left(got, at + 1) - n for got in runs for n, at in enumerate(got))
        target, spread = Target(0.99, at_least=True), Spread(max(shares), min(shares), max(shares))
        yield Row("P10", f"share of {rate} a second", "the rate", target, spread)
        spread = Spread.of([worst / (rate + 1)])
        yield Row("P10", f"worst second at {rate}", "rate and burst", Target(1.0), spread)
    take, number = Limiter(Rate(1e9)).take, bench.calls(200_000, 1000)
    costs = timeit.repeat(take, timer=time.process_time, number=number, repeat=9)
    spread = Spread.of([cost / number * 1e6 for cost in costs])
    yield Row("P10", "a slot at once", "microseconds", Target(0.5), spread)
