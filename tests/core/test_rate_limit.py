"""Pacing in virtual time: evenly spaced, first come first served, cancellable."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from benchmarks.simulate import Bucket, simulate
from drift_async import InputError, Rate, RateState
from drift_async.core.adaptive import AdaptiveRate
from drift_async.core.rate_limit import BACKOFF, MARGIN, TOLERANCE, GcraBucket, Limiter, Place
from drift_async.core.slots import ConnectionSlots
from tests.support import virtual

SLOTS = ConnectionSlots(10**9)

INTERVAL = (1 + MARGIN) / 10
"""Seconds between two turns at ten a second: the pace leaves room to make up for late timers."""


def bucket(per_second: float, burst: int = 1) -> GcraBucket:
    return GcraBucket(AdaptiveRate(per_second, burst))


def pause(pace: Limiter, seconds: float) -> None:
    """Pause as a 503 does, which does not teach."""
    pace.refused(pace._clock(), seconds, is_rate_limit=False)


def limiter(per_second: float | None = None, burst: int = 1) -> Limiter:
    return Limiter(Rate(per_second, burst), asyncio.get_running_loop().time)


def times(per_second: float, burst: int, calls: int, tasks: int = 8) -> list[float]:
    """Return when each of many calls was let through."""

    async def main() -> list[float]:
        pace, let = limiter(per_second, burst), []
        left = iter(range(calls))

        async def work() -> None:
            for _ in left:
                await pace.acquire(SLOTS)
                let.append(asyncio.get_running_loop().time())

        await asyncio.gather(*(work() for _ in range(tasks)))
        return let

    return virtual.run(main())


@pytest.mark.parametrize("rate", [10.0, 100.0, 1000.0])
@pytest.mark.parametrize("burst", [2, 5])
def test_the_rate_is_used_and_never_exceeded(rate: float, burst: int) -> None:
    calls = int(3 * rate)
    let = times(rate, burst, calls)
    assert let == sorted(let)
    assert (calls - burst) / let[-1] >= 0.99 * rate
    assert fullest_second(let) <= rate + burst


def fullest_second(moments: Sequence[float]) -> int:
    return max(bisect_left(moments, at + 1 - 1e-9) - n for n, at in enumerate(moments))


@given(
    st.sampled_from([10, 50, 1000]),
    st.sampled_from([1, 4]),
    st.lists(st.floats(0, 0.1) | st.floats(0, 0.004), min_size=1, max_size=50),
)
def test_late_timers_never_crowd_a_second(rate: int, burst: int, lates: list[float]) -> None:
    pace, now, let = bucket(rate, burst), 0.0, []
    for n in range(3 * rate):
        now = max(now, pace.next) + lates[n % len(lates)]
        pace.sent(now, waited=True)
        let.append(now)
    assert fullest_second(let) <= rate + burst


@given(st.sampled_from([10, 50, 90, 400]), st.lists(st.floats(0, 0.02), min_size=1, max_size=50))
def test_without_a_burst_no_gap_is_much_below_the_interval(rate: int, lates: list[float]) -> None:
    pace, now, let = bucket(rate), 0.0, []
    for n in range(2 * rate):
        now = max(now, pace.next) + lates[n % len(lates)]
        pace.sent(now, waited=n % 3 > 0)
        let.append(now)
    assert min(later - at for at, later in pairwise(let)) >= 0.95 / rate


@pytest.mark.parametrize(("rate", "late"), [(10, 0.005), (100, 0.01), (1000, 0.01)])
def test_the_default_burst_makes_up_for_late_timers(rate: int, late: float) -> None:
    pace, now = bucket(rate, Rate(rate).burst), 0.0
    for n in range(5 * rate):
        now = max(now, pace.next + late * (n % 5 == 0))
        pace.sent(now, waited=True)
    assert (5 * rate - 1) / now >= 0.99 * rate


@pytest.mark.parametrize(
    ("per_second", "burst"), [(None, 1), (0.5, 1), (50, 1), (99, 1), (100, 2), (180, 3), (1000, 20)]
)
def test_the_default_burst_is_what_20_ms_hold(per_second: float | None, burst: int) -> None:
    assert Rate(per_second).burst == burst
    assert Rate(per_second, 7).burst == 7


@pytest.mark.parametrize(("rate", "is_strict"), [(150, False), (400, True)])
def test_where_no_timer_is_fine_enough_the_loop_is_asked(rate: int, is_strict: bool) -> None:
    assert bucket(rate).is_strict is is_strict
    assert not bucket(rate, 20).is_strict


@given(st.floats(0.1, 1000), st.integers(1, 20), st.lists(st.floats(0, 10), max_size=60))
def test_no_window_ever_holds_more_than_rate_and_burst(
    rate: float, burst: int, gaps: list[float]
) -> None:
    now = 0.0
    pace = Limiter(Rate(rate, burst), lambda: now)
    taken = []
    for gap in gaps:
        now += gap
        if pace.try_acquire(SLOTS):
            taken.append(now)
    for n, start in enumerate(taken):
        for m in range(n, len(taken)):
            assert m - n + 1 <= (taken[m] - start) * rate + burst + TOLERANCE + 1e-6


def test_without_a_rate_nothing_waits() -> None:
    async def main() -> float:
        pace = limiter()
        for _ in range(1000):
            await pace.acquire(SLOTS)
        return asyncio.get_running_loop().time()

    assert virtual.run(main()) == 0


def test_who_comes_first_goes_first_also_past_a_pause() -> None:
    async def main() -> list[int]:
        pace, order = limiter(10), list[int]()

        async def call(number: int) -> None:
            await pace.acquire(SLOTS)
            order.append(number)

        tasks = [asyncio.create_task(call(number)) for number in range(20)]
        await asyncio.sleep(0.55)
        pause(pace, 3)
        await asyncio.gather(*tasks)
        assert asyncio.get_running_loop().time() >= 3.55
        return order

    assert virtual.run(main()) == list(range(20))


def test_a_pause_holds_everybody_and_is_told() -> None:
    async def main() -> None:
        pace = limiter()
        pause(pace, 2)
        pause(pace, 1)  # a shorter one takes nothing back
        assert not pace.try_acquire(SLOTS)
        waiting = asyncio.create_task(pace.acquire(SLOTS))
        await asyncio.sleep(0.5)
        state = pace.state()
        assert (state.per_second, state.waiting) == (None, 1)
        assert state.paused_for == pytest.approx(1.5)
        await waiting
        assert asyncio.get_running_loop().time() == pytest.approx(2)
        assert pace.state().paused_for == 0
        assert pace.try_acquire(SLOTS)

    virtual.run(main())


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.13, 0.15])
def test_a_cancelled_wait_leaves_no_trace(moment: float) -> None:
    async def main() -> list[float]:
        pace, let = limiter(10), list[float]()

        async def call() -> None:
            await pace.acquire(SLOTS)
            let.append(asyncio.get_running_loop().time())

        tasks = [asyncio.create_task(call()) for _ in range(4)]
        await asyncio.sleep(moment)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pace.state().waiting == 0
        return let

    let = virtual.run(main())
    late = moment >= 0.1  # it had gone before it was cancelled
    assert let == pytest.approx([n * INTERVAL for n in range(4 if late else 3)])


def test_a_slot_granted_to_one_who_is_cancelled_goes_to_the_next() -> None:
    async def main() -> float:
        pace = limiter(10)
        await pace.acquire(SLOTS)
        first, second = (asyncio.create_task(pace.acquire(SLOTS)) for _ in range(2))
        asyncio.get_running_loop().call_at(INTERVAL, first.cancel)
        await asyncio.gather(first, second, return_exceptions=True)
        return asyncio.get_running_loop().time()

    assert virtual.run(main()) == pytest.approx(INTERVAL)


def test_a_slot_is_handed_on_also_when_the_cancellation_comes_after_the_grant() -> None:
    async def main() -> float:
        pace, loop = limiter(10), asyncio.get_running_loop()
        await pace.acquire(SLOTS)
        first, second = (asyncio.create_task(pace.acquire(SLOTS)) for _ in range(2))
        await asyncio.sleep(0)  # both wait now, so the timer of the grant comes before the next
        loop.call_at(INTERVAL, first.cancel)
        await asyncio.wait([first, second])
        assert first.cancelled()
        return loop.time()

    assert virtual.run(main()) == pytest.approx(INTERVAL)


def test_one_who_waits_again_and_again_keeps_nobody_else_from_a_turn() -> None:
    async def main() -> list[str]:
        pace, order = limiter(10), list[str]()

        async def bulk() -> None:
            for _ in range(50):
                await pace.acquire(SLOTS)
                order.append("bulk")

        async def single() -> None:
            await asyncio.sleep(1.01)
            for _ in range(5):
                asked = asyncio.get_running_loop().time()
                await pace.acquire(SLOTS)
                order.append("single")
                assert asyncio.get_running_loop().time() - asked <= 2 * INTERVAL + 1e-9

        await asyncio.gather(bulk(), single())
        return order

    order = virtual.run(main())
    assert order[11:21] == ["bulk", "single"] * 5


def test_nobody_overtakes_those_who_wait_for_a_late_timer() -> None:
    async def main() -> None:
        now = 0.0
        pace = Limiter(Rate(10), lambda: now)
        assert pace.try_acquire(SLOTS)
        waiting = asyncio.create_task(pace.acquire(SLOTS))
        await asyncio.sleep(0)
        now = 1.0  # the timer has not run yet
        assert not pace.try_acquire(SLOTS)
        await waiting

    virtual.run(main())


def test_a_call_keeps_its_place_when_it_comes_again() -> None:
    async def main() -> list[str]:
        pace, order, loop = limiter(10), list[str](), asyncio.get_running_loop()

        async def call(name: str, place: Place | None) -> None:
            await pace.acquire(SLOTS, place)
            order.append(name)

        await pace.acquire(SLOTS)
        began = loop.time()
        await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(call(f"new {n}", None)) for n in range(3)]
        await asyncio.sleep(0.01)
        waiting += [asyncio.create_task(call(f"old {n}", (began, n))) for n in (1, 0)]
        await asyncio.gather(*waiting)
        return order

    assert virtual.run(main()) == ["old 0", "old 1", "new 0", "new 1", "new 2"]


def test_an_unavailable_service_pauses_a_fixed_rate_and_changes_nothing_else() -> None:
    async def main() -> None:
        pace, loop = limiter(10, 5), asyncio.get_running_loop()
        for _ in range(4):
            pace.refused(loop.time(), 3, is_rate_limit=False)
            assert not pace.try_acquire(SLOTS)
            assert pace.paused_for() == 3
            await pace.acquire(SLOTS)
            assert pace.paused_for() == 0
            assert (pace.state().per_second, pace.state().burst) == (10, 5)
        assert loop.time() == 12
        pace.refused(loop.time(), None, is_rate_limit=False)
        assert pace.paused_for() == pytest.approx(BACKOFF)
        pace.refused(loop.time() - 1, None, is_rate_limit=False)  # for this one, too
        assert pace.paused_for() == pytest.approx(BACKOFF)

    virtual.run(main())


def test_a_fixed_rate_that_is_refused_goes_below_and_comes_back() -> None:
    pace = bucket(100, 2)
    done = simulate(Bucket(50, 10, change=(60, 500)), pace, seconds=150)
    assert (pace.rate.per_second, pace.rate.ceiling) == (100, 100)
    assert sum(20 <= at < 60 for at in done.taken) >= 0.9 * 40 * 50
    assert sum(110 <= at < 150 for at in done.taken) >= 0.97 * 40 * 100
    assert fullest_second(done.taken) <= 102


@pytest.mark.parametrize(("rate", "least"), [(50, 0.85), (200, 0.85)])
def test_a_burst_that_the_server_does_not_take_costs_little(rate: int, least: float) -> None:
    own = Rate(0.9 * rate)
    pace = bucket(0.9 * rate, own.burst)
    taken, refused = simulate(Bucket(rate, 1), pace, seconds=60).counts(5)
    assert taken >= least * 0.9 * rate * 55
    assert refused <= 0.03 * taken


def test_a_rate_above_the_limit_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> RateState:
        pace, loop = limiter(180), asyncio.get_running_loop()
        server = Bucket(50, 5)
        while loop.time() < 30:
            await pace.acquire(SLOTS)
            if (wait := server.ask(loop.time())) is None:
                pace.let_in(loop.time())
            else:
                pace.refused(loop.time(), wait, is_rate_limit=True)
        return pace.state()

    with caplog.at_level("WARNING", "drift_async"):
        state = virtual.run(main())
    assert state.ceiling == 180
    assert state.per_second is not None
    assert state.per_second == pytest.approx(50, rel=0.1)
    [record] = caplog.records
    said = r"refused \d+ times at your own rate of 180/s; sending \d+/s"
    assert re.fullmatch(said, record.getMessage())


def test_a_learned_rate_that_is_refused_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        pace, loop = limiter(), asyncio.get_running_loop()
        for _ in range(9):
            await pace.acquire(SLOTS)
            pace.refused(loop.time(), 1, is_rate_limit=True)

    with caplog.at_level("WARNING", "drift_async"):
        virtual.run(main())
    assert not caplog.records


def test_after_a_pause_of_our_own_length_one_request_asks_for_all() -> None:
    async def main() -> tuple[list[float], list[float]]:
        pace, loop = limiter(), asyncio.get_running_loop()
        went: list[float] = []

        async def call() -> None:
            await pace.acquire(SLOTS)
            went.append(loop.time())

        pace.refused(loop.time(), None, is_rate_limit=False)
        calls = [asyncio.create_task(call()) for _ in range(5)]
        await asyncio.sleep(0.5)
        alone = went.copy()
        pace.let_in(loop.time())
        await asyncio.gather(*calls)
        return alone, went

    alone, went = virtual.run(main())
    assert alone == [BACKOFF]
    assert went == [BACKOFF] + [0.5] * 4


def test_a_free_limiter_is_free_again_after_a_pause() -> None:
    async def main() -> None:
        pace = limiter()
        assert pace._is_free
        pace.refused(0.0, 1.0, is_rate_limit=False)
        assert not pace._is_free
        await pace.acquire(SLOTS)
        assert pace._is_free
        pause(pace, 1)
        await asyncio.sleep(1)
        assert pace.try_acquire(SLOTS)
        assert pace._is_free

    virtual.run(main())


def test_it_works_on_in_another_loop_even_if_the_first_left_somebody_waiting() -> None:
    loop = virtual.VirtualLoop()
    pace = Limiter(Rate(10), lambda: clock())
    clock = loop.time

    async def leave() -> None:
        await pace.acquire(SLOTS)
        left.append(asyncio.ensure_future(pace.acquire(SLOTS)))
        await asyncio.sleep(0)
        assert pace.state().waiting == 1

    left: list[Any] = []
    loop.run_until_complete(leave())
    loop.close()
    left[0]._log_destroy_pending = False

    async def go_on() -> int:
        nonlocal clock
        clock = asyncio.get_running_loop().time
        async with asyncio.timeout(5):
            for _ in range(3):
                await pace.acquire(SLOTS)
        return pace.state().waiting

    assert virtual.run(go_on()) == 0


class Model(RuleBasedStateMachine):
    """Anything may happen to a limiter, in any order; time passes only when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = virtual.VirtualLoop()
        self.let: list[float] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.pauses: list[tuple[float, float]] = []

    @initialize(
        per_second=st.none() | st.floats(0.5, 100), burst=st.integers(1, 5), seen=st.integers(0, 20)
    )
    def begin(self, per_second: float | None, burst: int, seen: int) -> None:
        self.rate = Rate(per_second, burst)
        self.limiter = Limiter(self.rate, self.loop.time)
        for _ in range(seen):
            self.limiter.let_in(0.0)

    @rule()
    def try_acquire(self) -> None:
        if self.limiter.try_acquire(SLOTS):
            self.let.append(self.loop.time())

    @rule(most=st.integers(1, 5))
    def acquire(self, most: int) -> None:
        async def call() -> None:
            await self.limiter.acquire(SLOTS)
            self.let.append(self.loop.time())

        self.tasks += [self.loop.create_task(call()) for _ in range(most)]

    @precondition(lambda self: self.tasks)
    @rule(which=st.integers(0, 100), after=st.floats(0, 1))
    def cancel(self, which: int, after: float) -> None:
        task = self.tasks[which % len(self.tasks)]
        if after < 0.5:
            task.cancel()
        else:
            self.loop.call_later(after, task.cancel)

    @precondition(lambda self: any(not task.done() for task in self.tasks))
    @rule(which=st.integers(0, 100))
    def cancel_at_the_turn(self, which: int) -> None:
        """Cancel in the very moment in which the next slot is granted."""
        waiting = [task for task in self.tasks if not task.done()]
        moment = max(self.loop.time(), self.limiter._bucket.next)
        self.loop.call_at(moment, waiting[which % len(waiting)].cancel)

    @rule(seconds=st.floats(0, 3))
    def pause(self, seconds: float) -> None:
        pause(self.limiter, seconds)
        self.note_pause()

    @rule(age=st.floats(0, 1), wait=st.none() | st.floats(0, 3), is_rate_limit=st.booleans())
    def refused(self, age: float, wait: float | None, is_rate_limit: bool) -> None:
        self.limiter.refused(self.loop.time() - age, wait, is_rate_limit=is_rate_limit)
        self.note_pause()

    @rule(age=st.floats(0, 1), count=st.integers(1, 20))
    def succeeded(self, age: float, count: int) -> None:
        for _ in range(count):
            self.limiter.let_in(self.loop.time() - age)

    @rule(seconds=st.floats(0, 2))
    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def note_pause(self) -> None:
        now = self.loop.time()
        self.pauses.append((now, now + self.limiter.paused_for()))

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "limiter"):
            return
        for _ in range(3):  # what can go at once goes
            self.loop.run_until_complete(asyncio.sleep(0))
        waiting = sum(not task.done() for task in self.tasks)
        assert self.limiter.state().waiting == waiting
        assert not (self.limiter._is_free and waiting)
        for begin, end in self.pauses:
            assert not any(begin < at < end - 1e-9 for at in self.let)
        if self.rate.per_second is not None:
            self.keeps_the_rate(self.rate.per_second, self.rate.burst)

    def keeps_the_rate(self, rate: float, burst: int) -> None:
        for n, start in enumerate(self.let):
            for m in range(n, len(self.let)):
                seconds = self.let[m] - start
                assert m - n + 1 <= seconds / (1 + MARGIN) * rate + burst + TOLERANCE + 1e-6

    def teardown(self) -> None:
        if hasattr(self, "limiter"):
            waiting = [task for task in self.tasks if not task.done()]
            if waiting:  # all get their turn
                self.loop.run_until_complete(asyncio.wait(waiting, timeout=10_000))
            assert all(task.done() for task in self.tasks)
            assert self.limiter.state().waiting == 0
            self.holds()
        self.loop.close()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(
    ("per_second", "burst"), [(0, 1), (-1, 1), (float("inf"), 1), ("5", 1), (5, 0), (5, 1.5)]
)
def test_bad_rates_are_refused(per_second: Any, burst: Any) -> None:
    with pytest.raises(InputError):
        Rate(per_second, burst)
