"""Upserts in bulk: found in batches, in order for each external id, and safe to run again."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from drift_async import Drift, InputError, NewContact, Retry, ServerError
from drift_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

ITEMS = 120


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let batches be full however busy the machine is: after this long they go as they are."""
    monkeypatch.setattr("drift_async.sync.bulk.PAUSE", 60.0)


def people(plan: str, number: int = ITEMS) -> Iterator[NewContact]:
    for n in range(number):
        yield NewContact(email=f"{n}@example.com", external_id=f"u{n}", attributes={"plan": plan})


def requests(box: Sandbox) -> dict[str | None, int]:
    """Return how many requests of each operation have come."""
    names = [one.operation for one in box.seen]
    return {name: names.count(name) for name in names}


@pytest.mark.smoke
async def test_they_are_found_in_batches_and_created_or_updated(drift: Any, box: Sandbox) -> None:
    created = await drift.contacts.upsert_many(people("free")).collect()
    created.raise_for_errors()
    assert requests(box) == {"contacts.find_by_external_id": 3, "contacts.create": ITEMS}
    box.forget()
    updated = await drift.contacts.upsert_many(people("pro")).collect()
    assert requests(box) == {"contacts.find_by_external_id": 3, "contacts.update": ITEMS}
    assert [one.id for one in updated.values] == [one.id for one in created.values]
    assert {one.attributes["plan"] for one in updated.values} == {"pro"}


async def test_those_of_an_asynchronous_iterable_are_found_in_batches_too(box: Sandbox) -> None:
    async def stream() -> AsyncIterator[NewContact]:
        for one in people("free"):
            yield one

    async with Drift(box.token, base_url=box.url) as drift:
        (await drift.contacts.upsert_many(stream()).collect()).raise_for_errors()
    assert requests(box) == {"contacts.find_by_external_id": 3, "contacts.create": ITEMS}


@pytest.mark.parametrize("letter", ["x", "ö"])
async def test_long_ids_are_looked_up_in_more_requests(
    drift: Any, box: Sandbox, letter: str
) -> None:
    ids = [f"{n:03}{letter * 300}" for n in range(50)]
    made = [NewContact(email=f"{n}@example.com", external_id=one) for n, one in enumerate(ids)]
    (await drift.contacts.upsert_many(made).collect()).raise_for_errors()
    found = await drift.contacts.find_by_external_id(*ids)
    assert [one.attributes.external_id for one in found] == ids
    lookups = [one.raw_path for one in box.seen if one.operation == "contacts.find_by_external_id"]
    assert max(map(len, lookups)) < 4200
    assert len(lookups) == (2 * 4 if letter == "x" else 2 * 25)


async def test_a_row_that_is_filled_again_changes_no_item_before(drift: Any, box: Sandbox) -> None:
    def rows() -> Iterator[NewContact]:
        tags: list[Any] = [{}]
        row = {"deep": {"tags": tags}}
        for n in range(40):
            tags[0] = {"n": n}
            yield NewContact(email=f"{n}@example.com", external_id=f"u{n}", attributes=row)

    made = await drift.contacts.upsert_many(rows()).collect()
    assert [one.attributes["deep"]["tags"] for one in made.values] == [
        [{"n": n}] for n in range(40)
    ]


async def test_those_of_one_external_id_are_done_in_order(drift: Any, box: Sandbox) -> None:
    items = [
        NewContact(email="ada@example.com", external_id=f"u{n % 7}", attributes={"n": n})
        for n in range(200)
    ]
    report = await drift.contacts.upsert_many(items).collect()
    report.raise_for_errors()
    assert [one.attributes["n"] for one in report.values] == list(range(200))
    found = await drift.contacts.find_by_external_id(*(f"u{n}" for n in range(7)))
    assert sorted(one.attributes["n"] for one in found) == list(range(193, 200))


async def test_within_a_batch_no_request_is_spent_on_the_same_id_again(
    drift: Any, box: Sandbox
) -> None:
    items = [NewContact(email="ada@example.com", external_id=f"u{n % 7}") for n in range(49)]
    (await drift.contacts.upsert_many(items).collect()).raise_for_errors()
    assert requests(box) == {
        "contacts.find_by_external_id": 1,
        "contacts.create": 7,
        "contacts.update": 42,
    }


