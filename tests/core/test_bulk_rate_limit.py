"""Bulks and rate limits, in virtual time: one place in the queue, deadlines that stand still."""

from __future__ import annotations

import asyncio
import math
import statistics
from typing import Any, cast

import pytest

from drift_async import DeadlineError, Drift, NewContact, RateLimitError
from drift_async.core.rate_limit import Rate
from drift_async.sandbox import Sandbox
from tests.support import virtual
from tests.support.bulk_wire import Wire, contacts, paused_until

IDS = range(1, 1001)


def test_a_long_pause_of_the_server_is_no_item_s_fault() -> None:
    async def main() -> None:
        wire = Wire(paused_until(50))
        bulk = contacts(wire).get_many(IDS)
        report = await bulk.collect()
        report.raise_for_errors()
        assert len(report.values) == 1000
        early = [at for at in wire.times() if at < 50]
        assert len(early) <= 16  # a bulk begins with so many, and nobody asks before its time
        assert 50 <= asyncio.get_running_loop().time() < 60

    virtual.run(main())


def test_a_pause_in_the_middle_is_no_item_s_fault_either() -> None:
    def answer(now: float, method: str, target: str) -> tuple[int, dict[str, str]]:
        return (503, {"Retry-After": "30"}) if 3 <= now < 3.1 else (200, {})

    async def main() -> None:
        wire = Wire(answer, latency=1.5)
        report = await contacts(wire, timeout=4.0).get_many(IDS, window=8).collect()
        report.raise_for_errors()
        assert not [at for at in wire.times() if 3.1 < at < 34.4]
        assert max(wire.times()) > 34.4

    virtual.run(main())


def test_a_pause_that_is_too_long_is_an_error_of_the_items_that_met_it() -> None:
    async def main() -> None:
        report = await contacts(Wire(paused_until(61))).get_many(IDS).collect()
        assert 0 < len(report.errors) <= 64
        for outcome in report.errors:
            assert isinstance(outcome.error, RateLimitError)
            assert (outcome.error.reason, outcome.error.applied) == ("retry_after", False)

    virtual.run(main())


def test_an_item_s_time_begins_when_the_limit_lets_it_through() -> None:
    async def main() -> float:
        report = await contacts(Wire(), Rate(2), timeout=1).get_many(range(1, 101)).collect()
        report.raise_for_errors()
        return asyncio.get_running_loop().time()

    assert virtual.run(main()) == pytest.approx(49.5, rel=0.01)


def test_an_item_that_stalls_has_its_own_timeout_and_no_more() -> None:
    async def main() -> None:
        bulk = contacts(Wire(latency=1000), Rate(10), timeout=5).get_many(range(1, 17))
        report = await bulk.collect()
        assert [type(outcome.error) for outcome in report.errors] == [DeadlineError] * 16
        assert asyncio.get_running_loop().time() == pytest.approx(1.5 + 5, abs=0.1)

    virtual.run(main())


def test_one_timeout_covers_all_requests_of_an_item_but_not_their_waits() -> None:
    def answer(now: float, method: str, target: str) -> tuple[int, dict[str, str]]:
        return (409, {}) if method == "POST" else (200, {})

    async def main(timeout: float, rate: Rate) -> str:
        people = [NewContact(email="ada@example.com", external_id="u1")]
        group = contacts(Wire(answer, latency=1), rate, timeout)
        [outcome] = [outcome async for outcome in group.upsert_many(people)]
        return type(outcome.error).__name__

    # A creation that is refused, and the look that follows: a second each; the wait of 9 between
    # them does not count.
    assert virtual.run(main(1.5, Rate())) == "DeadlineError"
    assert virtual.run(main(2.5, Rate(0.1))) == "ConflictError"


def test_single_calls_wait_behind_one_item_at_most() -> None:
    async def main() -> None:
        wire = Wire()
        group = contacts(wire, Rate(10), timeout=1000)
        bulk = asyncio.create_task(group.get_many(range(1, 301), window=64).collect())
        waits = []
        for _ in range(50):
            await asyncio.sleep(0.37)
            began = asyncio.get_running_loop().time()
            await group.get(7)
            waits.append(asyncio.get_running_loop().time() - began - wire.latency)
        assert max(waits) <= 2 / 10 + 1e-6
        assert len((await bulk).values) == 300

    virtual.run(main())


def test_bulks_walks_and_single_calls_share_one_pace() -> None:
    async def main() -> None:
        wire = Wire()
        group = contacts(wire, Rate(20), timeout=1000)

        async def singles() -> None:
            for _ in range(40):
                await group.get(7)

        async def finds() -> None:
            for _ in range(40):
                await group.find_by_email("ada@example.com")

        bulks = [group.get_many(range(1, 101)).collect() for _ in range(2)]
        await asyncio.gather(*bulks, singles(), finds())
        times = wire.times()
        assert len(times) == 280
        assert times[-1] == pytest.approx(279 / 20, rel=0.01)
        for n, at in enumerate(times[21:]):
            assert at - times[n] >= 1 - 1e-6
        # Nobody starves: each of the four has its share while all are at it.
        ids = [target for _, _, target in wire.sent[:80]]
        assert 15 <= ids.count("/contacts/7") - 2 <= 25

    virtual.run(main())


