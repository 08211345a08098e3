"""Calls that the rate refuses: they wait for their turn again, and cost no attempt meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from drift_async import Rate, RateLimitError, ResponseInfo, Retry
from drift_async.sandbox import Sandbox
from tests.support.flavours import core

pytestmark = pytest.mark.anyio
ONCE = Retry(attempts=1)


@pytest.fixture
def heard() -> list[ResponseInfo]:
    return []


async def test_a_refusal_costs_no_attempt_while_others_are_let_in(
    box: Sandbox, make: Any, heard: list[ResponseInfo]
) -> None:
    async with make(box.token, base_url=box.url, retry=ONCE, on_response=heard.append) as drift:
        await drift.users.get(228_224)
        box.fail("users.get", status=429, times=4)
        await drift.users.get(228_224)
    assert [one.status for one in heard] == [200, 429, 429, 429, 429, 200]
    assert box.count == 6


async def test_refusals_leave_a_call_its_attempts_for_other_failures(
    box: Sandbox, make: Any
) -> None:
    retry = Retry(attempts=2, base=0.01)
    async with make(box.token, base_url=box.url, retry=retry) as drift:
        await drift.users.get(228_224)
        box.fail("users.get", status=429, times=2)
        box.fail("users.get", status=500)
        await drift.users.get(228_224)
    assert box.count == 5


async def test_a_refusal_counts_as_an_attempt_where_nothing_was_let_in(
    box: Sandbox, make: Any
) -> None:
    box.fail("users.get", status=429, times=None)
    async with make(
        box.token, base_url=box.url, retry=Retry(attempts=2, throttled_base=0.01)
    ) as drift:
        with pytest.raises(RateLimitError) as caught:
            await drift.users.get(228_224)
    assert (caught.value.attempts, caught.value.reason, box.count) == (2, "attempts", 2)


async def test_it_ends_with_the_deadline_as_a_rate_limit(box: Sandbox, make: Any) -> None:
    async with make(box.token, base_url=box.url, retry=ONCE, timeout=0.5) as drift:
        await drift.users.get(228_224)
        box.fail("users.get", status=429, times=None)
        with pytest.raises(RateLimitError) as caught:
            await drift.users.get(228_224)
    assert caught.value.applied is False
    assert caught.value.attempts == box.count - 1 > 1
    assert 0.1 <= caught.value.elapsed <= 5


@pytest.mark.parametrize("seconds", ["7", "61"])
async def test_it_ends_at_once_if_the_pause_outlasts_it(
    box: Sandbox, make: Any, seconds: str
) -> None:
    async with make(box.token, base_url=box.url, timeout=5) as drift:
        await drift.users.get(228_224)
        box.fail("users.get", status=429, headers={"Retry-After": seconds}, times=None)
        with pytest.raises(RateLimitError) as caught:
            await drift.users.get(228_224)
    assert (caught.value.attempts, caught.value.reason) == (1, "retry_after")
    assert caught.value.retry_after == float(seconds)


async def test_creates_that_must_not_be_repeated_are_not(box: Sandbox, make: Any) -> None:
    async with make(box.token, base_url=box.url, retry=Retry(repeat_refused=False)) as drift:
        await drift.users.get(228_224)
        box.fail("contacts.create", status=429)
        with pytest.raises(RateLimitError):
            await drift.contacts.create("ada@example.com")
    assert box.count == 2


async def test_the_quota_pays_for_no_refusal_of_the_rate(box: Sandbox, make: Any) -> None:
    async with make(box.token, base_url=box.url, retry=ONCE) as drift:
        await drift.users.get(228_224)
        box.fail("users.get", status=429, times=3)
        quota = core(drift)._caller.site.quota
        await drift.users.get(228_224)
        assert quota.left == quota.size


async def test_the_rate_that_was_set_and_the_one_that_is_sent_are_told(
    box: Sandbox, make: Any
) -> None:
    async with make(box.token, base_url=box.url, rate=Rate(1000)) as drift:
        assert (drift.rate.per_second, drift.rate.ceiling, drift.rate.burst) == (1000, 1000, 20)
        await drift.users.get(228_224)
        box.fail("users.get", status=429, times=3)
        await drift.users.get(228_224)
        assert drift.rate.ceiling == 1000
        assert drift.rate.per_second < 1000
