"""The outbox file, and what is written to it in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from drift_async import DriftEvents
from drift_async.events.disk import Disk, Job
from drift_async.events.lanes import Row
from drift_async.events.store import DeadLimits


def on_disk(client: DriftEvents, work: Callable[[Disk], Any]) -> asyncio.Future[Any]:
    assert client._store is not None
    return client._store._ask(work, alone=True)


LIMITS = DeadLimits(rows=9, seconds=9e9)


def rows(first: int, last: int, size: int = 9) -> list[Row]:
    return [Row(0, n, b"x" * size, n) for n in range(first, last + 1)]


def commit(disk: Disk, *jobs: Job) -> list[Any]:
    """Do jobs in one commit; return the results of those that are no rows."""
    outcomes = disk.commit(jobs)
    assert [error for _, _, error in outcomes if error] == []
    return [result for job, result, _ in outcomes if not job.rows]


def job(
    work: Callable[[Disk], Any] | None = None,
    *,
    keep: Sequence[Row] = (),
    gone: Sequence[Row] = (),
    through: int = 0,
    must: bool = False,
    alone: bool = False,
) -> Job:
    nobody: Any = None
    return Job(lambda result, error: None, nobody, keep, gone, through, work, must, alone)
