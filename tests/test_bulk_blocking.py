"""Bulks on the blocking face: what runs in the caller's thread, Ctrl-C, and slow hands."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_async.core import bulk as core
from drift_async.sandbox import Sandbox
from drift_async.sync import Bulk, Drift, InputError
from drift_async.sync.loop import Loop

from .test_twin_life import run, silent_server

pytestmark = pytest.mark.anyio

FIRST = 15_811_400_000
KNOWN = range(FIRST, FIRST + 100)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A sandbox with a thread of its own."""
    from drift_async.sync import Sandbox as Blocking

    with Blocking() as box:
        yield box  # type: ignore[misc]  # its twin has the same methods


@pytest.fixture
def drift(box: Sandbox) -> Iterator[Drift]:
    with Drift(box.token, base_url=box.url) as drift:
        yield drift


def test_items_and_progress_are_the_callers(drift: Drift) -> None:
    threads = set()

    def ids() -> Iterator[int]:
        for one in KNOWN:
            threads.add(threading.get_ident())
            yield one

    def tell(progress: object) -> None:
        threads.add(threading.get_ident())

    report = drift.contacts.get_many(ids(), progress=tell).collect()
    assert len(report.values) == 100
    assert threads == {threading.get_ident()}


def test_items_and_progress_may_call_the_same_client(drift: Drift) -> None:
    found = []

    def tell(progress: object) -> None:
        found.append(drift.users.all().first())

    ids = (c.contact_id or 0 for c in drift.conversations.all(page_size=10))
    report = drift.contacts.get_many(ids, window=4, progress=tell).collect()
    assert len(report.values) == 50
    assert found[-1] is not None


def test_only_plain_iterables_are_taken(drift: Drift) -> None:
    async def ids() -> AsyncIterator[int]:
        yield 7

    with pytest.raises(InputError, match="plain iterable"):
        drift.contacts.get_many(ids())  # type: ignore[arg-type]  # that is the test


def test_a_slow_source_does_not_hold_outcomes_back(drift: Drift) -> None:
    pulled = 0

    def ids() -> Iterator[int]:
        nonlocal pulled
        for one in KNOWN:
            time.sleep(0.02)
            pulled += 1
            yield one

    for outcome in drift.contacts.get_many(ids()):
        assert outcome.ok
        break
    assert pulled < 20


def test_a_busy_caller_does_not_let_the_calls_run_dry(drift: Drift, box: Sandbox) -> None:
    box.fail("contacts.get", delay=0.3)  # so that eight outcomes are ready with the first
    for outcome in drift.contacts.get_many(KNOWN, window=8):
        time.sleep(0.006)
        if outcome.index == 2:
            break
    end = time.monotonic() + 5
    while box.count <= 8 and time.monotonic() < end:
        time.sleep(0.001)
    assert box.count > 8


async def test_ctrl_c_leaves_a_bulk_that_can_go_on() -> None:
    async with silent_server() as (env, arrived):
        said = await run(
            env,
            """
            drift = Drift.from_env(env)
            bulk = drift.contacts.get_many([1, 2, 3], window=2)
            try:
                next(iter(bulk))
            except KeyboardInterrupt as stop:
                say(stop.__notes__)
            began = time.monotonic()
            bulk.close()
            drift.close()
            say(time.monotonic() - began < 2)
            """,
            ready=arrived,
        )
    assert said == [["2 calls of a bulk were under way, and go on"], True]


async def test_a_script_that_ends_in_the_middle_of_a_bulk_ends_quietly(box: Sandbox) -> None:
    said = await run(
        box.env,
        f"""
        drift = Drift.from_env(env)
        for outcome in drift.contacts.get_many(range({FIRST}, {FIRST + 100})):
            say(outcome.index)
            break
        """,
        options=("-W", "error"),  # asyncio's own debugging tells of slow steps
    )
    assert said == [0]


class Always:
    """Stands in for a client that is always open."""

    refusals = 0

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    def ensure_open(self) -> None: ...
    def spawn(self, work: Any, context: Any = None) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work, context=context)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60),
    st.integers(1, 6),
    st.sampled_from([1, 5]),
    st.randoms(use_true_random=False),
    st.none() | st.integers(1, 60),
)
def test_any_schedule_gives_every_outcome_once_and_in_order(
    calls: list[tuple[int, bool]],
    window: int,
    batch: int,
    chance: random.Random,
    leave: int | None,
) -> None:
    running, most, started = 0, 0, list[int]()

    async def call(item: tuple[int, tuple[int, bool]]) -> int:
        nonlocal running, most
        number, (steps, fails) = item
        started.append(number)
        running += 1
        most = max(most, running)
        for _ in range(steps):
            await asyncio.sleep(0)
        running -= 1
        if fails:
            raise ValueError(number)
        return number

    loop = Loop(Always())
    loop.open(loop._client)
    inner: core.Bulk[Any, int] = core.Bulk(
        Always(), enumerate(calls), lambda _: repeat(call), batch=batch, window=window
    )
    given = 0
    with Bulk(inner, loop) as bulk:
        for outcome in bulk:
            assert outcome.index == outcome.item[0] == given
            assert outcome.ok != outcome.item[1][1]
            given += 1
            if given == leave:
                break
            if chance.random() < 0.05:
                time.sleep(0.006)
    loop.close(loop._client, loop._client.close())
    assert most <= window
    assert len(started) == len(set(started))
    if leave is None or leave >= len(calls):
        assert given == len(calls) == len(started)
    if leave == 1:
        assert len(started) <= window
