"""The README's examples run, on both faces by the twin law, and say the same."""

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

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
AWAITED = [example for example in EXAMPLES if "drift_async.sync" not in example]


def blocking(example: str) -> str:
    """Return the example by the twin law: without async and await, with .sync in the import."""
    text = example.replace("from drift_async import", "from drift_async.sync import")
    return re.sub(r"\b(?:async|await) ", "", text)


def run(example: str) -> str:
    """Run an example, with `await` at its top level, and return what it printed."""
    code = compile(example, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(started(code))
        else:
            exec(code, {"__name__": "__readme__"})
    return out.getvalue()


async def started(code: CodeType) -> None:
    await FunctionType(code, {"__name__": "__readme__"})()


@pytest.mark.smoke
@pytest.mark.parametrize("example", AWAITED, ids=range(len(AWAITED)))
def test_the_twin_law(example: str) -> None:
    awaited = without_times(run(example))
    assert awaited.strip()
    assert without_times(run(blocking(example))) == awaited


def without_times(text: str) -> str:
    """Leave out when something was created, which differs from run to run."""
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*", "TIME", text)


def test_the_blocking_example_is_the_awaited_one_by_the_law() -> None:
    assert blocking(EXAMPLES[0]) == EXAMPLES[1]


def test_every_example_is_here() -> None:
    assert len(AWAITED) == len(EXAMPLES) - 1 >= 4


def test_the_two_commands_stand_in_one_block_and_ci_runs_the_one_for_the_tests() -> None:
    block = re.search(r"## Two commands\n\n```\n(.*?)```", README, re.DOTALL)
    assert block is not None
    demo, tests = block[1].splitlines()
    assert demo.endswith("drift-async demo")
    assert tests in (ROOT / ".ci" / "run").read_text().splitlines()
