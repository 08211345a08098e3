"""The learned pace, against servers whose limit it has to find out. In simulated time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest

from benchmarks.simulate import (
    Bucket,
    ByChance,
    FixedWindow,
    InFlight,
    Outcome,
    SlidingWindow,
    learning,
    simulate,
)
from drift_async import Drift, Rate, RateLimitError, ResponseInfo, Retry
from drift_async.core.rate_limit import GcraBucket, Limiter
from drift_async.sandbox import Sandbox
from tests.support import virtual
from tests.support.server import Server, reply


class Out(Bucket):
    """A server that refuses everything from one moment to another."""

    def __init__(self, begin: float, end: float, *, tells: bool) -> None:
        super().__init__(50, 10, tells=tells)
        self.begin, self.end = begin, end

    def ask(self, now: float) -> float | None:
        if self.begin <= now < self.end:
            return 1.0 if self.tells else 0.0
        return super().ask(now)


class Slow(Bucket):
    """A server that always tells the same long time to wait."""

    def __init__(self, wait: float) -> None:
        super().__init__(50, 20)
        self.wait = wait

    def ask(self, now: float) -> float | None:
        return None if super().ask(now) is None else self.wait


class Shrunk(Bucket):
    """A server that takes fewer requests at once than it did at first."""

    def ask(self, now: float) -> float | None:
        if now >= 5:
            self.burst = 10
        return super().ask(now)


def shares(outcome: Outcome, allowed: float, after: float = 20.0) -> tuple[float, float]:
    """Return the shares of the limit used and of requests refused."""
    taken, refused = outcome.counts(after)
    return taken / allowed, refused / (taken + refused)


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize(
    ("rate", "burst", "later", "least"),
    [
        (50, 50, 50, 0.95),
        (100, 20, 100, 0.88),
        (200, 5, 200, 0.88),
        (50, 50, 25, 0.93),
        (100, 20, 50, 0.85),
        (200, 5, 100, 0.85),
        (100, 20, 200, 0.75),
        (200, 50, 400, 0.75),
    ],
)
def test_a_limit_is_found_and_followed(
    rate: float, burst: int, later: float, least: float, tells: bool
) -> None:
    server = Bucket(rate, burst, tells=tells, change=(60, later))
    used, refused = shares(simulate(server, learning(), jitter=0.05), 40 * rate + 60 * later)
    assert used >= least
    assert refused <= 0.02


@pytest.mark.parametrize("moment", [45, 50, 55, 62])
@pytest.mark.parametrize("tells", [True, False])
def test_it_does_not_matter_when_the_limit_falls(moment: float, tells: bool) -> None:
    for rate in (50, 100):
        server = Bucket(rate, 5, tells=tells, change=(moment, rate / 2))
        allowed = (moment - 20) * rate + (120 - moment) * rate / 2
        used, refused = shares(simulate(server, learning()), allowed)
        assert used >= 0.85
        assert refused <= 0.02


@pytest.mark.parametrize("latency", [0.02, 0.5])
@pytest.mark.parametrize("tasks", [8, 256])
@pytest.mark.parametrize(("rate", "burst"), [(20, 5), (50, 100)])
def test_near_and_far_servers_few_and_many_tasks(
    latency: float, tasks: int, rate: float, burst: int
) -> None:
    outcome = simulate(Bucket(rate, burst), learning(), tasks=tasks, latency=latency, jitter=0.2)
    used, refused = shares(outcome, 100 * min(rate, tasks / latency))
    assert used >= 0.85
    assert refused <= 0.025


@pytest.mark.parametrize("seed", range(4))
def test_uneven_arrival_costs_some_of_the_limit_and_no_more(seed: int) -> None:
    outcome = simulate(Bucket(100, 20), learning(), jitter=0.5, seed=seed)
    used, refused = shares(outcome, 100 * 100)
    assert used >= 0.88
    assert refused <= 0.02


@pytest.mark.parametrize("tells", [True, False])
def test_refusals_may_be_answered_much_faster_than_the_rest(tells: bool) -> None:
    outcome = simulate(Bucket(50, 10, tells=tells), learning(), latency=0.3, quick=0.05)
    used, refused = shares(outcome, 100 * 50)
    assert used >= 0.9
    assert refused <= 0.02


def test_a_burst_that_shrinks_is_noticed() -> None:
    used, refused = shares(simulate(Shrunk(50, 60), learning()), 100 * 50)
    assert used >= 0.88
    assert refused <= 0.02


@pytest.mark.parametrize("tells", [True, False])
def test_it_comes_back_after_half_a_minute_of_refusals(tells: bool) -> None:
    outcome = simulate(Out(40, 70, tells=tells), learning(), seconds=100)
    assert sum(40 <= at < 70 for at in outcome.refused) <= 60
    assert sum(80 <= at < 100 for at in outcome.taken) >= 0.85 * 20 * 50


@pytest.mark.parametrize("wait", [10.0, 60.0])
def test_a_long_wait_is_kept_and_asked_for_rarely(wait: float) -> None:
    outcome = simulate(Slow(wait), learning(), seconds=1200)
    begin = 200 if wait < 60 else 500  # it begins as if the server counted in windows
    used, refused = shares(outcome, (1200 - begin) * 50, after=begin)
    assert used >= 0.85
    assert refused <= 0.001
    for at in outcome.refused:  # what was under way arrives in a tenth of a second
        assert not [one for one in outcome.taken if at + 0.2 < one < at + wait]


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("kind", [FixedWindow, SlidingWindow])
@pytest.mark.parametrize(("most", "seconds"), [(1000, 20), (100, 10), (60, 60), (600, 60), (10, 1)])
def test_a_server_that_counts_in_windows_is_used_and_rarely_asked_in_vain(
    kind: type[FixedWindow | SlidingWindow], most: int, seconds: int, tells: bool
) -> None:
    begin = math.ceil(60 / seconds) * seconds
    count = max(5, math.ceil(100 / seconds))
    end = begin + count * seconds
    taken, refused = simulate(kind(most, seconds, tells=tells), learning(), seconds=end).counts(
        begin
    )
    assert taken >= 0.8 * most * count
    assert refused <= 0.05 * (taken + refused)


def test_quiet_minutes_before_the_first_refusal_are_no_part_of_a_window() -> None:
    learner = learning()
    for second in range(300):
        learner.sent(second, waited=False)
        learner.let_in(second + 0.1, second)
    for n in range(100):
        learner.sent(299.5, waited=False)
        if n < 60:
            learner.let_in(299.6, 299.5)
        else:
            learner.refused(299.6, 299.5, 5.0, is_rate_limit=True)
    learner.sent(304.6, waited=True)
    learner.let_in(304.7, 304.6)
    assert learner.rate.per_second is not None
    assert 5 <= learner.rate.per_second <= 15


@pytest.mark.parametrize("most", [8, 32])
def test_a_limit_of_requests_in_flight_is_used(most: int) -> None:
    used, refused = shares(simulate(InFlight(most), learning()), 100 * most / 0.1)
    assert used >= 0.8
    assert refused <= 0.01


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("rate", [20, 50, 100, 200])
@pytest.mark.parametrize("change", [1.0, 0.5, 2.0])
def test_a_server_that_takes_one_request_at_a_time_is_used(
    rate: int, change: float, tells: bool
) -> None:
    server = Bucket(rate, 1, tells=tells, change=(60, rate * change))
    used, refused = shares(simulate(server, learning()), 40 * rate + 60 * rate * change)
    assert used >= 0.8
    assert refused <= 0.05


@pytest.mark.parametrize(("rate", "burst"), [(10, 5), (50, 10), (200, 5), (200, 20), (1000, 100)])
@pytest.mark.parametrize("latency", [0.005, 0.02])
def test_it_arrives_fast(rate: int, burst: int, latency: float) -> None:
    done = simulate(Bucket(rate, burst), learning(), latency=latency, seconds=12)
    first = done.refused[0]
    assert sum(first + 5 <= at < first + 10 for at in done.taken) >= 0.85 * 5 * rate


@pytest.mark.parametrize("tasks", [4, 16])
def test_refusals_by_chance_are_not_taken_for_the_rate_s(tasks: int) -> None:
    free, chance = (
        simulate(ByChance(share), learning(), tasks=tasks, latency=0.02, seconds=30).counts(10)[0]
        for share in (0.0, 0.02)
    )
    assert chance >= 0.5 * free


def test_a_limit_that_comes_later_is_kept_to_although_some_refusals_were_by_chance() -> None:
    class Later(ByChance):
        bucket = Bucket(50, 10, tells=False)

        def ask(self, now: float) -> float | None:
            return super().ask(now) if now < 20 else self.bucket.ask(now)

    done = simulate(Later(0.02), learning(), tasks=16, latency=0.02, seconds=70)
    used, refused = shares(done, 40 * 50, after=30)
    assert used >= 0.85
    assert refused <= 0.05


def test_it_tries_less_often_when_nothing_changes() -> None:
    refused = simulate(Bucket(50, 5), learning(), seconds=1800).refused
    tries = [at for last, at in pairwise(refused) if at > last + 1]
    early, late = ([at for at in tries if 0 <= at - t < 200] for t in (20, 1600))
    assert len(early) >= 6
    assert len(late) <= 2


def taught(limit: float = 50.0) -> tuple[GcraBucket, float]:
    """Return a learner that has found out a limit and holds now, and the time."""
    learner = learning()
    simulate(Bucket(limit, 10), learner, seconds=30)
    learner.refused(30.1, 30.0, 1.0, is_rate_limit=True)
    assert learner.rate.per_second == pytest.approx(limit, rel=0.1)
    return learner, 33.0


def test_nothing_is_held_back_before_the_first_refusal() -> None:
    learner = learning()
    for n in range(1000):
        learner.sent(n / 1e6, waited=False)
        learner.let_in(n / 1e6, n / 1e6)
    assert learner.rate.per_second is None
    assert learner.next <= 999 / 1e6


def test_the_refusals_of_one_congestion_are_one() -> None:
    learner = learning()
    for _ in range(20):
        learner.let_in(0.0, 0.0)
    learner.refused(0.1, 0.0, 1.0, is_rate_limit=True)
    first = learner.rate.per_second
    for n in range(44):
        learner.refused(0.1 + n / 1000, 0.0, 1.0, is_rate_limit=True)
    assert learner.rate.per_second == first
    assert learner.next == pytest.approx(1.143)


def test_the_first_refusal_measures_nothing() -> None:
    found = set()
    for limit in (20.0, 200.0):
        server, learner = Bucket(limit, 10), learning()
        simulate(server, learner, seconds=0.5)
        found.add(learner.rate.per_second)
        simulate(server, learner, seconds=0.5)
    assert len(found) == 1


def test_what_was_sent_before_the_pause_cuts_nothing_after_it() -> None:
    learner, now = taught()
    learner.sent(now, waited=True)
    before = learner.rate.per_second, learner.next
    for n in range(5):
        learner.refused(now + n / 10, 30.05, None, is_rate_limit=True)  # nor is it paused once more
    assert (learner.rate.per_second, learner.next) == before


def test_an_unavailable_service_pauses_and_teaches_nothing() -> None:
    for learner, now in ((learning(), 40.0), taught()):
        before = learner.rate.per_second
        for n in range(20):
            learner.refused(now + n, now + n, 0.5, is_rate_limit=False)
            assert learner.next >= now + n + 0.5
        assert learner.rate.per_second == before


def test_pauses_grow_while_nothing_gets_through_and_only_then() -> None:
    learner, now, waits = learning(), 0.0, []
    for _ in range(10):
        learner.refused(now, now, None, is_rate_limit=False)
        waits.append(learner.next - now)
        now = learner.next
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5])
    learner.let_in(now, now)
    learner.refused(now, now, None, is_rate_limit=False)
    assert learner.next - now == pytest.approx(0.05)


def test_it_does_not_grow_for_a_client_that_needs_less() -> None:
    holding, now = taught()
    seeking = learning()
    seeking.refused(now - 2, now - 2, 1.0, is_rate_limit=True)
    for learner, gap in ((holding, 10 / 50), (seeking, 10 / 1)):
        before, at = learner.rate.per_second, now
        for _ in range(1000):
            at += gap
            assert at >= learner.next
            learner.sent(at, waited=False)
            learner.let_in(at, at)
        assert learner.rate.per_second == before


def test_it_does_not_grow_without_success() -> None:
    learner, now = taught()
    before = learner.rate.per_second
    assert before is not None
    for _ in range(10_000):
        now = max(now, learner.next)
        learner.sent(now, waited=True)
    assert learner.rate.per_second is not None
    assert learner.rate.per_second <= 1.05 * before


def test_requests_that_did_not_go_after_all_do_not_count() -> None:
    found = []
    for extra in (0, 3):
        learner, now = taught()
        for _ in range(200):
            now = max(now, learner.next)
            learner.sent(now, waited=True)
            learner.let_in(now, now)
            for _ in range(extra):
                learner.sent(now, waited=True)
                learner.unsent()
        learner.refused(now + 0.1, now, 1.0, is_rate_limit=True)
        found.append(learner.rate.per_second)
    assert found[0] == pytest.approx(found[1], rel=0.01)


async def meet(server: Bucket, limiter: Limiter, seconds: float, done: Outcome) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < seconds:
        if not limiter.free and not limiter.try_acquire():
            await limiter.acquire()
        sent = loop.time()
        await asyncio.sleep(0.05)
        wait = server.ask(loop.time())
        (done.taken if wait is None else done.refused).append(loop.time())
        await asyncio.sleep(0.05)
        if wait is None:
            limiter.let_in(sent)
        else:
            limiter.refused(sent, wait, is_rate_limit=True)


@pytest.mark.parametrize(("rate", "burst", "tells"), [(50, 5, True), (50, 20, False)])
def test_the_limiter_does_what_the_simulation_does(rate: float, burst: int, tells: bool) -> None:
    done = Outcome([], [])

    async def main() -> None:
        limiter = Limiter(Rate(), asyncio.get_running_loop().time)
        server = Bucket(rate, burst, tells=tells)
        await asyncio.gather(*(meet(server, limiter, 60, done) for _ in range(16)))

    virtual.run(main())
    simulated = simulate(Bucket(rate, burst, tells=tells), learning(), tasks=16, seconds=60)
    for real, expected in ((done.taken, simulated.taken), (done.refused, simulated.refused)):
        assert sum(at <= 60 for at in real) == pytest.approx(len(expected), rel=0.03, abs=3)


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_real_server_agrees_with_the_simulation() -> None:
    begin, end = 5.0, 15.0
    async with (
        Sandbox(rate=50, burst=10) as box,
        Drift.from_env(box.env, retry=Retry(attempts=20)) as drift,
    ):
        began, done = time.monotonic(), Outcome([], [])

        async def work() -> None:
            while (now := time.monotonic() - began) < end:
                try:
                    await drift.users.get(228_224)
                    done.taken.append(time.monotonic() - began)
                except RateLimitError:
                    done.refused.append(now)

        await asyncio.gather(*(work() for _ in range(64)))
        found = drift.rate.per_second
        refused = sum(one.status == 429 for one in box.seen)
    simulated = simulate(Bucket(50, 10), learning(), latency=0.02, seconds=end)
    used = sum(begin <= at < end for at in done.taken) / (end - begin) / 50
    expected = sum(begin <= at < end for at in simulated.taken) / (end - begin) / 50
    assert found == pytest.approx(50, rel=0.05)
    assert used == pytest.approx(expected, abs=0.12)  # a try costs a tenth of the time looked at
    assert refused <= 2 * len(simulated.refused)


@pytest.mark.anyio
async def test_calls_that_wait_for_a_connection_wait_for_a_pause_as_well(
    make: Callable[..., Any],
) -> None:
    clock = asyncio.get_running_loop().time
    refused: list[float] = []
    later: list[float] = []

    def answer(number: int, _: object) -> bytes:
        if number == 6:
            refused.append(clock())
            return reply(status="429 Too Many Requests", Retry_After="1")
        if refused:
            later.append(clock() - refused[0])
        return reply(b'{"n": 7}')

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(40))
    told: list[ResponseInfo] = []
    async with (
        Server(answer) as server,
        make("t", base_url=server.url, max_connections=3, on_response=told.append) as drift,
    ):
        calls = [drift.request("GET", "/path") for _ in range(40)]
        assert await asyncio.gather(*calls) == [{"n": 7}] * 40
        assert drift.rate.waiting == 0
    # What had left when the refusal came could not be held any more.
    assert sum(after < 0.9 for after in later) < 12
    assert len(server.got) == 41
    assert server.connections <= 3
    assert sum(info.error == "held" for info in told) >= 20
    assert {info.attempt for info in told} == {1, 2}
