"""A million calls with one client: does memory or the number of open files grow?

    python -m benchmarks.endurance [--calls 1000000] [--json]

Exits 1 when resident memory grows by 1 MiB or more per 100,000 calls, or when files stay open.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
from pathlib import Path

from benchmarks.measure import serving
from drift_async import Drift

IN_FLIGHT = 32
SAMPLES = 20
WARM = 4  # samples that are not counted: pools, caches and the allocator's arenas fill up
MIB = 1024 * 1024
BOUND = 1.0
"""MiB per 100,000 calls."""


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    with serving() as server:
        samples = asyncio.run(measure(server.url, options.calls))
    counted = samples[WARM:]
    slope = growth([calls for calls, _, _ in counted], [memory for _, memory, _ in counted])
    figures = {
        "calls": samples[-1][0],
        "MiB per 100,000 calls": slope * 100_000 / MIB,
        "files opened and kept": counted[-1][2] - counted[0][2],
    }
    if options.json:
        print(json.dumps(figures))
    else:
        for calls, memory, files in samples:
            print(f"{calls:9,} calls  {memory / MIB:7.1f} MiB  {files} files")
        for name, figure in figures.items():
            print(f"{name}: {figure:,.3f}" if isinstance(figure, float) else f"{name}: {figure:,}")
    met = figures["MiB per 100,000 calls"] < BOUND and figures["files opened and kept"] <= 0
    return 0 if met else 1


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


if __name__ == "__main__":
    sys.exit(main())
