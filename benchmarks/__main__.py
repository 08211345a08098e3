"""Measure the library against the clients and libraries that people use instead.

    python -m benchmarks [ID ...] [--quick] [--json | --markdown]

Without an id it measures all but what takes minutes. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import sys

from . import report
from .harness import Bench
from .measure import Row, serving
from .registry import CASES, ON_REQUEST, case


def main() -> int:
    """Measure what was asked for, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"of {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="one short round, no verdict")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the figures as JSON")
    form.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    options = parser.parse_args()
    known = {id.upper(): id for id in CASES}
    asked = [known.get(id.upper(), id) for id in options.ids]
    wanted = asked or [id for id in CASES if id not in ON_REQUEST]
    if unknown := sorted(set(wanted) - set(CASES)):
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(CASES)}")
    as_text = not (options.json or options.markdown)
    if as_text:
        print(f"{report.machine()}\n{report.versions()}\n{report.HEAD}", flush=True)
    rows: list[Row] = []
    with serving() as server:
        bench = Bench(server, quick=options.quick)
        for id in wanted:
            for row in case(id)(bench):
                rows.append(row)
                if as_text:
                    print(report.line(row), flush=True)
    form_of_end = report.as_json if options.json else report.markdown
    print(report.footer(rows, bench.busy) if as_text else form_of_end(rows, bench.busy))
    return 0 if options.quick or all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
