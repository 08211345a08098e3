"""One short round of each benchmark, without verdicts; peers not installed are left out."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import curves, report
from benchmarks.delay_proxy import Entrance
from benchmarks.harness import Bench
from benchmarks.measure import Row, Server, Spread, Target, serving
from benchmarks.pacing_wire import CELLS, Cell, failures, fair, refused, used
from benchmarks.registry import CASES, case
from benchmarks.wire_client import Log

ROOT = Path(__file__).parents[2]


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
    done = run("p12r", "P99")
    assert done.returncode == 2
    assert "error: P99: choose from P1" in done.stderr


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


def cell(name: str) -> Cell:
    return next(one for one in CELLS if one.name == name)


def test_replies_count_after_some_seconds_and_in_whole_windows_after_the_first() -> None:
    assert cell("200/20").counted == (5, 30)
    assert cell("60-in-1").counted == (5, 30)
    assert cell("100-in-10").counted == (10, 40)


def test_figures_of_a_cell_are_those_between_two_moments() -> None:
    log = Log(0.0, [0.5, 1.0, 1.5, 2.0], [0.9, 1.9], [1.2], {"DeadlineError": 1}, None)
    assert used([log], 1.0, 2.0) == 2
    assert refused([log], 1.0, 2.0) == 1 / 4
    assert (failures(log, log).value, failures(log).against) == (2, "DeadlineError")
    assert not failures(log).target.met(1)


def test_fairness_is_1_where_all_have_the_same() -> None:
    assert [fair([3, 3]), fair([5, 0]), fair([0, 0])] == [1, 0.5, 0]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(100):
        writer.write(piece)
    writer.close()


def test_the_proxy_holds_back_and_keeps_the_order() -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        proxy = await asyncio.get_running_loop().create_server(
            lambda: Entrance(port, 0.04, 0.02), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*proxy.sockets[0].getsockname())
        began = time.monotonic()
        for number in range(8):
            writer.write(b"%d" % number)
            await asyncio.sleep(0.001)  # so that most are pieces of their own
        assert await reader.readexactly(8) == b"01234567"
        assert time.monotonic() - began >= 0.04
        server.close()
        proxy.close()
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.1)  # the ends follow one another through the proxy

    asyncio.run(main())
