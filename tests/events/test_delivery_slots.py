"""Connection slots of delivery: an error in a worker gives its slot back."""

from __future__ import annotations

import pytest

from drift_async import DriftEvents
from drift_async.events import delivery
from drift_async.events.partition import Partition
from drift_async.sandbox import Sandbox
from tests.support.events import ORG

pytestmark = pytest.mark.anyio


async def test_an_error_before_a_request_leaks_no_connection_slot(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "AFTER_A_BUG", 0.0)
    failures = iter([True] * 10)
    take_batch = Partition.take_batch

    def broken(self: Partition, most: int, size: int) -> object:
        if next(failures, False):
            raise LookupError
        return take_batch(self, most, size)

    monkeypatch.setattr(Partition, "take_batch", broken)
    async with DriftEvents(ORG, base_url=box.url, max_connections=2) as events:
        for number in range(20):
            await events.track("Tried", user_id=f"u{number}")
        stats = await events.flush()
        assert (stats.delivered, stats.pending) == (20, 0)
        slots = events._caller.state.require_open().slots
        assert [slots.try_take() for _ in range(3)] == [True, True, False]
        slots.release()
        slots.release()
