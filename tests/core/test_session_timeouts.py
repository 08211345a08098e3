"""Time limits of attempts, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from drift_async.core.session import AttemptTimeout
from tests.support import virtual


async def attempt(limit: float, work: float, running: set[AttemptTimeout] | None = None) -> str:
    """Do *work* seconds of waiting under a limit, as an attempt does."""
    one = AttemptTimeout(limit)
    if running is not None:
        running.add(one)
    try:
        await asyncio.sleep(work)
    except asyncio.CancelledError:
        if not one.timed_out():
            raise
        return "timed out"
    finally:
        one.end()
    return "done"


@pytest.mark.parametrize("limit", [0.3, 1.0, 30.0])
def test_an_attempt_ends_at_its_limit_and_never_before(limit: float) -> None:
    async def main() -> float:
        assert await attempt(limit, limit - 0.001) == "done"
        began = asyncio.get_running_loop().time()
        assert await attempt(limit, 1000) == "timed out"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return asyncio.get_running_loop().time() - began

    assert limit - 1e-6 <= virtual.run(main()) <= limit + 1e-6


def test_all_attempts_can_be_ended_at_once_and_none_is_cancelled_twice() -> None:
    async def main() -> None:
        running: set[AttemptTimeout] = set()

        async def one(limit: float) -> tuple[str, int]:
            ended = await attempt(limit, 1000, running)
            task = asyncio.current_task()
            assert task is not None
            return ended, task.cancelling()

        tasks = [asyncio.create_task(one(limit)) for limit in (0.5, 5.0, 50.0)]
        await asyncio.sleep(0)
        for _ in range(2):  # by its limit, and by the end of the session
            for one_of_them in running:
                one_of_them.expire()
        assert await asyncio.gather(*tasks) == [("timed out", 0)] * 3
        assert asyncio.get_running_loop().time() == 0

    virtual.run(main())


def test_each_of_many_attempts_ends_at_its_own_limit() -> None:
    async def main() -> list[str]:
        limits = [0.5, 5.0, 50.0, 7.0]
        works = [9.0, 9.0, 9.0, 6.9]
        pairs = zip(limits, works, strict=True)
        return await asyncio.gather(*(attempt(*pair) for pair in pairs))

    assert virtual.run(main()) == ["timed out", "timed out", "done", "done"]


@pytest.mark.parametrize("limit", [0.5, 5.0])
def test_a_cancellation_by_others_is_not_taken_for_the_limit(limit: float) -> None:
    async def main() -> bool:
        task = asyncio.create_task(attempt(limit, 1000))
        asyncio.get_running_loop().call_later(limit / 2, task.cancel)
        await asyncio.wait([task])
        return task.cancelled()

    assert virtual.run(main())


def test_a_cancellation_that_the_attempt_swallowed_is_taken_back() -> None:
    async def main() -> int:
        one = AttemptTimeout(0.5)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
        one.end()
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert virtual.run(main()) == 0
