"""Walks: items, pages, prefetch, saved positions; the wire is counted at the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

import drift_async.sync
from drift_async import ClosedError, CursorError, Drift, InputError, ServerError
from drift_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

LISTED = 53
ADVANCED = RuntimeError("this walk is being advanced already")


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    async with Sandbox(conversations=LISTED, accounts=LISTED) as box:
        yield box


async def settled(box: Sandbox, count: int) -> bool:
    """Tell whether just so many requests came, once the loop has nothing more to do."""
    async with asyncio.timeout(5):
        while len(box.seen) < count:  # noqa: ASYNC110  # the sandbox has no event to wait for
            await asyncio.sleep(0.001)
    for _ in range(200):
        await asyncio.sleep(0)
    return len(box.seen) == count


@pytest.mark.smoke
async def test_a_walk_gives_every_item_once_and_in_order(drift: Any, box: Sandbox) -> None:
    ids = [item.id async for item in drift.conversations.all(page_size=10)]
    assert len(ids) == len(set(ids)) == LISTED
    assert len(box.seen) == 6


async def test_collect_stops_at_the_limit_and_asks_for_no_page_more(
    drift: Any, box: Sandbox
) -> None:
    assert len(await drift.conversations.all(page_size=10).collect(limit=20)) == 20
    assert await settled(box, 2)


async def test_collect_without_a_limit_gives_all(drift: Any) -> None:
    assert len(await drift.accounts.all(page_size=9).collect()) == LISTED


@pytest.mark.parametrize("limit", [0, 1, 10])
async def test_a_small_limit_costs_one_request_at_most(
    drift: Any, box: Sandbox, limit: int
) -> None:
    assert len(await drift.accounts.all(page_size=10).collect(limit=limit)) == limit
    assert await settled(box, min(limit, 1))


@pytest.mark.parametrize("limit", [-1, True, "3", 2.5])
async def test_a_limit_that_is_no_number_is_refused(drift: Any, box: Sandbox, limit: Any) -> None:
    with pytest.raises(InputError, match="limit"):
        await drift.accounts.all().collect(limit=limit)
    assert box.seen == []


async def test_first_takes_one_request_and_is_none_of_nothing(drift: Any, box: Sandbox) -> None:
    first = await drift.conversations.all(page_size=10).first()
    assert first.id == (await drift.conversations.all(page_size=1).first()).id
    assert await settled(box, 2)
    assert await drift.conversations.all(status="pending", page_size=100).first() is not None
    assert await drift.scim.all(filter='userName eq "nobody@example.com"').first() is None


async def test_the_next_page_is_fetched_while_one_is_used(drift: Any, box: Sandbox) -> None:
    async for page in drift.conversations.all(page_size=10).pages():
        assert len(page.items) == 10
        assert await settled(box, 2)
        break
    assert await settled(box, 2)  # an abandoned walk has cost one request


async def test_a_walk_stopped_after_any_page_goes_on_where_it_was(drift: Any) -> None:
    whole = [item.id async for item in drift.conversations.all(page_size=10)]
    for stop in range(1, 7):
        ids, position = [], None
        pages = 0
        async for page in drift.conversations.all(page_size=10).pages():
            ids += [item.id for item in page.items]
            position, pages = page.next, pages + 1
            if pages == stop:
                break
        rest = drift.conversations.all(page_size=10, resume=position)
        assert ids + [item.id async for item in rest] == whole


async def test_the_last_page_says_so_and_its_position_gives_nothing_more(
    drift: Any, box: Sandbox
) -> None:
    pages = [page async for page in drift.accounts.all(page_size=20).pages()]
    assert [page.is_last for page in pages] == [False, False, True]
    box.forget()
    assert await drift.accounts.all(resume=pages[-1].next).collect() == []
    assert box.seen == []


async def test_a_position_belongs_to_its_list(drift: Any, box: Sandbox) -> None:
    long = await busiest(drift)
    pages = [page async for page in drift.conversations.messages(long).pages()]
    assert len(pages) == 3
    other = next(c.id for c in await drift.conversations.all().collect() if c.id != long)
    box.forget()
    for resume in (pages[0].next, pages[-1].next, "nonsense", "", "/accounts?index=0", 7):
        with pytest.raises(CursorError) as caught:
            drift.conversations.messages(other, resume=resume)
        assert caught.value.applied is False
    assert box.seen == []


async def busiest(drift: Any) -> int:
    """Return the conversation that has most messages."""
    counts: dict[int, int] = {}
    async for conversation in drift.conversations.all():
        counts[conversation.id] = len(await drift.conversations.messages(conversation.id).collect())
    return max(counts, key=lambda key: counts[key])


async def test_an_item_that_moved_to_a_later_page_is_not_given_twice(
    drift: Any, box: Sandbox
) -> None:
    def repeat_the_first(reply: Any) -> Any:
        reply["data"].insert(0, first)
        return reply

    first = (await drift.request("GET", "/conversations/list"))["data"][0]
    box.fail("conversations.all", alter=repeat_the_first, times=2, skip=1)
    ids = [item.id async for item in drift.conversations.all(page_size=20)]
    assert len(ids) == len(set(ids)) == LISTED


@pytest.mark.parametrize("limit", [20, 21, 39, 40])
async def test_a_limit_counts_no_item_twice(drift: Any, box: Sandbox, limit: int) -> None:
    def repeat_the_first(reply: Any) -> Any:
        reply["data"][0] = first
        return reply

    first = (await drift.request("GET", "/conversations/list"))["data"][0]
    box.fail("conversations.all", alter=repeat_the_first, times=2, skip=1)
    found = await drift.conversations.all(page_size=20).collect(limit=limit)
    assert len(found) == len({item.id for item in found}) == limit


async def test_a_limit_is_not_reached_with_less_where_the_next_page_cannot_be_told(
    drift: Any, box: Sandbox
) -> None:
    def spoil(reply: Any) -> Any:
        reply["data"][0] = first
        return reply | {"links": {"next": 7}}

    first = (await drift.request("GET", "/conversations/list"))["data"][0]
    box.fail("conversations.all", alter=spoil, times=1, skip=1)
    with pytest.raises(CursorError):
        await drift.conversations.all(page_size=20).collect(limit=40)
    box.fail("conversations.all", alter=spoil, times=1, skip=1)
    assert len(await drift.conversations.all(page_size=20).collect(limit=39)) == 39


async def test_a_walk_is_for_one_task_at_a_time(box: Sandbox) -> None:
    async with Drift(box.token, base_url=box.url) as drift:
        items = aiter(drift.conversations.all(page_size=10))
        given: list[int] = []

        async def work() -> None:
            async for item in items:
                given.append(item.id)
                await asyncio.sleep(0)

        ends = await asyncio.gather(work(), work(), work(), return_exceptions=True)
        assert sorted(map(repr, ends)) == ["None", *[repr(ADVANCED)] * 2]
        assert len(given) == len(set(given)) == LISTED


def test_a_walk_is_for_one_thread_at_a_time() -> None:
    with (
        drift_async.sync.Sandbox(conversations=LISTED) as box,
        drift_async.sync.Drift(box.token, base_url=box.url) as drift,
    ):
        pages = drift.conversations.all(page_size=10).pages()
        box.fail("conversations.all", delay=0.2, times=1)
        with ThreadPoolExecutor(2) as pool:
            steps = [pool.submit(next, pages) for _ in range(2)]
            ends = [repr(step.exception()) for step in steps]
        assert sorted(ends) == ["None", repr(ADVANCED)]
        assert sum(len(page.items) for page in pages) == LISTED - 10


async def test_a_walk_whose_client_is_closed_says_so_and_goes_on_when_it_is_open(
    make: Any, box: Sandbox
) -> None:
    drift = make(box.token, base_url=box.url)
    async with drift:
        pages = drift.conversations.all(page_size=20).pages()
        given = [await step(pages)]
        assert await settled(box, 2)  # the next is here
    with suppress(ClosedError):
        given.append(await step(pages))  # what is here may still be given
    with pytest.raises(ClosedError):
        await step(pages)
    async with drift:
        with suppress(StopAsyncIteration):
            while True:
                given.append(await step(pages))
    ids = [item.id for page in given for item in page.items]
    assert len(ids) == len(set(ids)) == LISTED


async def test_closing_the_client_ends_who_waits_for_a_page_fetched_ahead(
    make: Any, box: Sandbox
) -> None:
    drift = make(box.token, base_url=box.url)
    async with drift:
        pages = drift.conversations.all(page_size=20).pages()
        box.fail("conversations.all", delay=30, skip=1, times=1)
        await step(pages)
        assert await settled(box, 2)
        waiting = asyncio.create_task(step(pages))
        for _ in range(20):
            await asyncio.sleep(0)
    with pytest.raises(ClosedError):
        await waiting
    async with drift:
        assert len((await step(pages)).items) == 20


async def test_who_is_cancelled_while_a_page_is_fetched_ahead_asks_for_it_again(
    box: Sandbox,
) -> None:
    async with Drift(box.token, base_url=box.url) as drift:
        pages = drift.conversations.all(page_size=20).pages()
        box.fail("conversations.all", delay=30, skip=1, times=1)
        await anext(pages)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(pages)
        assert len((await anext(pages)).items) == 20


async def step(pages: Any) -> Any:
    """Return the next page, on either face."""
    if hasattr(pages, "__anext__"):
        return await anext(pages)
    page = await asyncio.to_thread(next, pages.twin, None)
    if page is None:
        raise StopAsyncIteration  # a future cannot hold the plain one
    return page


async def test_an_error_of_a_page_fetched_ahead_comes_when_that_page_is_asked_for(
    make: Callable[..., Any], box: Sandbox
) -> None:
    from drift_async import Retry

    async with make(box.token, base_url=box.url, retry=Retry(attempts=1)) as drift:
        box.fail("accounts.all", status=500, skip=1)
        pages = drift.accounts.all(page_size=30).pages()
        given: list[Any] = []
        with pytest.raises(ServerError):
            await walk(pages, given)
        assert sum(len(page.items) for page in given) == 30
        await walk(pages, given)  # the same walk goes on with the page that failed
        assert sum(len(page.items) for page in given) == LISTED


async def walk(pages: Any, given: list[Any]) -> None:
    async for page in pages:
        given.append(page)  # noqa: PERF401  # what was given before an error counts


async def test_a_bad_row_is_named_and_the_position_before_it_can_be_used(
    drift: Any, box: Sandbox
) -> None:
    from drift_async import DecodeError

    def spoil(reply: Any) -> Any:
        reply["data"]["accounts"][3]["ownerId"] = "seven"
        return reply

    box.fail("accounts.all", alter=spoil, skip=1)
    given: list[Any] = []
    with pytest.raises(DecodeError) as caught:
        await walk(drift.accounts.all(page_size=30).pages(), given)
    assert caught.value.path == "$.data.accounts[3].owner_id"
    rest = await drift.accounts.all(page_size=30, resume=given[0].next).collect()
    assert len(given[0].items) + len(rest) == LISTED


async def test_walks_of_one_pager_are_independent(drift: Any) -> None:
    pager = drift.accounts.all(page_size=25)
    assert [a.account_id async for a in pager] == [a.account_id async for a in pager]


async def test_a_page_fetched_ahead_ends_with_the_client(box: Sandbox) -> None:
    drift = Drift(box.token, base_url=box.url)
    async with drift:
        box.fail("accounts.all", delay=30, skip=1)
        async for _ in drift.accounts.all(page_size=10).pages():
            break
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if "_fetch" in repr(task)]
