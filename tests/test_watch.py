"""Time limits of attempts, in virtual time: exact for short ones, coarse for long ones."""

from __future__ import annotations

import asyncio

import pytest

from drift_async.core.watch import TICK, Watch

from . import virtual


async def attempt(watch: Watch, limit: float, work: float) -> str:
    """Do *work* seconds of waiting under a limit, as an attempt does."""
    now = asyncio.get_running_loop().time()
    one = watch.begin(now, now + limit)
    try:
        await asyncio.sleep(work)
    except asyncio.CancelledError:
        if not one.ran_out():
            raise
        return "ran out"
    finally:
        watch.end(one)
    return "done"


@pytest.mark.parametrize(("limit", "late"), [(0.3, 0.0), (0.99, 0.0), (1.0, TICK), (30.0, TICK)])
def test_an_attempt_ends_at_its_limit_and_never_before(limit: float, late: float) -> None:
    async def main() -> float:
        watch = Watch()
        assert await attempt(watch, limit, 1000) == "ran out"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert not watch.running
        return asyncio.get_running_loop().time()

    assert limit <= virtual.run(main()) <= limit + late + 1e-6


def test_each_of_many_attempts_ends_at_its_own_limit() -> None:
    async def main() -> list[str]:
        watch = Watch()
        limits = [0.5, 5.0, 50.0, 7.0]
        works = [9.0, 9.0, 9.0, 6.9]
        pairs = zip(limits, works, strict=True)
        return await asyncio.gather(*(attempt(watch, *pair) for pair in pairs))

    assert virtual.run(main()) == ["ran out", "ran out", "done", "done"]


@pytest.mark.parametrize("limit", [0.5, 5.0])
def test_a_cancellation_by_others_is_not_taken_for_the_limit(limit: float) -> None:
    async def main() -> bool:
        watch, loop = Watch(), asyncio.get_running_loop()
        task = asyncio.create_task(attempt(watch, limit, 1000))
        loop.call_later(limit / 2, task.cancel)
        await asyncio.wait([task])
        return task.cancelled() and not watch.running

    assert virtual.run(main())


def test_the_coarse_timer_rests_when_nothing_is_under_way_and_starts_again() -> None:
    async def main() -> None:
        watch = Watch()
        for _ in range(2):
            assert await attempt(watch, 30, 0.05) == "done"
            await asyncio.sleep(1)
            assert watch._timer is None
        assert await attempt(watch, 3, 10) == "ran out"

    virtual.run(main())
