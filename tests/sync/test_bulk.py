"""Bulks on the blocking face: what runs in the caller's thread, Ctrl-C, and slow hands.

How slow a hand is, a clock of the test says.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any, cast

import pytest
from hypothesis import given, settings, strategies as st

from drift_async.core import bulk as core
from drift_async.sandbox import Sandbox
from drift_async.sync import Bulk, Drift, InputError
from drift_async.sync.bulk import ADVANCE_EVERY
from drift_async.sync.portal import Portal
from tests.support.processes import run, silent_server

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
    """Stands in for a client that is always open, with a clock that others turn."""

    refusals = 0
    time = 0.0

    def now(self) -> float:
        return self.time

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    def require_open(self) -> None: ...

    @property
    def state(self) -> Always:
        return self

    def spawn(self, work: Any, context: Any = None) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work, context=context)


@contextmanager
def many(
    items: Iterable[Any], call: Callable[[Any], Any], plan: Any = None, **options: Any
) -> Iterator[Any]:
    """Give a bulk that calls a coroutine function, and the client it does so with."""
    client = Always()
    portal = Portal(client)
    portal.open(client)
    plan = plan or (lambda _: repeat(call))
    with Bulk(core.Bulk(cast(Any, client), items, plan, **options), portal) as bulk:
        yield bulk, client
    portal.close(client, client.close())


@pytest.mark.parametrize(
    ("seconds", "pulled"), [(ADVANCE_EVERY / 9, 10), (2 * ADVANCE_EVERY, 1), (0.0, 80)]
)
def test_a_slow_source_does_not_hold_calls_back(seconds: float, pulled: int) -> None:
    given = 0

    def ids() -> Iterator[int]:
        nonlocal given
        for one in range(1000):
            if one == pulled:
                in_time.append(begun.wait(5))
            client.time += seconds
            given += 1
            yield one

    async def call(item: int) -> int:
        before.append(given)
        begun.set()
        return item

    before, begun, in_time = list[int](), threading.Event(), list[bool]()
    with many(ids(), call) as (bulk, client):
        next(iter(bulk))
    assert before[0] == pulled
    assert False not in in_time


@pytest.mark.parametrize(
    ("seconds", "more"), [(2 * ADVANCE_EVERY, True), (ADVANCE_EVERY / 9, False)]
)
def test_a_busy_caller_does_not_let_the_calls_run_dry(seconds: float, more: bool) -> None:
    async def call(item: int) -> int:
        started.append(item)
        if not item:
            await eighth.wait()
        elif item == 7:
            eighth.set()
        return item

    started, eighth = list[int](), asyncio.Event()
    with many(range(100), call, window=8) as (bulk, client):
        for outcome in bulk:  # they come in one piece, once the eighth is done
            if outcome.index == 2:
                break
            client.time += seconds
        bulk._portal.run(asyncio.sleep(0))  # after which all have begun that were started
    assert (len(started) > 8) is more


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize(("batch", "window"), [*((5, n) for n in range(1, 8)), (50, 64)])
def test_no_batch_is_cut_short_where_there_is_more(batch: int, window: int, turns: int) -> None:
    async def call(item: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return item

    def plan(items: list[int]) -> Iterable[Any]:
        sizes.append(len(items))
        return repeat(call)

    count, sizes = 20 * batch + 2, list[int]()
    with many(range(count), call, plan, batch=batch, window=window) as (bulk, _):
        assert [outcome.value for outcome in bulk] == list(range(count))
    assert sizes == [batch] * 20 + [2]


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

    given = 0
    with many(enumerate(calls), call, batch=batch, window=window) as (bulk, client):
        for outcome in bulk:
            assert outcome.index == outcome.item[0] == given
            assert outcome.ok != outcome.item[1][1]
            given += 1
            if given == leave:
                break
            if chance.random() < 0.05:
                client.time += 2 * ADVANCE_EVERY
    assert most <= window
    assert len(started) == len(set(started))
    if leave is None or leave >= len(calls):
        assert given == len(calls) == len(started)
    if leave == 1:
        assert len(started) <= window