async def test_a_batch_that_cannot_be_looked_up_fails_as_one_and_the_others_are_done(
    drift: Any, box: Sandbox
) -> None:
    box.fail("contacts.find_by_external_id", status=500, skip=1)
    once = drift.with_options(retry=Retry(attempts=1))
    report = await once.contacts.upsert_many(people("free")).collect()
    assert [outcome.index for outcome in report.errors] == list(range(50, 100))
    for outcome in report.errors:
        assert isinstance(outcome.error, ServerError)
        assert f"the item at index {outcome.index} of a bulk" in outcome.error.__notes__
        assert len(outcome.error.__notes__) == 1
    assert len(report.values) == ITEMS - 50


async def test_who_was_created_by_somebody_else_meanwhile_is_updated(
    drift: Any, box: Sandbox
) -> None:
    await drift.contacts.upsert_many(people("free", 3)).collect()
    box.fail("contacts.find_by_external_id", alter=lambda reply: {"data": []})
    report = await drift.contacts.upsert_many(people("pro", 3)).collect()
    report.raise_for_errors()
    assert [one.attributes["plan"] for one in report.values] == ["pro"] * 3


async def test_bad_items_are_errors_of_their_own_and_are_not_looked_up(
    drift: Any, box: Sandbox
) -> None:
    items = [
        NewContact(email="ada@example.com"),
        NewContact(email="ada@example.com", external_id=" "),
        NewContact(email="nobody", external_id="u1"),
        NewContact(email="ada@example.com", external_id="u2", attributes={"plan": None}),
        NewContact(email="ada@example.com", external_id="u3"),
    ]
    report = await drift.contacts.upsert_many(items).collect()
    assert [outcome.index for outcome in report.errors] == [0, 1, 2, 3]
    assert {type(outcome.error) for outcome in report.errors} == {InputError}
    assert box.seen[0].raw_path.endswith("id=u3")


PROGRAM = """
import asyncio, json, sys
from drift_async import Drift, NewContact

async def main():
    async with Drift.from_env(json.loads(sys.argv[1])) as drift:
        items = (
            NewContact(email=f"{n}@example.com", external_id=f"u{n % 250}", attributes={"n": n})
            for n in range(300)
        )
        (await drift.contacts.upsert_many(items, window=16).collect()).raise_for_errors()

asyncio.run(main())
"""
REQUESTS = 306


async def upserting(box: Sandbox, kill_at: int | None) -> None:
    """Run the program, or kill it once so many requests have come."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, json.dumps(box.env)
    )
    try:
        if kill_at is not None:
            while box.count < kill_at and process.returncode is None:  # noqa: ASYNC110  # no event
                await asyncio.sleep(0.001)
            process.kill()
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    assert code == (0 if kill_at is None else -9)


async def state(box: Sandbox) -> dict[str, Any]:
    """Return what every contact holds that was upserted; each external id has just one."""
    async with Drift.from_env(box.env) as drift:
        found = await drift.contacts.find_by_external_id(*(f"u{n}" for n in range(250)))
    assert len({one.id for one in found}) == len(found)
    held = {one.attributes["externalId"]: one.attributes for one in found}
    assert len(held) == len(found)
    return {key: (one["email"], one["n"]) for key, one in held.items()}


async def kill_and_repeat(points: Callable[[random.Random], list[int]]) -> None:
    async with Sandbox() as clean:
        await upserting(clean, None)
        wanted = await state(clean)
    assert len(wanted) == 250
    for point in points(random.Random(7)):
        async with Sandbox() as box:
            await upserting(box, point)
            await upserting(box, None)
            assert await state(box) == wanted, point


async def test_killed_and_run_again_it_ends_in_the_state_of_one_run() -> None:
    await kill_and_repeat(lambda chance: [chance.randrange(20, REQUESTS - 20)])


@pytest.mark.slow
async def test_killed_at_any_point_and_run_again_it_ends_in_the_state_of_one_run() -> None:
    await kill_and_repeat(lambda chance: [chance.randrange(1, REQUESTS - 1) for _ in range(20)])
