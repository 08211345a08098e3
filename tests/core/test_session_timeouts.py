"""Time limits of attempts, in virtual time: exact for short ones, late by a tick for long ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from drift_async.core.request import Endpoint, Request
from drift_async.core.session import OWN_TIMER_BELOW, TICK, HttpSession
from drift_async.core.slots import Limits
from tests.support import virtual

REQUEST = Request(Endpoint("GET", "/x", str), "/x")


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[HttpSession]:
    session = HttpSession("http://127.0.0.1:9", None, Limits())
    yield session
    await session.close()


async def attempt(session: HttpSession, limit: float, work: float) -> str:
    """Do *work* seconds of waiting under a limit, as an attempt does."""
    one = session._begin_attempt(REQUEST, limit)
    try:
        await asyncio.sleep(work)
    except asyncio.CancelledError:
        if not one.timed_out():
            raise
        return "timed out"
    finally:
        session._attempts.discard(one)
        one.end()
    return "done"


@pytest.mark.parametrize(
    ("limit", "late"), [(0.3, 0), (0.99, 0), (OWN_TIMER_BELOW, TICK), (30, TICK)]
)
def test_an_attempt_ends_at_its_limit_and_never_before(limit: float, late: float) -> None:
    async def main() -> float:
        async with opened() as session:
            assert await attempt(session, limit, limit - 0.001) == "done"
            began = asyncio.get_running_loop().time()
            assert await attempt(session, limit, 1000) == "timed out"
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            return asyncio.get_running_loop().time() - began

    assert limit - 1e-6 <= virtual.run(main()) <= limit + late + 1e-6


def test_all_attempts_end_with_the_session_and_none_is_cancelled_twice() -> None:
    async def main() -> None:
        async with opened() as session:

            async def one(limit: float) -> tuple[str, int]:
                ended = await attempt(session, limit, 1000)
                task = asyncio.current_task()
                assert task is not None
                return ended, task.cancelling()

            tasks = [asyncio.create_task(one(limit)) for limit in (0.5, 5.0, 50.0)]
            await asyncio.sleep(0)
            for one_of_them in session._attempts:
                one_of_them.expire()  # by its limit, in the same moment
        assert await asyncio.gather(*tasks) == [("timed out", 0)] * 3
        assert asyncio.get_running_loop().time() == 0

    virtual.run(main())


def test_each_of_many_attempts_ends_at_its_own_limit() -> None:
    async def main() -> list[str]:
        async with opened() as session:
            limits = [0.5, 5.0, 50.0, 7.0]
            works = [9.0, 9.0, 9.0, 6.9]
            pairs = zip(limits, works, strict=True)
            return await asyncio.gather(*(attempt(session, *pair) for pair in pairs))

    assert virtual.run(main()) == ["timed out", "timed out", "done", "done"]


@pytest.mark.parametrize("limit", [0.5, 5.0])
def test_a_cancellation_by_others_is_not_taken_for_the_limit(limit: float) -> None:
    async def main() -> bool:
        async with opened() as session:
            task = asyncio.create_task(attempt(session, limit, 1000))
            asyncio.get_running_loop().call_later(limit / 2, task.cancel)
            await asyncio.wait([task])
            return task.cancelled() and not session._attempts

    assert virtual.run(main())


def test_a_cancellation_that_the_attempt_swallowed_is_taken_back() -> None:
    async def main() -> int:
        async with opened() as session:
            one = session._begin_attempt(REQUEST, 0.5)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)
            session._attempts.discard(one)
            one.end()
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

    assert virtual.run(main()) == 0


def test_the_shared_timer_rests_when_nothing_is_under_way_and_starts_again() -> None:
    async def main() -> None:
        async with opened() as session:
            for _ in range(2):
                assert await attempt(session, 30, 0.05) == "done"
                await asyncio.sleep(1)
                assert session._timer is None
            assert await attempt(session, 3, 10) == "timed out"

    virtual.run(main())