class Bucket:
    """A server's limit: so many a second, some of them at once."""

    def __init__(self, rate: float, burst: int, *, tells: bool) -> None:
        self.rate = rate
        self.burst = burst
        self.tells = tells
        self.free_at = 0.0
        self.refused = 0

    def __call__(self, now: float, method: str, target: str) -> tuple[int, dict[str, str]]:
        self.free_at = max(self.free_at, now)
        early = self.free_at - now - (self.burst - 1) / self.rate
        if early > 1e-9:
            self.refused += 1
            return 429, {"Retry-After": f"{max(1, math.ceil(early))}"} if self.tells else {}
        self.free_at += 1 / self.rate
        return 200, {}


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("rate", [None, 45.0, 80.0])
def test_a_strict_server_fails_no_item(rate: float | None, tells: bool) -> None:
    async def main() -> None:
        wire = Wire(Bucket(50, 1, tells=tells))
        group = contacts(wire, None if rate is None else Rate(rate), timeout=5)
        report = await group.get_many(IDS).collect()
        report.raise_for_errors()
        assert len(report.values) == 1000
        assert asyncio.get_running_loop().time() <= 1000 / 50 / 0.5

    virtual.run(main())


def test_items_fail_when_the_server_lets_nothing_in_for_five_minutes() -> None:
    def answer(now: float, method: str, target: str) -> tuple[int, dict[str, str]]:
        return (200, {}) if now < 10 else (429, {"Retry-After": "20"})

    async def main() -> None:
        wire = Wire(answer, latency=0.1)
        report = await contacts(wire, Rate(10), timeout=5).get_many(IDS, window=8).collect()
        assert isinstance(report.errors[0].error, RateLimitError)
        refused = [at for at in wire.times() if at >= 10]
        assert 310 <= next(at for at in refused if at > 310) <= 400
        assert {outcome.index for outcome in report.errors} == set(range(100, 1000))

    virtual.run(main())


def test_an_item_that_is_always_refused_fails_although_all_others_are_let_in() -> None:
    def answer(now: float, method: str, target: str) -> tuple[int, dict[str, str]]:
        return (429, {}) if target.endswith("/7") else (200, {})

    async def main() -> None:
        wire = Wire(answer)
        group = contacts(wire, timeout=5)

        async def others() -> None:
            while True:
                await asyncio.sleep(1)
                await group.get(1)

        traffic = asyncio.create_task(others())
        report = await group.get_many(range(1, 51)).collect()
        traffic.cancel()
        [failed] = report.errors
        assert failed.item == 7
        assert isinstance(failed.error, RateLimitError)
        assert 300 <= asyncio.get_running_loop().time() <= 400

    virtual.run(main())


def test_refused_items_go_before_those_that_were_not_sent_yet() -> None:
    def answer(now: float, method: str, target: str) -> tuple[int, dict[str, str]]:
        return (429, {"Retry-After": "2"}) if 1 <= now < 1.5 else (200, {})

    async def main() -> list[str]:
        wire = Wire(answer, latency=0.3)
        report = await contacts(wire, Rate(10), timeout=5).get_many(range(1, 41)).collect()
        report.raise_for_errors()
        return [target for at, _, target in wire.sent if at > 1.5]

    after = virtual.run(main())
    seen = [int(target.rpartition("/")[2]) for target in after]
    assert seen[1:] == sorted(seen[1:])  # one item held the place when the others were refused
    assert min(seen[1:]) == 11


ITEMS, RATE, BURST = 3000, 50, 10


def judge(began: float, ended: float, waits: list[float], refused: int, sent: int) -> None:
    ideal = (ITEMS + len(waits) - BURST) / RATE
    assert ended - began <= 1.2 * ideal
    assert refused <= 0.02 * sent
    assert statistics.quantiles(waits, n=20)[-1] <= 5 / RATE


@pytest.mark.parametrize("tells", [True, False])
def test_a_limit_that_nobody_told_is_used_and_kept_to(tells: bool) -> None:
    async def main() -> None:
        bucket = Bucket(RATE, BURST, tells=tells)
        wire = Wire(bucket)
        clock = asyncio.get_running_loop().time
        group = contacts(wire, timeout=60)
        began = clock()
        bulk = asyncio.create_task(group.get_many(range(1, ITEMS + 1)).collect())
        waits = []
        while not bulk.done():
            await asyncio.sleep(0.5)
            start = clock()
            await group.get(7)
            waits.append(clock() - start - wire.latency)
        (await bulk).raise_for_errors()
        judge(began, clock(), waits, bucket.refused, len(wire.sent))

    virtual.run(main())


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_limit_that_nobody_told_is_used_and_kept_to_in_real_time() -> None:
    async with (
        Sandbox(rate=RATE, burst=BURST, keep=10 * ITEMS) as box,
        Drift(box.token, base_url=box.url) as drift,
    ):
        clock = asyncio.get_running_loop().time
        ids = (15_811_400_000 + n % 100 for n in range(ITEMS))
        began = clock()
        bulk = asyncio.create_task(drift.contacts.get_many(ids).collect())
        waits = []
        while not bulk.done():
            await asyncio.sleep(0.5)
            start = clock()
            await drift.users.all().first()
            waits.append(clock() - start)
        (await bulk).raise_for_errors()
        refused = sum(one.status == 429 for one in box.seen)
        judge(began, clock(), waits, refused, box.count)


def test_a_cancelled_bulk_leaves_its_place() -> None:
    async def main() -> None:
        wire = Wire()
        group = contacts(wire, Rate(1), timeout=1000)
        async with group.get_many(IDS) as bulk:
            async for _ in bulk:
                break
        limiter = next(iter(cast(Any, group)._caller.site.limiters.values()))
        assert limiter.state().waiting == 0
        assert wire.under_way == 0
        began = asyncio.get_running_loop().time()
        await group.get(7)
        assert asyncio.get_running_loop().time() - began <= 1 + wire.latency

    virtual.run(main())
