"""Bulks on the awaited face: asynchronous input, cancellation, what is left behind; and the engine
under random schedules."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextvars import ContextVar
from itertools import count, repeat
from typing import Any, cast

import anyio
import pytest
from hypothesis import given, settings, strategies as st

from drift_async import Drift
from drift_async.core.bulk import Bulk
from drift_async.sandbox import Sandbox
from tests.support import virtual

pytestmark = pytest.mark.anyio

FIRST = 15_811_400_000
KNOWN = range(FIRST, FIRST + 100)
WINDOW = 8


@pytest.fixture
async def drift(box: Sandbox) -> AsyncIterator[Drift]:
    async with Drift(box.token, base_url=box.url) as drift:
        yield drift


def others() -> set[asyncio.Task[Any]]:
    """Return the tasks of bulks that are not over."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    return {task for task in tasks if task is not None and "BulkScheduler" in repr(task)}


async def stream(ids: Any) -> AsyncIterator[int]:
    for one in ids:
        await asyncio.sleep(0)
        yield one


async def test_an_asynchronous_iterable_does_as_well(drift: Drift, box: Sandbox) -> None:
    bulk = drift.contacts.get_many(stream(KNOWN), window=WINDOW)
    assert [outcome.value.id async for outcome in bulk] == list(KNOWN)
    walk = (c.contact_id or 0 async for c in drift.conversations.all(page_size=10))
    report = await drift.contacts.get_many(walk).collect()
    assert len(report.values) == 50
    assert not others()


async def test_what_an_asynchronous_iterable_raises_names_the_index(drift: Drift) -> None:
    async def ids() -> AsyncIterator[int]:
        for one in KNOWN[:20]:
            yield one
        raise KeyError("no such column")

    report = await drift.contacts.get_many(ids(), window=WINDOW).collect()
    assert len(report.values) == 20
    assert isinstance(report.items_error, KeyError)
    assert "at index 20" in report.items_error.__notes__[0]


async def test_a_slow_stream_holds_no_finished_outcome_back(drift: Drift) -> None:
    more = asyncio.Event()

    async def ids() -> AsyncIterator[int]:
        yield KNOWN[0]
        await more.wait()
        yield KNOWN[1]

    bulk = drift.contacts.get_many(ids())
    assert (await anext(bulk)).ok
    more.set()
    assert [outcome.index async for outcome in bulk] == [1]


async def test_one_task_does_all_the_pulling(drift: Drift) -> None:
    pullers = set()

    async def ids() -> AsyncIterator[int]:
        for one in KNOWN:
            pullers.add(asyncio.current_task())
            yield one

    async for _ in drift.contacts.get_many(ids(), window=WINDOW):
        await asyncio.sleep(0.001)
    assert len(pullers) == 1


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_dropped_bulk_leaves_nothing(
    drift: Drift, box: Sandbox, block: bool, asynchronous: bool
) -> None:
    ids = stream(count(FIRST)) if asynchronous else iter(KNOWN)
    bulk = drift.contacts.get_many(ids, window=WINDOW)
    if block:
        async with bulk:
            await anext(bulk)
        assert not others()
    else:
        async for _ in bulk:
            break
    del bulk, ids
    async with asyncio.timeout(5):
        while others():  # noqa: ASYNC110  # a task that nobody knows has no event
            await asyncio.sleep(0.001)
    gc.collect()
    assert box.count <= WINDOW


