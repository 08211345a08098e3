"""Connection slots: first come first served, and never held while a call waits for the rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from drift_async import ClosedError, Drift, Rate, Retry
from drift_async.core.rate_limit import Limiter
from drift_async.core.slots import ConnectionSlots
from drift_async.sandbox import Sandbox
from tests.support import virtual
from tests.support.flavours import core

SOMEBODY = 228_225


def free(slots: ConnectionSlots) -> int:
    """Return how many slots are free, by taking and releasing them."""
    count = 0
    while slots.try_take():
        count += 1
    for _ in range(count):
        slots.release()
    return count


def limiter(rate: Rate | None = None) -> Limiter:
    return Limiter(rate or Rate(), asyncio.get_running_loop().time)


def test_slots_are_given_out_in_the_order_asked_for() -> None:
    slots, order = ConnectionSlots(1), list[str]()
    assert slots.try_take()
    assert not slots.try_take()
    for name in "abc":
        slots.take_later(lambda name=name: order.append(name))  # type: ignore[misc]
    for _ in range(3):
        assert not slots.try_take()
        slots.release()
    assert order == ["a", "b", "c"]
    slots.release()
    assert free(slots) == 1


def test_on_one_connection_no_budget_starves_another() -> None:
    async def main() -> list[str]:
        slots, order = ConnectionSlots(1), list[str]()
        budgets = {"a": limiter(), "b": limiter()}

        async def call(name: str) -> None:
            await budgets[name].acquire(slots)
            order.append(name)
            await asyncio.sleep(1)
            slots.release()

        await asyncio.gather(*(call(name) for name in "a" * 6 + "b" * 3))
        assert free(slots) == 1
        return order

    assert virtual.run(main()) == list("aabababaa")


def test_a_call_that_waits_for_its_moment_holds_no_connection() -> None:
    async def main() -> float:
        slots, slow, fast = ConnectionSlots(1), limiter(Rate(0.1)), limiter()
        await slow.acquire(slots)
        slots.release()
        waiting = asyncio.create_task(slow.acquire(slots))
        await asyncio.sleep(0.1)
        assert slow.state().waiting == 1
        await fast.acquire(slots)
        now = asyncio.get_running_loop().time()
        slots.release()
        await waiting
        return now

    assert virtual.run(main()) == pytest.approx(0.1)


def test_a_pause_that_begins_while_a_call_waits_for_a_connection_holds_it_back() -> None:
    async def main() -> tuple[float, float]:
        loop, slots = asyncio.get_running_loop(), ConnectionSlots(1)
        budget, other = limiter(), limiter()
        await other.acquire(slots)
        waiting = asyncio.create_task(budget.acquire(slots))
        await asyncio.sleep(0.1)
        budget.refused(0.1, 5.0, is_rate_limit=False)
        slots.release()
        await other.acquire(slots)  # the slot was given back at once
        at = loop.time()
        slots.release()
        await waiting
        slots.release()
        assert free(slots) == 1
        return at, loop.time()

    assert list(virtual.run(main())) == pytest.approx([0.1, 5.1])


@pytest.mark.parametrize("granted", [False, True], ids=["waiting", "granted"])
def test_a_cancelled_call_leaves_its_turn_and_its_connection_to_the_next(granted: bool) -> None:
    async def main() -> float:
        loop, slots, budget = asyncio.get_running_loop(), ConnectionSlots(1), limiter(Rate(1.0))
        await budget.acquire(slots)
        first = asyncio.create_task(budget.acquire(slots))
        second = asyncio.create_task(budget.acquire(slots))
        await asyncio.sleep(2)
        if granted:
            slots.release()  # which gives the turn to the first, in this moment
            first.cancel()
        else:
            first.cancel()
            await asyncio.sleep(0)
            slots.release()
        await second
        slots.release()
        assert first.cancelled()
        assert free(slots) == 1
        assert budget.state().waiting == 0
        return loop.time()

    assert virtual.run(main()) == pytest.approx(2.0)


def test_all_that_wait_are_woken_when_there_will_be_no_connection() -> None:
    async def main() -> list[Any]:
        slots, budget = ConnectionSlots(1), limiter()
        await budget.acquire(slots)
        calls = [asyncio.create_task(budget.acquire(slots)) for _ in range(3)]
        await asyncio.sleep(0)
        calls[1].cancel()
        budget.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        slots.release()
        assert free(slots) == 1
        assert budget.try_acquire(slots), "it works again, as a client does that is opened again"
        return [type(result) for result in results]

    assert virtual.run(main()) == [ClosedError, asyncio.CancelledError, ClosedError]


@pytest.mark.anyio
async def test_waiting_for_a_connection_costs_neither_an_attempt_nor_retries(
    make: Callable[..., Any], box: Sandbox
) -> None:
    box.fail("users.get", delay=0.05, times=None)
    # In the queue each call waits many times longer than an attempt may last.
    settings: dict[str, Any] = {"max_connections": 4, "attempt_timeout": 0.4}
    retries: list[object] = []
    async with make(
        box.token, base_url=box.url, retry=Retry(attempts=1), on_retry=retries.append, **settings
    ) as drift:
        users = await asyncio.gather(*(drift.users.get(SOMEBODY) for _ in range(100)))
        budget = core(drift)._caller.state.retry_budget
        assert budget.left == budget.size
    assert [user.id for user in users] == [SOMEBODY] * 100
    assert retries == []
    assert box.count == 100


@pytest.mark.anyio
async def test_a_call_that_gets_its_turn_in_the_moment_of_closing_ends_as_closed(
    box: Sandbox,
) -> None:
    answered = asyncio.Event()
    drift = Drift(
        box.token, base_url=box.url, max_connections=1, on_response=lambda _: answered.set()
    )
    await drift.open()
    calls = [asyncio.create_task(drift.users.get(SOMEBODY)) for _ in range(2)]

    async def close() -> None:
        await answered.wait()
        await drift.close()

    results = await asyncio.gather(*calls, close(), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["User", "ClosedError", "NoneType"]
    assert box.count == 1


def test_a_slot_of_an_older_session_is_not_given_to_a_call_of_the_next() -> None:
    async def main() -> int:
        older, newer, budget = ConnectionSlots(1), ConnectionSlots(1), limiter()
        await budget.acquire(older)
        waiting = asyncio.create_task(budget.acquire(older))
        await asyncio.sleep(0)
        budget.close()
        await budget.acquire(newer)
        next_call = asyncio.create_task(budget.acquire(newer))
        await asyncio.sleep(0)
        older.release()
        await asyncio.sleep(0)
        assert not next_call.done()
        newer.release()
        await next_call
        newer.release()
        with pytest.raises(ClosedError):
            await waiting
        return free(newer)

    assert virtual.run(main()) == 1
