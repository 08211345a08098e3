"""What a run prints: a table as text or as Markdown, or JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .measure import Row

PACKAGES = (
    "aiohttp",
    "attrs",
    "cattrs",
    "orjson",
    "uvloop",
    "httpx",
    "requests",
    "niquests",
    "msgspec",
    "pydantic",
    "segment-analytics-python",
    "customerio",
)

LINE = "{:4} {:36} {:28} {:>6} {:>15} {:>8} {:6} {:>19}"
HEAD = LINE.format("id", "what", "against", "figure", "quartiles", "target", "", "A/A")


def line(row: Row) -> str:
    """Return a row of the text table."""
    figure, noise = row.ratio, row.noise
    return LINE.format(
        row.id,
        row.what,
        row.against,
        f"{figure.median:.3f}",
        f"{figure.low:.3f}-{figure.high:.3f}",
        str(row.target),
        verdict(row),
        f"{noise.median:.3f} {noise.low:.3f}-{noise.high:.3f}" if noise else "",
    )


def verdict(row: Row) -> str:
    """Return whether the target is met, if there is one."""
    if row.target.bound is None:
        return ""
    return "met" if row.met else "MISSED"


def footer(rows: Sequence[Row], busy: Sequence[float]) -> str:
    """Return what to know of the whole run: its noise, and whether the server was the limit."""
    noise = max((abs(row.noise.median - 1) for row in rows if row.noise), default=0.0)
    return (
        f"A/A: the peer against itself was off by at most {noise:.1%} (median of a row). "
        f"Server busy: at most {max(busy, default=0):.0%} of a core."
    )


def markdown(rows: Sequence[Row], busy: Sequence[float]) -> str:
    """Return the run as it stands in a README."""
    lines = [
        f"{machine()}. {versions()}.",
        "",
        "| id | what | against | figure | quartiles | target | A/A |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        noise = f"{row.noise.median:.3f}" if row.noise else ""
        target = f"{row.target}{', missed' if not row.met else ''}" or "-"
        lines.append(
            f"| {row.id} | {row.what} | {row.against} | {row.ratio.median:.3f} "
            f"| {row.ratio.low:.3f}-{row.ratio.high:.3f} | {target} | {noise} |"
        )
    return "\n".join([*lines, "", footer(rows, busy)])


def as_json(rows: Sequence[Row], busy: Sequence[float]) -> str:
    """Return the run for programs."""
    return json.dumps(
        {
            "machine": machine(),
            "versions": versions(),
            "server_busy": max(busy, default=0.0),
            "rows": [asdict(row) | {"met": row.met} for row in rows],
        },
        indent=1,
    )


def machine() -> str:
    """Return what ran it."""
    processor = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [text for text in info.read_text().splitlines() if text.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    return f"{platform.system()}, {os.cpu_count()} cores, {processor}{load}"


def versions() -> str:
    """Return the interpreter and the packages measured."""
    found = [f"{platform.python_implementation()} {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)
