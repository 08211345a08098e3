"""The tests themselves: where they are, and what they import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in TESTS.rglob("*.py")
}


def imported(module: str, source: str) -> Iterator[str]:
    """Give the dotted name of each module or member that *source* imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")[: -node.level] if node.level else []
            parts += [node.module] if node.module else []
            yield from (".".join([*parts, name.name]) for name in node.names)


def is_shared(name: str) -> bool:
    """Return whether tests may import the module: a helper, or one that is not below tests/."""
    return name.split(".")[0] != "tests" or name.startswith("tests.support.")


def test_no_module_of_the_tests_imports_another_but_from_support() -> None:
    assert len(MODULES) > 100
    assert [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in imported(module, path.read_text("utf-8"))
        if not is_shared(name)
    ] == []


@pytest.mark.parametrize(
    "line",
    [
        "import tests.core.test_bulk",
        "from tests.core.test_bulk import IDS",
        "from tests.core import test_bulk",
        "from .test_bulk import IDS",
        "from . import test_bulk",
        "from ..test_errors import CALLS",
        "from .conftest import Maker",
    ],
)
def test_an_import_of_another_test_module_is_found(line: str) -> None:
    assert not all(map(is_shared, imported("tests.core.test_paging", line)))


def test_support_has_no_tests() -> None:
    assert not [name for name in MODULES if name.startswith("tests.support.test_")]
