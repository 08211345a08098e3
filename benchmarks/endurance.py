"""G5: a million calls with one client: does memory or the number of open files grow?"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator
from pathlib import Path

from drift_async import Drift

from .harness import Bench
from .measure import Row, Spread, Target

IN_FLIGHT = 32
SAMPLES = 20
WARM = 4  # samples that are not counted: pools, caches and the allocator's arenas fill up
MIB = 1024 * 1024


def g5(bench: Bench) -> Iterator[Row]:
    """Growth by a line through the samples, and files that stay open."""
    if not Path("/proc/self/statm").exists():
        return
    calls = bench.calls(1_000_000, 1_280)
    samples = asyncio.run(measure(bench.server.url, calls))[WARM:]
    slope = growth([calls for calls, _, _ in samples], [memory for _, memory, _ in samples])
    grown = slope * 100_000 / MIB
    opened = float(samples[-1][2] - samples[0][2])
    what = f"{calls:,} calls, 32 in flight"
    yield Row("G5", what, "MiB grown per 100,000", Target(1.0), Spread.of([grown]))
    yield Row("G5", what, "files opened and kept", Target(0.0), Spread.of([opened]))


async def measure(url: str, calls: int) -> list[tuple[int, int, int]]:
    """Return calls made so far, resident bytes and open files, at even distances."""
    samples = []
    share = calls // SAMPLES // IN_FLIGHT

    async def work() -> None:
        for n in range(share):
            # Both ways in: to a model, and to a plain value.
            if n % 2:
                await drift.contacts.get(7)
            else:
                await drift.request("GET", "/contacts/7")

    async with Drift("t", base_url=url, max_connections=IN_FLIGHT) as drift:
        for sample in range(1, SAMPLES + 1):
            await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
            gc.collect()
            samples.append((sample * share * IN_FLIGHT, resident(), open_files()))
    return samples


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    """Return the number of files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def growth(at: list[int], values: list[int]) -> float:
    """Return the slope of the line that fits best."""
    middle_x, middle_y = sum(at) / len(at), sum(values) / len(values)
    over = sum((x - middle_x) * (y - middle_y) for x, y in zip(at, values, strict=True))
    return over / sum((x - middle_x) ** 2 for x in at)
