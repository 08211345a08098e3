"""What is loaded by importing what."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import drift_async
from drift_async.client import GROUPS

RESOURCES = sorted(
    path.stem
    for path in (Path(drift_async.__file__).parent / "resources").glob("*.py")
    if path.stem != "__init__"
)
PROGRAM = """
import sys
import {module}
loaded = {{name for name in sys.modules}}
print(*sorted(name for name in {unwanted!r} if name in loaded))
"""
EXTRAS = {"typer", "rich", "orjson", "uvloop", "opentelemetry"}
APART = {"drift_async.sandbox", "drift_async.cli", "drift_async.demo"}


def loaded(module: str, unwanted: set[str]) -> list[str]:
    program = PROGRAM.format(module=module, unwanted=unwanted)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.smoke
@pytest.mark.parametrize("module", ["drift_async", "drift_async.sync"])
def test_the_package_alone_loads_next_to_nothing(module: str) -> None:
    assert loaded(module, {"aiohttp", "attrs", "cattrs", "anyio", "asyncio"} | EXTRAS | APART) == []


PURE = [
    *(f"resources.{name}" for name in RESOURCES),
    *(f"webhooks.{name}" for name in ("events", "verify", "signing", "webhooks")),
    "sync.webhooks",
    "identity",
    "errors",
]


@pytest.mark.parametrize("name", PURE)
def test_what_opens_no_connections_loads_no_http_client(name: str) -> None:
    unwanted = {"aiohttp", "drift_async.client", "drift_async.core.session"} | APART
    assert loaded(f"drift_async.{name}", unwanted) == []


@pytest.mark.parametrize("module", ["drift_async", "drift_async.sync"])
@pytest.mark.parametrize("name", ["Drift", "OAuth", "DriftEvents", "SegmentStream"])
def test_a_client_loads_the_http_library_when_it_is_opened(module: str, name: str) -> None:
    assert loaded(f"{module}; {module}.{name}", {"aiohttp"}) == []


def test_an_asgi_receiver_loads_no_http_library() -> None:
    program = "webhooks.webhooks; drift_async.Webhooks('t').asgi()"
    assert loaded(f"drift_async.{program}", {"aiohttp"}) == []


@pytest.mark.parametrize(
    "module",
    ["drift_async.client", "drift_async.sync.client", "drift_async.auth", "drift_async.sync.auth"],
)
def test_a_client_loads_neither_sandbox_nor_command_line_nor_extras(module: str) -> None:
    assert loaded(module, (EXTRAS - {"orjson"}) | APART) == []


def test_the_sandbox_loads_nothing_of_the_client() -> None:
    unwanted = {"drift_async.client", "drift_async.errors", "drift_async.core", "drift_async.sync"}
    assert loaded("drift_async.sandbox", unwanted) == []


@pytest.mark.parametrize("module", ["drift_async", "drift_async.sync"])
def test_a_star_brings_the_public_names_and_no_others(module: str) -> None:
    names: dict[str, object] = {}
    exec(f"from {module} import *", names)
    del names["__builtins__"]
    assert set(names) == set(dir(drift_async))


@pytest.mark.parametrize("module", ["drift_async", "drift_async.sync"])
def test_a_client_lists_its_groups(module: str) -> None:
    drift = importlib.import_module(module).Drift("token")
    assert set(GROUPS) <= set(dir(drift))
