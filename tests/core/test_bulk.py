"""Many at once, on both faces: an outcome for each item, in order, and no call too many."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from drift_async import (
    BulkProgress,
    ClosedError,
    ContactUpdate,
    DeadlineError,
    InputError,
    NewContact,
    NotFoundError,
    Retry,
)
from drift_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

FIRST = 15_811_400_000
KNOWN = range(FIRST, FIRST + 100)  # in the seed of the sandbox
WINDOW = 8


async def quiet(box: Sandbox) -> int:
    """Return how many requests have come once no more come."""
    before = -1
    while before != box.count:
        before = box.count
        await asyncio.sleep(0.05)
    return before


@pytest.mark.smoke
async def test_outcomes_come_in_the_order_of_the_input(drift: Any, box: Sandbox) -> None:
    box.fail("contacts.get", delay=0.05, skip=3)  # one is overtaken by many
    outcomes = [outcome async for outcome in drift.contacts.get_many(KNOWN, window=WINDOW)]
    assert [outcome.index for outcome in outcomes] == list(range(100))
    assert [outcome.item for outcome in outcomes] == list(KNOWN)
    assert [outcome.value.id for outcome in outcomes] == list(KNOWN)
    assert all(outcome.ok and outcome.error is None for outcome in outcomes)
    assert len(box.seen) == 100


async def test_one_poison_item_and_one_that_times_out_leave_the_others_alone(
    make: Callable[..., Any], box: Sandbox
) -> None:
    ids = [KNOWN[n % 100] for n in range(1000)]
    ids[500] = 1
    async with make(box.token, base_url=box.url, attempt_timeout=2, retry=Retry(attempts=1)) as it:
        quick = it.with_options(timeout=0.5)
        box.fail("contacts.get", delay=30, skip=700)
        report = await quick.contacts.get_many(ids, window=WINDOW).collect()
    poison, late = sorted(report.errors, key=lambda outcome: type(outcome.error).__name__)[::-1]
    assert (poison.index, poison.item) == (500, 1)
    assert isinstance(poison.error, NotFoundError)
    assert isinstance(late.error, DeadlineError)
    assert 700 - WINDOW <= late.index <= 700 + WINDOW
    assert len(report.values) == 998
    with pytest.raises(NotFoundError) as caught:
        poison.value  # noqa: B018  # reading it is the test
    assert "the item at index 500 of a bulk" in caught.value.__notes__
    with pytest.raises(ExceptionGroup, match="2 of 1000 items failed") as group:
        report.raise_for_errors()
    assert {type(error) for error in group.value.exceptions} == {NotFoundError, DeadlineError}


async def test_what_the_iterable_raises_names_the_index_and_the_rest_is_done(
    drift: Any, box: Sandbox
) -> None:
    def ids() -> Iterator[int]:
        yield from KNOWN[:20]
        raise KeyError("no such column")

    given: list[int] = []

    async def walk() -> None:
        async for outcome in drift.contacts.get_many(ids(), window=WINDOW):
            given.append(outcome.value.id)  # noqa: PERF401  # what came before the error counts

    with pytest.raises(KeyError, match="no such column") as caught:
        await walk()
    assert "at index 20" in caught.value.__notes__[0]
    assert given == list(KNOWN[:20])
    report = await drift.contacts.get_many(ids(), window=WINDOW).collect()
    assert (len(report.values), report.errors) == (20, [])
    assert isinstance(report.items_error, KeyError)
    with pytest.raises(ExceptionGroup):
        report.raise_for_errors()


@pytest.mark.parametrize("window", [1, WINDOW])
async def test_a_loop_left_at_the_first_outcome_has_sent_a_window_at_most(
    drift: Any, box: Sandbox, window: int
) -> None:
    box.fail("contacts.get", delay=0.05, times=1)  # others finish before the first one
    async for outcome in drift.contacts.get_many(KNOWN, window=window):
        assert outcome.index == 0
        break
    assert 1 <= await quiet(box) <= window


async def test_leaving_the_block_cancels_what_is_under_way(drift: Any, box: Sandbox) -> None:
    box.fail("contacts.get", delay=30, skip=1, times=None)
    async with drift.contacts.get_many(KNOWN, window=WINDOW) as bulk:
        async for outcome in bulk:
            assert outcome.ok
            break
    assert await quiet(box) <= WINDOW
    with pytest.raises(ClosedError):
        await bulk.collect()
    assert (await drift.users.all().first()) is not None


async def test_an_endless_input_is_pulled_as_it_is_needed(drift: Any, box: Sandbox) -> None:
    pulled = 0

    def ids() -> Iterator[int]:
        nonlocal pulled
        for n in count():
            pulled += 1
            yield KNOWN[n % 100]

    box.fail("contacts.get", delay=0.2, skip=50)  # all wait behind it, and no more are pulled
    given = 0
    async for _ in drift.contacts.get_many(ids(), window=2):
        given += 1
        assert pulled <= given + 2 + 16 * 2 + 2 + 2
        if given == 200:
            break


async def test_a_bulk_can_be_left_and_taken_up_again_but_not_used_twice(drift: Any) -> None:
    bulk = drift.contacts.get_many(KNOWN, window=WINDOW)
    given = []
    async for outcome in bulk:
        given.append(outcome.index)
        if outcome.index == 10:
            break
    given += [outcome.index async for outcome in bulk]
    assert given == list(range(100))
    with pytest.raises(ClosedError, match="used up"):
        await bulk.collect()
    with pytest.raises(ClosedError, match="used up"):
        [outcome async for outcome in bulk]


async def test_stop_on_error_starts_nothing_after_the_error(drift: Any, box: Sandbox) -> None:
    ids = [*KNOWN[:30], 1, *KNOWN]
    box.fail("contacts.get", delay=0.2, skip=31, times=None)  # those under way beside it stay so
    report = await drift.contacts.get_many(ids, window=4, stop_on_error=True).collect()
    [error] = report.errors
    assert error.index == 30
    assert 30 <= len(report.values) <= 30 + 3
    assert len(box.seen) == len(report.values) + 1


async def test_what_the_items_raise_after_the_stop_does_not_count(drift: Any) -> None:
    def ids() -> Iterator[int]:
        yield 1
        yield from KNOWN[:60]
        raise KeyError("never reached")

    report = await drift.contacts.get_many(ids(), window=16, stop_on_error=True).collect()
    assert len(report.errors) == 1
    assert report.items_error is None


@pytest.mark.parametrize("items", [[], iter(()), ()])
async def test_nothing_in_gives_nothing_out(drift: Any, box: Sandbox, items: Any) -> None:
    report = await drift.contacts.get_many(items).collect()
    assert (report.values, report.errors, box.seen) == ([], [], [])
    report.raise_for_errors()


async def test_progress_is_told_now_and_then_and_at_the_end(drift: Any, box: Sandbox) -> None:
    told: list[BulkProgress] = []
    box.fail("contacts.get", status=429, headers={"Retry-After": "0"}, skip=5)
    box.fail("contacts.get", delay=0.15, skip=60)
    ids = [*KNOWN, 1]
    began = time.monotonic()
    await drift.contacts.get_many(ids, window=WINDOW, progress=told.append).collect()
    seconds = time.monotonic() - began
    assert told[-1].done == 101
    assert (told[-1].failed, told[-1].total, told[-1].refusals) == (1, 101, 1)
    assert told[-1].per_second > 0
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert 2 <= len(told) <= 2 + seconds / 0.1
    told.clear()
    await drift.contacts.get_many(iter(ids), progress=told.append).collect()
    assert told[-1].total is None
    with pytest.raises(AttributeError):
        told[-1].done = 7  # type: ignore[misc]  # it is frozen


async def test_create_update_and_delete_many(drift: Any, box: Sandbox) -> None:
    people = [NewContact(email=f"p{n}@example.com", attributes={"n": n}) for n in range(20)]
    people[7] = NewContact(email="not an address")
    created = await drift.contacts.create_many(people).collect()
    [bad] = created.errors
    assert bad.index == 7
    assert isinstance(bad.error, InputError)
    assert "address" not in repr(bad)
    again = await drift.contacts.create_many([people[0]]).collect()
    assert again.errors[0].error.applied is False
    ids = [contact.id for contact in created.values]
    changes = (ContactUpdate(contact_id=one, attributes={"plan": "pro"}) for one in ids)
    updated = await drift.contacts.update_many(changes).collect()
    assert {contact.attributes["plan"] for contact in updated.values} == {"pro"}
    deleted = await drift.contacts.delete_many(ids).collect()
    assert deleted.values == [None] * 19
    deleted.raise_for_errors()


async def test_an_item_of_the_wrong_kind_is_an_error_of_its_own(drift: Any, box: Sandbox) -> None:
    for bulk in (
        drift.contacts.create_many,
        drift.contacts.upsert_many,
        drift.contacts.update_many,
    ):
        report = await bulk([{"email": "ada@example.com"}, None]).collect()
        assert [type(outcome.error) for outcome in report.errors] == [InputError] * 2
    report = await drift.contacts.get_many(["7", 0, KNOWN[0]]).collect()
    assert [outcome.index for outcome in report.errors] == [0, 1]
    assert len(box.seen) == 1


async def test_an_item_keeps_its_attributes_when_the_row_is_used_again(drift: Any) -> None:
    row = {"plan": "free"}

    def people() -> Iterator[NewContact]:
        for n in range(10):
            row["plan"] = f"plan {n}"
            yield NewContact(email=f"r{n}@example.com", attributes=row)

    report = await drift.contacts.create_many(people()).collect()
    assert [c.attributes["plan"] for c in report.values] == [f"plan {n}" for n in range(10)]


@pytest.mark.smoke
async def test_an_error_of_an_item_can_be_met_by_another_call_that_fails(
    drift: Any, box: Sandbox, tmp_path: Path
) -> None:
    fetch = partial(drift.conversations.download_attachment, path=tmp_path)  # which is a folder
    met = 0
    async for outcome in drift.bulk(fetch, [700_002] * 40, window=2):
        try:
            raise outcome.error
        except OSError:
            with pytest.raises(NotFoundError):
                await drift.contacts.get(1)  # its frames are cleared, and those of what it met
            met += 1
    assert met == 40


async def test_any_coroutine_method_of_a_group_takes_many(drift: Any, box: Sandbox) -> None:
    ids = [conversation.id for conversation in await drift.conversations.all().collect(limit=20)]
    texts = await drift.bulk(drift.conversations.transcript, ids).collect()
    assert all(isinstance(text, str) for text in texts.values)
    assert len(texts.values) == 20
    reply = partial(drift.conversations.create_message, body="Hello", type="private_note")
    sent = await drift.bulk(reply, ids[:3], window=2).collect()
    assert [message.conversation_id for message in sent.values] == ids[:3]


async def test_views_make_bulks_with_their_own_settings(drift: Any, box: Sandbox) -> None:
    box.fail("contacts.get", status=500, times=None)
    once = drift.with_options(retry=Retry(attempts=1))
    await once.contacts.get_many(KNOWN[:3]).collect()
    await drift.bulk(once.contacts.get, KNOWN[:3]).collect()
    assert len(box.seen) == 6


async def test_bad_arguments_are_refused_before_anything_is_sent(
    drift: Any, make: Callable[..., Any], box: Sandbox
) -> None:
    for items in (7, None, "ids", b"ids"):
        with pytest.raises(InputError, match="items"):
            drift.contacts.get_many(items)
    for options in ({"window": 0}, {"window": 10_001}, {"window": True}, {"window": 1.5},
                    {"stop_on_error": 1}, {"progress": 1}):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(options))):
            drift.contacts.get_many([7], **options)
    other = make("token", base_url=box.url)
    by_place = partial(drift.conversations.create_message, 7)
    for method in (print, drift.conversations.all, other.contacts.get, None, drift.request,
                   by_place):  # fmt: skip
        with pytest.raises(InputError, match="method"):
            drift.bulk(method, [7])
    assert box.seen == []


async def test_reports_and_outcomes_show_no_data_and_travel(drift: Any) -> None:
    report = await drift.contacts.get_many([KNOWN[0], 1]).collect()
    assert repr(report) == "BulkReport(1 values, 1 errors)"
    assert repr(report.errors[0]) == "Outcome(1, NotFoundError)"
    [copy] = pickle.loads(pickle.dumps(report)).errors
    assert (copy.index, copy.item, type(copy.error)) == (1, 1, NotFoundError)
    [new, change] = [
        NewContact(email="ada@example.com"),
        ContactUpdate(contact_id=7, attributes={"plan": "pro"}),
    ]
    assert "ada" not in repr(new)
    assert pickle.loads(pickle.dumps(change)) == change


async def test_a_client_that_is_not_open_is_told_at_the_first_step(
    make: Callable[..., Any], face: str
) -> None:
    drift = make("token", base_url="http://127.0.0.1:9")
    bulk = drift.contacts.get_many(KNOWN)
    if face == "blocking":
        drift.twin.close()  # it would open itself
    with pytest.raises(ClosedError):
        await bulk.collect()


async def test_closing_the_client_ends_a_bulk_that_waits(
    make: Callable[..., Any], box: Sandbox
) -> None:
    box.fail("contacts.get", delay=30, times=None)
    async with make(box.token, base_url=box.url) as drift:
        bulk = drift.contacts.get_many(KNOWN, window=4)
        waiting = asyncio.create_task(bulk.collect())
        while box.count < 4:  # noqa: ASYNC110  # the sandbox has no event to wait for
            await asyncio.sleep(0.001)
    with pytest.raises(ClosedError) as caught:
        await waiting
    assert caught.value.applied is None
    assert box.count == 4
