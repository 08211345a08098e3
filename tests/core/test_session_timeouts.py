"""Time limits of attempts, in virtual time: exact for short ones, coarse for long ones."""

from __future__ import annotations

import asyncio

import pytest

from drift_async.core.watch import TICK, Watch
from tests.support import virtual


async def attempt(watch: Watch, limit: float, work: float, ahead: float = 0.0) -> str:
    """Do *work* seconds of waiting under a limit, as an attempt does; its clock may be *ahead*."""
    now = asyncio.get_running_loop().time() + ahead
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
        watch = Watch(asyncio.get_running_loop().time)
        assert await attempt(watch, limit, 1000) == "ran out"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert not watch.running
        return asyncio.get_running_loop().time()

    assert limit <= virtual.run(main()) <= limit + late + 1e-6


@pytest.mark.parametrize("limit", [0.5, 5.0])
@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_the_caller_s_clock_may_be_another(limit: float, ahead: float) -> None:
    async def main() -> float:
        watch = Watch(asyncio.get_running_loop().time)
        assert await attempt(watch, limit, limit - TICK, ahead) == "done"
        began = asyncio.get_running_loop().time()
        assert await attempt(watch, limit, 1000, ahead) == "ran out"
        return asyncio.get_running_loop().time() - began

    assert limit - 1e-6 <= virtual.run(main()) <= limit + TICK + 1e-6


def test_all_attempts_end_when_it_is_closed_and_none_is_cancelled_twice() -> None:
    async def main() -> None:
        watch = Watch(asyncio.get_running_loop().time)

        async def one(limit: float) -> tuple[str, int]:
            ended = await attempt(watch, limit, 1000)
            task = asyncio.current_task()
            assert task is not None
            return ended, task.cancelling()

        tasks = [asyncio.create_task(one(limit)) for limit in (0.5, 5.0, 50.0)]
        await asyncio.sleep(0)
        for one_of_them in watch.running:
            one_of_them.expire()  # by its limit, in the same moment
        watch.close()
        assert await asyncio.gather(*tasks) == [("ran out", 0)] * 3
        assert asyncio.get_running_loop().time() == 0

    virtual.run(main())


def test_each_of_many_attempts_ends_at_its_own_limit() -> None:
    async def main() -> list[str]:
        watch = Watch(asyncio.get_running_loop().time)
        limits = [0.5, 5.0, 50.0, 7.0]
        works = [9.0, 9.0, 9.0, 6.9]
        pairs = zip(limits, works, strict=True)
        return await asyncio.gather(*(attempt(watch, *pair) for pair in pairs))

    assert virtual.run(main()) == ["ran out", "ran out", "done", "done"]


@pytest.mark.parametrize("limit", [0.5, 5.0])
def test_a_cancellation_by_others_is_not_taken_for_the_limit(limit: float) -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        watch = Watch(loop.time)
        task = asyncio.create_task(attempt(watch, limit, 1000))
        loop.call_later(limit / 2, task.cancel)
        await asyncio.wait([task])
        return task.cancelled() and not watch.running

    assert virtual.run(main())


def test_the_coarse_timer_rests_when_nothing_is_under_way_and_starts_again() -> None:
    async def main() -> None:
        watch = Watch(asyncio.get_running_loop().time)
        for _ in range(2):
            assert await attempt(watch, 30, 0.05) == "done"
            await asyncio.sleep(1)
            assert watch._timer is None
        assert await attempt(watch, 3, 10) == "ran out"

    virtual.run(main())