@pytest.mark.parametrize("kind", ["asyncio", "anyio"])
@pytest.mark.parametrize("block", [True, False])
async def test_a_timeout_around_a_bulk(drift: Drift, box: Sandbox, kind: str, block: bool) -> None:
    box.fail("contacts.get", delay=1, skip=WINDOW, times=1)
    bulk = drift.contacts.get_many(KNOWN, window=WINDOW)
    given: list[int] = []

    async def walk() -> None:
        if block:
            async with bulk:
                given.extend([outcome.index async for outcome in bulk])
        else:
            async for outcome in bulk:
                given.append(outcome.index)

    began = asyncio.get_running_loop().time()
    if kind == "asyncio":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await walk()
    else:
        with anyio.move_on_after(0.1) as scope:
            await walk()
        assert scope.cancelled_caught
    assert asyncio.get_running_loop().time() - began < 0.9
    await asyncio.sleep(0)
    if block:
        assert not others()
        return
    arrived = box.count
    await asyncio.sleep(0.05)
    assert box.count <= arrived + WINDOW  # nothing starts while nobody waits
    given += [outcome.index async for outcome in bulk]  # and what was under way is not lost
    assert given == list(range(100))


async def test_a_timeout_within_the_walk_of_an_asynchronous_input(drift: Drift) -> None:
    async def ids() -> AsyncIterator[int]:
        async with asyncio.timeout(5):
            for one in KNOWN:
                yield one

    report = await drift.contacts.get_many(ids(), window=WINDOW).collect()
    assert len(report.values) == 100


async def test_two_tasks_cannot_advance_one_bulk(drift: Drift, box: Sandbox) -> None:
    box.fail("contacts.get", delay=0.1)
    bulk = drift.contacts.get_many(KNOWN)
    first = asyncio.create_task(bulk.__anext__())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="already"):
        await anext(bulk)
    assert (await first).index == 0


async def test_calls_see_the_context_of_who_walks(box: Sandbox) -> None:
    request = ContextVar("request", default="none")
    seen = set()
    async with Drift(
        box.token, base_url=box.url, on_request=lambda info: seen.add(request.get())
    ) as drift:
        request.set("r-1")
        await drift.contacts.get_many(KNOWN[:20], window=2).collect()
    assert seen == {"r-1"}


class Tasks:
    """Stands in for a client that is always open."""

    refusals = 0

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def state(self) -> Tasks:
        return self

    def require_open(self) -> None:
        pass

    def spawn(self, work: Any, context: Any = None) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work, context=context)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 5, 40]), st.booleans()), max_size=80),
    st.integers(1, 6),
    st.sampled_from([1, 5]),
    st.sampled_from([0, 3]),
    st.booleans(),
    st.none() | st.integers(0, 80),
)
def test_any_schedule_gives_every_outcome_once_in_order_and_within_the_bounds(
    calls: list[tuple[int, bool]],
    window: int,
    batch: int,
    busy: int,
    asynchronous: bool,
    leave: int | None,
) -> None:
    running, most, started = 0, 0, list[int]()

    async def call(item: tuple[int, tuple[int, bool]]) -> int:
        nonlocal running, most
        number, (seconds, fails) = item
        started.append(number)
        running += 1
        most = max(most, running)
        await asyncio.sleep(seconds)
        running -= 1
        if fails:
            raise ValueError(number)
        return number

    async def source() -> AsyncIterator[Any]:
        for item in enumerate(calls):
            await asyncio.sleep(item[0] % 3)
            yield item

    async def main() -> None:
        items: Any = source() if asynchronous else enumerate(calls)
        bulk: Bulk[Any, int] = Bulk(
            cast(Any, Tasks()), items, lambda _: repeat(call), batch=batch, window=window
        )
        given = 0
        async with bulk:
            async for outcome in bulk:
                assert outcome.index == outcome.item[0] == given
                assert outcome.ok != outcome.item[1][1]
                assert not outcome.ok or outcome.value == given
                given += 1
                assert len(started) - given <= window + 16 * window
                if given == leave:
                    break
                await asyncio.sleep(busy)
        assert running <= window
        if leave is None or leave == 0 or leave >= len(calls):
            assert given == len(calls) == len(started)
        if leave == 1:
            assert len(started) <= window
        await asyncio.sleep(0)
        assert not others()

    virtual.run(main())
    assert most <= window
    assert len(started) == len(set(started))
