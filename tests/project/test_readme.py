"""The examples of the README and of docs run on both faces by the twin law, and say the same."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import re
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from tests.support.examples import EXAMPLES, GUIDE, PAGES, README, ROOT, blocking

AWAITED = {name: text for name, text in EXAMPLES.items() if "drift_async.sync" not in text}


def run(example: str) -> str:
    """Run an example, with `await` at its top level, and return what it printed."""
    code = compile(example, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(started(code))
        else:
            exec(code, {"__name__": "__example__"})
    return out.getvalue()


async def started(code: CodeType) -> None:
    await FunctionType(code, {"__name__": "__example__"})()


@pytest.mark.smoke
@pytest.mark.parametrize("example", AWAITED.values(), ids=AWAITED)
def test_the_twin_law(example: str) -> None:
    awaited = without_times(run(example))
    assert awaited.strip()
    assert without_times(run(blocking(example))) == awaited


def without_times(text: str) -> str:
    """Leave out when something was created, which differs from run to run."""
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*", "TIME", text)


def test_the_blocking_example_is_the_awaited_one_by_the_law() -> None:
    assert blocking(EXAMPLES["README.md-0"]) == EXAMPLES["README.md-1"]


def test_every_example_is_here() -> None:
    assert len(AWAITED) == len(EXAMPLES) - 1
    assert len(EXAMPLES) == sum(page.read_text().count("```python") for page in PAGES)
    assert sum(name.startswith("README.md") for name in EXAMPLES) >= 5


def test_the_two_commands_stand_in_one_block_and_ci_runs_the_one_for_the_tests() -> None:
    block = re.search(r"## Two commands\n\n```\n(.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    demo, tests = block[1].splitlines()
    assert demo.endswith("drift-async demo")
    assert tests in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("page", [*PAGES, GUIDE], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)(.+?)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_room_and_file_that_the_guide_names_is_here() -> None:
    names = re.findall(r"(?<![\w./])(?:\w+/)+(?:\w+\.\w+)?", GUIDE.read_text())
    places = (ROOT, ROOT / "drift_async")
    assert len(names) > 30
    assert [name for name in names if not any((place / name).exists() for place in places)] == []


@pytest.mark.parametrize("row", re.findall(r"^\| P\d+ .*$", README.read_text(), re.MULTILINE))
def test_a_figure_of_the_readme_is_that_of_the_benchmarks(row: str) -> None:
    number, what, against, ratio, target = row.strip("|").split("|")
    table = (ROOT / "benchmarks" / "README.md").read_text()
    same = rf"^\|{re.escape(f'{number}|{what}|{against}|{ratio}|')}[^|]*{re.escape(f'|{target}|')}"
    assert re.search(same, table, re.MULTILINE)
