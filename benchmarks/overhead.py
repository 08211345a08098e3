"""Measure what the library adds to the HTTP client below it, and compare it with other clients.

    python -m benchmarks.overhead [--quick] [--all] [--only P1,P4] [--json]

Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from benchmarks.cases import CASES, Bench
from benchmarks.measure import Row, serving

PACKAGES = ("aiohttp", "cattrs", "attrs", "orjson", "requests")

Cases = Mapping[str, Callable[[Bench], Iterator[Row]]]


def main(cases: Cases = CASES, packages: tuple[str, ...] = PACKAGES) -> int:
    """Measure what was asked for, and return the exit code."""
    parser = argparse.ArgumentParser(prog=sys.argv[0])
    parser.add_argument("--quick", action="store_true", help="one short round, no verdict")
    parser.add_argument("--all", action="store_true", help="let the rows marked (*) decide too")
    parser.add_argument("--only", default=",".join(cases), help="such as P1,P4")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    wanted = options.only.upper().split(",")
    if unknown := set(wanted) - set(cases):
        parser.error(f"--only: {', '.join(sorted(unknown))}: choose from {', '.join(cases)}")
    if not options.json:
        print(
            f"{platform.python_implementation()} {platform.python_version()}, {_versions(packages)}"
        )
        print(LINE.format("id", "what", "against", "ratio", "quartiles", "target", "", "A/A"))
    rows: list[Row] = []
    with serving() as server:
        bench = Bench(server, quick=options.quick)
        for id in wanted:
            for row in cases[id](bench):
                rows.append(row)
                if not options.json:
                    print(line(row), flush=True)
    if options.json:
        print(json.dumps([asdict(row) | {"met": row.met} for row in rows], indent=1))
    else:
        print(f"server busy: at most {max(bench.busy, default=0):.0%} of a core")
    missed = [row for row in rows if not row.met and (row.target.decides or options.all)]
    return 1 if missed and not options.quick else 0


LINE = "{:4} {:33} {:26} {:>6} {:>13} {:>8} {:6} {:>19}"


def line(row: Row) -> str:
    """Return a row of the table."""
    ratio, noise = row.ratio, row.noise
    verdict = ("met" if row.met else "MISSED") + ("" if row.target.decides else "*")
    return LINE.format(
        row.id,
        row.what,
        row.against,
        f"{ratio.median:.3f}",
        f"{ratio.low:.3f}-{ratio.high:.3f}",
        str(row.target),
        verdict,
        f"{noise.median:.3f} {noise.low:.3f}-{noise.high:.3f}",
    )


def _versions(packages: tuple[str, ...]) -> str:
    found = []
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


if __name__ == "__main__":
    sys.exit(main())
