"""Event clients of either face, what they leave on disk, and what the sandbox has got of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drift_async
import drift_async.sync
from drift_async import DriftEvents, Retry, Track
from drift_async.sandbox import Sandbox
from tests.support.flavours import Awaitable

Maker = Callable[..., Any]


def maker(face: str, name: str) -> Maker:
    if face == "awaited":
        return getattr(drift_async, name)  # type: ignore[no-any-return]
    twin = getattr(drift_async.sync, name)
    return lambda *args, **kwargs: Awaitable(twin(*args, **kwargs))


SOON = Retry(base=0.001, throttled_base=0.001)
"""Waits too short to be noticed."""


def total(stats: Any) -> int:
    lost: int = sum(stats.dropped.values())
    return int(stats.delivered + stats.pending + stats.dead + lost)


def numbers_of(box: Sandbox, api: str = "drift") -> dict[str, list[int]]:
    seen: dict[str, list[int]] = {}
    for event in box.events(api):
        inner = event.value["attributes" if api == "drift" else "event"]
        seen.setdefault(event.user, []).append(inner["n"])
    return seen


def are_in_order(seen: dict[str, list[int]]) -> bool:
    return all(numbers == sorted(numbers) for numbers in seen.values())


UNFINISHED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
"""A head of which the end never comes."""


ORG = 123_458

NOWHERE = "http://127.0.0.1:9"


async def until(true: Callable[[], object]) -> None:
    """Wait for what happens in the background."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def image(folder: Path, copy: Path) -> Path:
    """Copy the files as a crash would leave them; return the database's."""
    shutil.copytree(folder, copy)
    (path,) = copy.glob("*.sqlite")
    return path


async def left(folder: Path, name: str, count: int, user: str = "u") -> None:
    """Leave events behind, in a file of their own."""
    async with DriftEvents(ORG, base_url=NOWHERE, outbox=folder / f"drift-{name}.sqlite") as client:
        await client.track_many(
            Track("Step", user_id=user, attributes={"n": n}) for n in range(count)
        )
        await client.close(0)


def overwrite(path: Path, at: int, what: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(what)
