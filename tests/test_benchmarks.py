"""One short round of each benchmark, without verdicts; peers not installed are left out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import curves, report
from benchmarks.harness import Bench
from benchmarks.measure import Row, Server, Spread, Target, serving
from benchmarks.registry import CASES, case

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.mark.parametrize("id", CASES)
def test_a_short_round_gives_figures(id: str, server: Server) -> None:
    bench = Bench(server, quick=True)
    rows = list(case(id)(bench))
    assert {row.id for row in rows} <= {id}
    assert all(row.ratio.low <= row.ratio.median <= row.ratio.high for row in rows)
    assert all(row.noise is None or row.ratio.median > 0 for row in rows)
    if id in ("P1", "P2", "P11"):  # these take no peer that may be missing
        assert rows


@pytest.mark.parametrize("name", curves.CURVES)
def test_the_first_points_of_a_curve(name: str, server: Server) -> None:
    curve = curves.CURVES[name](Bench(server, quick=True))
    least = 0 if name == "bulk-memory" else 1e-9  # memory need not grow
    assert all(cost >= least for points in curve.lines.values() for _, cost in points)
    assert len(list(curves.told(curve))) == 1 + len(curve.lines) > 1


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
    )


def test_the_command_measures_what_is_named_and_prints_json() -> None:
    done = run("p2", "--quick", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert {row["id"] for row in json.loads(done.stdout)["rows"]} == {"P2"}


def test_an_unknown_id_is_refused() -> None:
    done = run("P1", "P99")
    assert done.returncode == 2
    assert "P99: choose from P1" in done.stderr


ROWS = [
    Row("P1", "a call", "bare", Target(1.10), Spread(1.2, 1.1, 1.3), Spread(0.97, 0.9, 1.1)),
    Row("P4", "calls a second", "other", Target(2.0, at_least=True), Spread(2.5, 2.4, 2.6)),
    Row("P6", "a page", "other", Target(), Spread(9.0, 8.0, 9.5)),
]


def test_a_table_tells_what_was_met_what_was_missed_and_what_has_no_target() -> None:
    assert [report.verdict(row) for row in ROWS] == ["MISSED", "met", ""]
    table = report.markdown(ROWS, [0.2, 0.31])
    assert "| P1 | a call | bare | 1.200 | 1.100-1.300 | <= 1.10, missed | 0.970 |" in table
    assert "| P4 | calls a second | other | 2.500 | 2.400-2.600 | >= 2.00 |  |" in table
    assert "| P6 | a page | other | 9.000 | 8.000-9.500 | - |  |" in table
    assert "off by at most 3.0%" in table
    assert "at most 31% of a core" in table
