"""Pacing in virtual time: evenly spaced, first come first served, cancellable."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_async import InputError, Rate
from drift_async.core.rate import Limiter

from . import virtual


def limiter(per_second: float | None = None, burst: int = 1) -> Limiter:
    return Limiter(Rate(per_second, burst), asyncio.get_running_loop().time)


def times(per_second: float, burst: int, calls: int, tasks: int = 8) -> list[float]:
    """Return when each of many calls was let through."""

    async def main() -> list[float]:
        pace, let = limiter(per_second, burst), []
        left = iter(range(calls))

        async def work() -> None:
            for _ in left:
                await pace.acquire()
                let.append(asyncio.get_running_loop().time())

        await asyncio.gather(*(work() for _ in range(tasks)))
        return let

    return virtual.run(main())


@pytest.mark.parametrize("rate", [10.0, 100.0, 1000.0])
@pytest.mark.parametrize("burst", [1, 5])
def test_the_rate_is_used_and_never_exceeded(rate: float, burst: int) -> None:
    calls = int(3 * rate)
    let = times(rate, burst, calls)
    assert let == sorted(let)
    assert (calls - burst) / let[-1] >= 0.99 * rate
    for n, start in enumerate(let):
        assert sum(start <= at < start + 1 - 1e-9 for at in let[n:]) <= rate + burst


@given(st.floats(0.1, 1000), st.integers(1, 20), st.lists(st.floats(0, 10), max_size=60))
def test_no_window_ever_holds_more_than_rate_and_burst(
    rate: float, burst: int, gaps: list[float]
) -> None:
    now = 0.0
    pace = Limiter(Rate(rate, burst), lambda: now)
    taken = []
    for gap in gaps:
        now += gap
        if pace.take():
            taken.append(now)
    for n, start in enumerate(taken):
        for m in range(n, len(taken)):
            assert m - n + 1 <= (taken[m] - start) * rate + burst + 1e-6


def test_without_a_rate_nothing_waits() -> None:
    async def main() -> float:
        pace = limiter()
        for _ in range(1000):
            await pace.acquire()
        return asyncio.get_running_loop().time()

    assert virtual.run(main()) == 0


def test_who_comes_first_goes_first_also_past_a_pause() -> None:
    async def main() -> list[int]:
        pace, order = limiter(10), list[int]()

        async def call(number: int) -> None:
            await pace.acquire()
            order.append(number)

        tasks = [asyncio.create_task(call(number)) for number in range(20)]
        await asyncio.sleep(0.55)
        pace.pause(3)
        await asyncio.gather(*tasks)
        assert asyncio.get_running_loop().time() >= 3.55
        return order

    assert virtual.run(main()) == list(range(20))


def test_a_pause_holds_everybody_and_is_told() -> None:
    async def main() -> None:
        pace = limiter()
        pace.pause(2)
        pace.pause(1)  # a shorter one takes nothing back
        assert not pace.take()
        waiting = asyncio.create_task(pace.acquire())
        await asyncio.sleep(0.5)
        state = pace.state()
        assert (state.per_second, state.waiting) == (None, 1)
        assert state.paused_for == pytest.approx(1.5)
        await waiting
        assert asyncio.get_running_loop().time() == pytest.approx(2)
        assert pace.state().paused_for == 0
        assert pace.take()

    virtual.run(main())


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.12, 0.15])
def test_a_cancelled_wait_leaves_no_trace(moment: float) -> None:
    async def main() -> list[float]:
        pace, let = limiter(10), list[float]()

        async def call() -> None:
            await pace.acquire()
            let.append(asyncio.get_running_loop().time())

        tasks = [asyncio.create_task(call()) for _ in range(4)]
        await asyncio.sleep(moment)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pace.state().waiting == 0
        return let

    let = virtual.run(main())
    late = moment >= 0.1  # it had gone before it was cancelled
    assert let == pytest.approx([0.0, 0.1, 0.2, 0.3] if late else [0.0, 0.1, 0.2])


def test_a_slot_granted_to_one_who_is_cancelled_goes_to_the_next() -> None:
    async def main() -> float:
        pace = limiter(10)
        await pace.acquire()
        first, second = (asyncio.create_task(pace.acquire()) for _ in range(2))
        asyncio.get_running_loop().call_at(0.1, first.cancel)
        await asyncio.gather(first, second, return_exceptions=True)
        return asyncio.get_running_loop().time()

    assert virtual.run(main()) == pytest.approx(0.1)


def test_a_slot_is_handed_on_also_when_the_cancellation_comes_after_the_grant() -> None:
    async def main() -> float:
        pace, loop = limiter(10), asyncio.get_running_loop()
        await pace.acquire()
        first, second = (asyncio.create_task(pace.acquire()) for _ in range(2))
        await asyncio.sleep(0)  # both wait now, so the timer of the grant comes before the next
        loop.call_at(0.1, first.cancel)
        await asyncio.wait([first, second])
        assert first.cancelled()
        return loop.time()

    assert virtual.run(main()) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("per_second", "burst"), [(0, 1), (-1, 1), (float("inf"), 1), ("5", 1), (5, 0), (5, 1.5)]
)
def test_bad_rates_are_refused(per_second: Any, burst: Any) -> None:
    with pytest.raises(InputError):
        Rate(per_second, burst)
