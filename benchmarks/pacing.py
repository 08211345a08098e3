"""P10, P12, P12w: what a fixed rate costs, and how close a learned one comes to a limit unknown."""

from __future__ import annotations

import asyncio
import bisect
import math
import statistics
import time
import timeit
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product

from drift_async.core.rate_limit import Limiter, Rate
from drift_async.core.slots import ConnectionSlots

from .harness import Bench
from .measure import Row, Spread, Target
from .simulate import (
    Bucket,
    FixedWindow,
    InFlight,
    Server,
    SlidingWindow,
    learning,
    simulate,
)

# P12, in simulated time.

RATES = (20, 50, 100, 200)
BURSTS = (5, 20, 50)
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
    taken, refused = simulate(server, learning(), jitter=jitter, seconds=END).counts(BEGIN)
    allowed = (CHANGED - BEGIN) * rate + (END - CHANGED) * later
    return Cell(rate, burst, jitter, tells, change, taken / allowed, refused / (taken + refused))


def p12(bench: Bench) -> Iterator[Row]:
    """Run the grid."""
    rates = RATES[:1] if bench.quick else RATES
    cells = [cell(*one) for one in product(rates, BURSTS, JITTERS, (True, False), CHANGES)]
    for change, (median, worst) in LIMIT_USED.items():
        some = [one for one in cells if one.change == change]
        yield from _rows("P12", change, some, used=(median, worst), refused=(0.02, 0.02))


def _rows(
    id: str,
    name: str,
    cells: Sequence[Cell | StrictCell],
    *,
    used: tuple[float, float],
    refused: tuple[float, float],
) -> Iterator[Row]:
    """Give the rows of some cells; the bounds are those of the median and of the worst cell."""
    least = min(cells, key=lambda one: one.used)
    most = max(cells, key=lambda one: one.refused)
    shares = statistics.median(one.used for one in cells)
    refusals = statistics.median(one.refused for one in cells)
    rows = (
        ("share of the limit, median", shares, "", used[0]),
        ("share of the limit, worst", least.used, str(least), used[1]),
        ("refused, median", refusals, "", refused[0]),
        ("refused, worst", most.refused, str(most), refused[1]),
    )
    for what, value, where, bound in rows:
        target = Target(bound, at_least=bound > 0.5)
        yield Row(id, f"{name}: {what}", where, target, Spread.of([value]))


# P12w, in simulated time: servers that count in windows or in flight, or take one at a time.

WINDOWS = ((1000, 20.0), (100, 10.0), (60, 60.0), (600, 60.0), (10, 1.0))


@dataclass(frozen=True)
class StrictCell:
    """One server of the other kinds, and what became of 64 tasks that called it."""

    name: str
    used: float
    refused: float

    def __str__(self) -> str:
        return self.name


def strict_cell(name: str, server: Server, begin: float, end: float, allowed: float) -> StrictCell:
    """Let a learner meet one server, and count from *begin* to *end*."""
    taken, refused = simulate(server, learning(), seconds=end).counts(begin)
    return StrictCell(name, taken / allowed, refused / (taken + refused))


def windows() -> Iterator[StrictCell]:
    """Meet servers that count in windows: whole windows of them count, from the second on."""
    for (most, seconds), tells in product(WINDOWS, (True, False)):
        begin = math.ceil(CHANGED / seconds) * seconds
        count = max(5, math.ceil((END - BEGIN) / seconds))
        for kind in (FixedWindow, SlidingWindow):
            server = kind(most, seconds, tells=tells)
            name = f"{most} in {seconds:g} s, {kind.__name__}{'' if tells else ', no Retry-After'}"
            yield strict_cell(name, server, begin, begin + count * seconds, most * count)


def p12w(bench: Bench) -> Iterator[Row]:
    """Run the other kinds of servers."""
    cells = list(windows())
    for most in (8, 32):
        allowed = most / 0.1 * (END - BEGIN)
        cells.append(strict_cell(f"{most} in flight", InFlight(most), BEGIN, END, allowed))
    for rate, tells, change in product(RATES, (True, False), CHANGES):
        later = rate * CHANGES[change]
        server = Bucket(rate, 1, tells=tells, change=(CHANGED, later))
        allowed = (CHANGED - BEGIN) * rate + (END - CHANGED) * later
        name = f"{rate}/s, burst 1, {change}{'' if tells else ', no Retry-After'}"
        cells.append(strict_cell(name, server, BEGIN, END, allowed))
    yield from _rows("P12w", "all", cells, used=(0.92, 0.80), refused=(0.01, 0.05))


# P10, on the wall clock.


async def spend(rate: Rate, seconds: float, tasks: int = 32) -> list[float]:
    """Let *tasks* take all they can get at a fixed rate, and return when turns were given.

    A task that is woken late would record a later moment than that of its turn.
    """
    limiter, got = Limiter(rate), list[float]()
    end = time.monotonic() + seconds
    bucket, give = limiter._bucket, limiter._bucket.sent

    def sent(now: float, *, waited: bool) -> None:
        got.append(now)
        give(now, waited=waited)

    setattr(bucket, "sent", sent)  # noqa: B010  # a method is replaced, which types forbid

    slots = ConnectionSlots(10**9)

    async def work() -> None:
        while True:
            if not limiter.try_acquire(slots):
                await limiter.acquire(slots)
            if time.monotonic() > end:
                return

    await asyncio.gather(*(work() for _ in range(tasks)))
    return got


RATE_USED = {10: (0.99, 0.95), 100: (0.99, 0.93), 1000: (0.99, 0.80)}
"""The least share of a rate that is used: at the default burst, and strictly spaced."""


def p10(bench: Bench) -> Iterator[Row]:
    """Run a limiter at fixed rates, with the default burst and with a burst of 1.

    The share is the best of the runs: a process that gets no CPU cannot keep any pace.
    """
    for (rate, least), strict in product(RATE_USED.items(), (False, True)):
        limit = Rate(rate, 1) if strict else Rate(rate)
        name = f"{rate} a second, burst {limit.burst}"
        seconds = 0.6 if bench.quick else 3.0
        runs = [asyncio.run(spend(limit, seconds)) for _ in range(bench.rounds(3))]
        shares = [(len(got) - limit.burst) / (got[-1] - got[0]) / rate for got in runs]
        worst = max(bisect.bisect_left(got, at + 1) - n for got in runs for n, at in enumerate(got))
        target = Target(least[strict], at_least=True)
        spread = Spread(max(shares), min(shares), max(shares))
        yield Row("P10", f"share of {name}", "the rate", target, spread)
        spread = Spread.of([worst / (rate + limit.burst)])
        yield Row("P10", f"worst second at {name}", "rate and burst", Target(1.0), spread)
        if strict:
            gap = min(later - at for got in runs for at, later in pairwise(got)) * rate
            target = Target(0.95, at_least=True)
            yield Row("P10", f"shortest gap at {name}", "the interval", target, Spread.of([gap]))
    limiter, slots = Limiter(Rate(1e9)), ConnectionSlots(10**9)
    acquire, number = partial(limiter.try_acquire, slots), bench.calls(200_000, 1000)
    costs = timeit.repeat(acquire, timer=time.process_time, number=number, repeat=9)
    spread = Spread.of([cost / number * 1e6 for cost in costs])
    yield Row("P10", "a slot at once", "microseconds", Target(0.5), spread)
