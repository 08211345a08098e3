"""The shape of the package: which module may import which, and how many protocols there are."""

from __future__ import annotations

import ast
from pathlib import Path

import grimp

import drift_async
from drift_async.sync import generate

PACKAGE = Path(drift_async.__file__).parent
MOST_PROTOCOLS = 5
"""More would hide which classes really work together."""


def test_no_modules_import_each_other() -> None:
    graph = grimp.build_graph("drift_async", cache_dir=None)
    circles = set()
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            back = graph.find_shortest_chain(importer=imported, imported=importer)
            if back is not None:
                circles.add(" and ".join(sorted(back)))
    assert sorted(circles) == []


def test_there_are_few_protocols() -> None:
    apart = {"sandbox", "demo", "cli.py"}
    generated = {PACKAGE / "sync" / f"{stem}.py" for stem in generate.SOURCES}
    protocols = [
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path not in generated and path.relative_to(PACKAGE).parts[0] not in apart
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(map(is_protocol, node.bases))
    ]
    assert len(protocols) <= MOST_PROTOCOLS, protocols


def is_protocol(base: ast.expr) -> bool:
    """Return whether a base is `Protocol`, ``Protocol[T]`` or ``typing.Protocol``."""
    if isinstance(base, ast.Subscript):
        base = base.value
    return ast.unparse(base).rpartition(".")[2] == "Protocol"
