"""Outbox files, seen from below the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drift_async import DriftEvents
from drift_async.events.sqlite_file import SqliteFile
from drift_async.events.storage import DeadLetter, DeadLimits, QueuedEvent

LIMITS = DeadLimits(count=9, seconds=9e9)


def on_disk(client: DriftEvents, work: Callable[[SqliteFile], Any]) -> asyncio.Future[Any]:
    """Do something with the client's file, in the thread to which it belongs."""
    storage = client._storage
    assert storage is not None
    return storage._ask(lambda files: work(files[storage.path]))


def opened(path: Path) -> SqliteFile:
    """Open a file, or the file ``a.sqlite`` of a directory."""
    path = path / "a.sqlite" if path.is_dir() else path
    return SqliteFile(path, "drift", time.time)


def events(first: int, last: int, size: int = 9) -> list[QueuedEvent]:
    """Make events, of which each body begins with its number."""
    return [QueuedEvent(0, n, b"%d." % n + b"x" * size) for n in range(first, last + 1)]


def store(file: SqliteFile, *pieces: list[QueuedEvent], delete: list[int] | None = None) -> None:
    """Add pieces of events, and delete others, in one commit."""
    assert file.write(pieces, delete or []) == [None] * len(pieces)


def numbers(file: SqliteFile, after: int = 0) -> list[int]:
    """Return the numbers of the events that are in a file."""
    return [event.number for event in file.read(after, 100_000, 1 << 30).events]


def letters(given: list[QueuedEvent]) -> list[DeadLetter]:
    """Make dead letters of stored events."""
    return [DeadLetter(event, "refused", 400, time.time()) for event in given]
