"""Paired measuring: two sides of a ratio in turn, in one process, against one server."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, permutations
from pathlib import Path

Lane = Callable[[], float]
"""Does a block of work, and returns what it cost."""


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of *values*."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)

    def __str__(self) -> str:
        return f"{self.median:6.3f} ({self.low:.3f}-{self.high:.3f})"


@dataclass(frozen=True)
class Target:
    """What a figure has to be; without a bound it is printed only."""

    bound: float | None = None
    at_least: bool = False

    def met(self, figure: float) -> bool:
        """Tell whether *figure* is good enough."""
        if self.bound is None:
            return True
        return figure >= self.bound if self.at_least else figure <= self.bound

    def __str__(self) -> str:
        return "" if self.bound is None else f"{'>=' if self.at_least else '<='} {self.bound:.2f}"


@dataclass(frozen=True)
class Row:
    """A figure measured: what against what, and for a ratio the same peer against itself."""

    id: str
    what: str
    against: str
    target: Target
    ratio: Spread
    noise: Spread | None = None
    ours: float | None = None
    """The median of our cost, in seconds a call or an import; it tells about the machine only."""
    peers: float | None = None

    @property
    def met(self) -> bool:
        """Tell whether the target is met."""
        return self.target.met(self.ratio.median)


def compare(
    id: str,
    what: str,
    against: str,
    target: Target,
    ours: Lane,
    peer: Lane,
    *,
    rounds: int,
    calls: int = 1,
) -> Row:
    """Measure two lanes in turn, and the peer's twice, in all orders; *calls* are in a block."""
    lanes = (ours, peer, peer)
    for lane in lanes[:2]:
        lane()  # warms up connections, caches and code
    gc.collect()
    gc.freeze()  # what is there by now is nobody's work
    costs: list[list[float]] = [[], [], []]
    for order in islice(cycle(permutations(range(3))), rounds):
        for n in order:
            gc.collect()
            costs[n].append(lanes[n]())
    pairs = [(mine, (one + two) / 2) for mine, one, two in zip(*costs, strict=True)]
    return Row(
        id,
        what,
        against,
        target,
        Spread.of([b / a if target.at_least else a / b for a, b in pairs]),
        Spread.of([one / two for one, two in zip(*costs[1:], strict=True)]),
        statistics.median(costs[0]) / calls,
        statistics.median(costs[1]) / calls,
    )


def cpu(block: Callable[[], object]) -> Lane:
    """Return a lane that costs the CPU time of this process: user and system, all threads."""

    def lane() -> float:
        before = time.process_time()
        block()
        return time.process_time() - before

    return lane


def wall(block: Callable[[], object]) -> Lane:
    """Return a lane that costs wall time."""

    def lane() -> float:
        before = time.perf_counter()
        block()
        return time.perf_counter() - before

    return lane


@dataclass
class Server:
    """The server in its own process, on a core of its own if there are two."""

    url: str

    def cpu(self) -> float:
        """Return the CPU seconds that it has used."""
        with urllib.request.urlopen(f"{self.url}/cpu") as reply:
            return float(json.load(reply))

    @contextlib.contextmanager
    def watched(self, busy: list[float]) -> Iterator[None]:
        """Add to *busy* which share of a core it needed meanwhile: at 1 it was the limit."""
        began, used = time.perf_counter(), self.cpu()
        yield
        busy.append((self.cpu() - used) / (time.perf_counter() - began))


@contextlib.contextmanager
def serving(delay: float = 0.0, refused: float = 0.0) -> Iterator[Server]:
    """Run the server: it holds replies back for *delay* seconds, and refuses a share at random."""
    program = [sys.executable, str(Path(__file__).with_name("server.py")), str(delay), str(refused)]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        if cores := _cores():
            os.sched_setaffinity(process.pid, cores[-1:])
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Keep this process on the first core, away from the server."""
    cores = _cores()
    if cores:
        os.sched_setaffinity(0, cores[:1])
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)


def _cores() -> list[int]:
    """Return the cores to choose from; none where there is no choice."""
    if sys.platform != "linux":
        return []
    cores = sorted(os.sched_getaffinity(0))
    return cores if len(cores) > 1 else []
