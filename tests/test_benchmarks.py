"""One short round of the benchmarks, without verdicts; peers not installed are left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*options: str, module: str = "overhead") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
    )


def test_a_quick_round_measures_every_target() -> None:
    done = run("--quick", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert {row["id"] for row in rows} >= {"P1", "P2", "P11"}
    assert all(row["ratio"]["median"] > 0 for row in rows)


def test_a_quick_round_of_bulks_has_figures() -> None:
    done = run("--quick", "--json", module="bulk")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert all(row["ratio"]["median"] > 0 for row in told["rows"])
    assert len(told["rows"]) >= 2
    assert told["memory"]["items"] == 200


def test_an_unknown_target_is_refused() -> None:
    done = run("--only", "P99")
    assert done.returncode == 2
    assert "P99" in done.stderr


def test_a_quick_round_measures_events() -> None:
    done = run("--quick", "--json", "--only", "P9", module="events")
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert rows[0]["id"] == "P9"
    assert all(row["ratio"]["median"] > 0 for row in rows)
