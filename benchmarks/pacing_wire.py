"""P12r: learned and fixed rates on a real wire and a real clock.

    python -m benchmarks.pacing_wire [CELL ...]     # such as 200/20 50/1-fixed '*-far'
    python -m benchmarks.pacing_wire --list

The program prints a line for each cell, which takes half a minute: the figures, with "!" where they
miss a target, the rate that the client held to at the end, and by how much a thread of this process
was late at most, a hint at other work on the machine. Names may have wildcards; without a name the
program runs all cells. `nox -s bench -- P12r` does so, too, and prints them as rows of its table.

The name of a cell is RATE/BURST, or LIMIT-in-SECONDS for a server that counts in windows. With
``-fixed`` the client was told 0.9 of the limit, and with ``-far`` the server is behind a proxy with
latency and jitter.

The sandbox and the client have a process each. The client's 64 tasks read one contact again and
again, and its hooks count the replies, from five seconds to half a minute after its first call.
Failed calls count from the start.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Final, Self

from .harness import TOKEN, Bench
from .measure import Row, Spread, Target, serving
from .wire_client import Log

ROOT: Final = Path(__file__).parent.parent
SECONDS: Final = 30.0
SKIPPED: Final = 5.0
"""Seconds that a client has to find its rate."""
WINDOWS: Final = 3
"""The least whole windows to count."""
ARRIVED: Final = (5.0, 10.0)
"""Between these seconds after the first refusal a client has to be near the limit."""
AT_LEAST_85: Final = Target(0.85, at_least=True)


@dataclass(frozen=True)
class Cell:
    """A server, a client, and what the client has to reach.

    ``server`` are arguments of the sandbox. ``rate`` is the client's, None to learn it.
    """

    name: str
    server: tuple[str, ...]
    limit: float
    share: Target
    """Of the limit, that is let in."""
    refused: Target
    """Share of all attempts."""
    rate: float | None = None
    window: float = 0.0
    far: bool = False
    arrival: Target | None = None
    """The share of the limit soon after the first refusal."""
    seconds: float = SECONDS
    skipped: float = SKIPPED

    @property
    def counted(self) -> tuple[float, float]:
        """The seconds after the first call between which replies count.

        The server's windows follow each other from the first call. Of these, whole ones count, and
        never the first.
        """
        if not self.window:
            return self.skipped, self.seconds
        first = max(1, math.ceil(self.skipped / self.window))
        last = max(first + WINDOWS, math.floor(self.seconds / self.window))
        return first * self.window, last * self.window


@dataclass(frozen=True)
class Figure:
    """One of the figures of a cell."""

    what: str
    against: str
    value: float
    target: Target

    def __str__(self) -> str:
        missed = "" if self.target.met(self.value) else "!"
        bound = f" ({self.target})" if self.target.bound is not None else ""
        return f"{self.what} {self.value:.3f}{missed}{bound}"


@dataclass(frozen=True)
class Outcome:
    """The figures of a cell, and a note for people who tune."""

    figures: list[Figure]
    note: str


# The cells.


def least(share: float) -> Target:
    """Return the target of a share of the limit."""
    return Target(share, at_least=True)


def bucket(rate: int, burst: int, share: float, refused: float) -> Cell:
    """Return a cell with a learning client, and a server that lets in *burst* requests at once."""
    server = ("--rate", str(rate), "--burst", str(burst))
    return Cell(f"{rate}/{burst}", server, rate, least(share), Target(refused))


def windows(limit: int, window: int, share: float, refused: float) -> Cell:
    """Return a cell with a server that counts in windows of so many seconds."""
    rate = limit / window
    server = ("--rate", str(rate), "--window", str(window))
    name = f"{limit}-in-{window}"
    return Cell(name, server, rate, least(share), Target(refused), window=window)


def fixed(cell: Cell) -> Cell:
    """Tell the client 0.9 of the limit."""
    return replace(cell, name=f"{cell.name}-fixed", rate=0.9 * cell.limit)


def far(cell: Cell) -> Cell:
    """Put a network between client and server."""
    return replace(cell, name=f"{cell.name}-far", far=True)


def arriving(cell: Cell) -> Cell:
    """Let the cell tell how soon the client is near the limit, too."""
    return replace(cell, arrival=AT_LEAST_85)


CELLS: Final = (
    # The rate is learned.
    bucket(20, 5, 0.93, 0.01),
    arriving(bucket(50, 10, 0.93, 0.01)),
    arriving(bucket(200, 20, 0.93, 0.01)),
    bucket(200, 5, 0.93, 0.01),
    arriving(bucket(1000, 100, 0.93, 0.01)),
    windows(100, 10, 0.93, 0.01),
    windows(60, 1, 0.93, 0.01),
    # No two requests may come closer than the limit says.
    bucket(10, 1, 0.90, 0.03),
    bucket(50, 1, 0.70, 0.03),
    bucket(200, 1, 0.40, 0.03),
    # The rate is fixed.
    fixed(bucket(50, 10, 0.88, 0.0)),
    fixed(bucket(200, 20, 0.88, 0.0)),
    fixed(bucket(1000, 100, 0.88, 0.0)),
    fixed(bucket(50, 1, 0.65, 0.03)),
    fixed(bucket(200, 1, 0.35, 0.03)),
    # The server is far away.
    far(bucket(50, 10, 0.88, 0.01)),
    far(bucket(200, 20, 0.88, 0.01)),
    far(fixed(bucket(50, 10, 0.83, 0.01))),
    far(fixed(bucket(200, 20, 0.83, 0.01))),
    far(bucket(50, 1, 0.50, 0.03)),
    far(bucket(200, 1, 0.25, 0.03)),
    far(fixed(bucket(50, 1, 0.50, 0.03))),
    far(fixed(bucket(200, 1, 0.25, 0.03))),
)
QUICK: Final = tuple(
    replace(cell, share=least(0.1), refused=Target(0.9), seconds=4.0, skipped=1.0)
    for cell in (bucket(200, 20, 0, 0), far(fixed(bucket(50, 10, 0, 0))))
)


def measure(cell: Cell) -> Outcome:
    """Let a client of its own process meet the server."""
    begin, end = cell.counted
    options = [] if cell.rate is None else ["--rate", str(cell.rate)]
    with sandbox(*cell.server, far=cell.far) as url, Lateness() as lateness:
        log = Client(url, "--seconds", str(end), *options).log(end)
    counted = log.began + begin, log.began + end
    figures = [
        Figure("share", "the limit", used([log], *counted) / cell.limit, cell.share),
        Figure("refused", "all attempts", refused([log], *counted), cell.refused),
        failures(log),
    ]
    if cell.arrival:
        met = log.refused[0] if log.refused else log.began
        early = (met + second for second in ARRIVED)
        share = used([log], *early) / cell.limit
        figures.append(Figure("arrival", "the limit, seconds 5 to 10", share, cell.arrival))
    return Outcome(figures, f"{told(log)}, {lateness.told(*counted)}")


# Cells of other kinds.


def arrival() -> Outcome:
    """Look how soon a client is near a low limit."""
    cell = arriving(replace(bucket(10, 5, 0, 0), seconds=ARRIVED[1] + 2))
    found = measure(cell)
    return Outcome([one for one in found.figures if one.what in ("arrival", "failed")], found.note)


def chance(seconds: float = 15.0) -> Outcome:
    """Let a client meet refusals that have nothing to do with its rate."""
    limits = ("--tasks", "16", "--seconds", str(seconds))
    with serving() as server:
        calm = Client(server.url, *limits).log(seconds)
    with serving(refused=0.02) as server, Lateness() as lateness:
        log = Client(server.url, *limits).log(seconds)
    counts = [
        sum(at >= one.began + SKIPPED for at in one.let_in) / (seconds - SKIPPED)
        for one in (log, calm)
    ]
    share = counts[0] / counts[1]
    figures = [
        Figure("calls a second", "without refusals", share, least(0.5)),
        failures(calm, log),
    ]
    rates = (f"{count:.0f}" for count in counts)
    late = lateness.told(log.began, log.began + seconds)
    return Outcome(figures, f"{'/s to '.join(rates)}/s, {told(log)}, {late}")


def pair(limit: int = 200, seconds: float = 50.0, later: float = 10.0) -> Outcome:
    """Let a second client join a first one at the same limit."""
    with sandbox("--rate", str(limit), "--burst", str(limit // 10)) as url, Lateness() as lateness:
        clients = [
            Client(url, "--wait", str(wait), "--seconds", str(seconds - wait + 1))
            for wait in (0.0, later)
        ]
        logs = [client.log(seconds) for client in clients]
    first, second = logs
    counted = first.began + SKIPPED, first.began + seconds
    fairness = min(
        fair([used([log], begin, begin + 10) for log in logs])
        for begin in (second.began + 20, second.began + 30)
    )
    figures = [
        Figure("share", "the limit, together", used(logs, *counted) / limit, least(0.9)),
        Figure("fairness", "the worst of 10 seconds", fairness, least(0.9)),
        Figure("refused", "all attempts", refused(logs, *counted), Target()),
        failures(*logs),
    ]
    return Outcome(figures, f"{told(first)} and {told(second)}, {lateness.told(*counted)}")


Case = Callable[[], Outcome]

CASES: Final[dict[str, Case]] = {
    **{cell.name: partial(measure, cell) for cell in CELLS},
    "10/5-arrival": arrival,
    "by-chance": chance,
    "two-clients": pair,
}


# Figures.


def used(logs: Iterable[Log], begin: float, end: float) -> float:
    """Return the requests let in, a second."""
    return sum(within(log.let_in, begin, end) for log in logs) / (end - begin)


def refused(logs: Iterable[Log], begin: float, end: float) -> float:
    """Return which share of all attempts was refused."""
    kinds = [(log.refused, log.let_in, log.other) for log in logs]
    counts = [[within(times, begin, end) for times in one] for one in kinds]
    return sum(one[0] for one in counts) / max(1, sum(map(sum, counts)))


def failures(*logs: Log) -> Figure:
    """Return how many calls failed, and by which errors."""
    kinds = sorted({name for log in logs for name in log.failed})
    count = sum(sum(log.failed.values()) for log in logs)
    return Figure("failed", " ".join(kinds) or "calls", count, Target(0.0))


def within(times: list[float], begin: float, end: float) -> int:
    """Return how many of the moments, which are in order, lie between."""
    return bisect_left(times, end) - bisect_left(times, begin)


def fair(shares: list[float]) -> float:
    """Return Jain's index: 1 where all have the same, 1/n where one of n has everything."""
    squares = sum(one * one for one in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


def told(log: Log) -> str:
    """Tell the rate that the client held to at the end."""
    return "unlimited" if log.rate is None else f"at {log.rate:.1f}/s"


# Processes.


class Client:
    """A client that is running."""

    def __init__(self, url: str, *options: str) -> None:
        self._process = start("wire_client", url, TOKEN, *options)

    def log(self, seconds: float) -> Log:
        """Wait for the client's end, due in so many seconds, and return its log."""
        try:
            out, error = self._process.communicate(timeout=seconds + 30)
        finally:
            self._process.kill()
        if self._process.returncode:
            raise RuntimeError(f"the client failed: {error}")
        return Log(**json.loads(out))


@contextlib.contextmanager
def sandbox(*options: str, far: bool = False) -> Iterator[str]:
    """Run the sandbox, behind a network where it is far, and give its URL."""
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(running("drift_async.sandbox", "--token", TOKEN, *options))
        url = str(json.loads(said)["url"])
        if far:
            host, _, port = url.rpartition(":")
            url = f"{host}:{int(stack.enter_context(running('delay_proxy', port)))}"
        yield url


@contextlib.contextmanager
def running(module: str, *options: str) -> Iterator[str]:
    """Run a server until the end of the block, and give the line that the server prints first."""
    process = start(module, *options)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said:
            raise RuntimeError(f"{module} failed: {process.communicate(timeout=5)[1]}")
        yield said
    finally:
        process.kill()
        process.communicate()


def start(module: str, *options: str) -> subprocess.Popen[str]:
    """Start a module as a program, by default one of the benchmarks."""
    name = module if "." in module else f"{__package__}.{module}"
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", name, *options],
        cwd=ROOT,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


class Lateness:
    """Watches how late a thread wakes up while this process only waits for others."""

    EVERY = 0.01

    def __init__(self) -> None:
        self._over = threading.Event()
        self._seen: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def told(self, begin: float, end: float) -> str:
        """Return by how much the thread was late at most between two moments."""
        most = max((late for at, late in self._seen if begin <= at < end), default=0.0)
        return f"machine late by {most * 1000:.0f} ms"

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._over.wait(self.EVERY):
            now = time.monotonic()
            self._seen.append((now, now - before - self.EVERY))
            before = now


# What runs them.


def p12r(bench: Bench) -> Iterator[Row]:
    """Run all cells, or two short ones side by side."""
    cases = {cell.name: partial(measure, cell) for cell in QUICK} if bench.quick else CASES
    with ThreadPoolExecutor() as pool:
        each = pool.map if bench.quick else map
        for name, outcome in zip(cases, each(run, cases.values()), strict=True):
            for one in outcome.figures:
                spread = Spread.of([one.value])
                yield Row("P12r", f"{name}: {one.what}", one.against, one.target, spread)


def run(case: Case) -> Outcome:
    """Run one case."""
    return case()


def main() -> int:
    """Run the cells that are named, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pacing_wire")
    parser.add_argument("cells", nargs="*", metavar="CELL", help="may have wildcards")
    parser.add_argument("--list", action="store_true", help="only print the names")
    options = parser.parse_args()
    for wanted in options.cells:
        if not any(fnmatchcase(name, wanted) for name in CASES):
            parser.error(f"{wanted}: choose from {', '.join(CASES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end the sandbox, too
    met = True
    for name, case in CASES.items():
        if options.cells and not any(fnmatchcase(name, wanted) for wanted in options.cells):
            continue
        if options.list:
            print(name)
            continue
        outcome = case()
        met = met and all(one.target.met(one.value) for one in outcome.figures)
        print(f"{name:18} {', '.join(map(str, outcome.figures))}; {outcome.note}", flush=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
