"""Unsubscribing any number of addresses: cut into requests, and the truth about half of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from typing import Any

import pytest

from drift_async import BadRequestError, DeadlineError, DecodeError, DriftError, OutcomeUnknownError
from drift_async.resources.contacts import EMAILS_PER_REQUEST
from drift_async.sandbox import Sandbox
from tests.support import virtual
from tests.support.bulk_wire import Wire, contacts

pytestmark = pytest.mark.anyio

ADDRESSES = [f"{n}@example.com" for n in range(2 * EMAILS_PER_REQUEST + 7)]
PARTS = [ADDRESSES[:500], ADDRESSES[500:1000], ADDRESSES[1000:]]
OPERATION = "contacts.unsubscribe"


def parts(box: Sandbox) -> list[list[str]]:
    """Return the addresses in each request that the sandbox has carried out."""
    return [json.loads(one.body) for one in box.seen if one.applied]


@pytest.mark.parametrize("emails", [ADDRESSES, tuple(ADDRESSES), dict.fromkeys(ADDRESSES).keys()])
async def test_any_number_is_sent_in_order(
    emails: Collection[str], drift: Any, box: Sandbox
) -> None:
    await drift.contacts.unsubscribe(emails)
    assert parts(box) == PARTS
    assert {one.operation for one in box.seen} == {OPERATION}


async def test_the_longest_addresses_fit_into_a_request(drift: Any, box: Sandbox) -> None:
    # The longest that are taken, of the signs with the most bytes; the sandbox takes a mebibyte.
    emails = [f"{'🙂' * 318}@x" for _ in range(EMAILS_PER_REQUEST)]
    await drift.contacts.unsubscribe(emails)
    assert parts(box) == [emails]


async def test_one_bad_address_among_many_sends_nothing(drift: Any, box: Sandbox) -> None:
    with pytest.raises(DriftError, match=r"emails\[1006\]"):
        await drift.contacts.unsubscribe([*ADDRESSES[:-1], "no address"])
    assert box.count == 0


@pytest.mark.parametrize(
    ("passed", "fault", "kind", "applied", "done"),
    [
        (0, {"status": 400}, BadRequestError, False, None),
        (2, {"status": 400}, BadRequestError, None, 1000),
        (0, {"body": "no JSON"}, DecodeError, None, 500),
        (2, {"body": "no JSON"}, DecodeError, True, 1007),
        (1, {"cut": "after", "times": 3}, DriftError, None, 500),
        (0, {"cut": "after", "times": 3}, DriftError, None, None),
    ],
)
async def test_a_failure_on_the_way_says_what_is_done(
    passed: int,
    fault: dict[str, Any],
    kind: type[DriftError],
    applied: bool | None,
    done: int | None,
    drift: Any,
    box: Sandbox,
) -> None:
    box.fail(OPERATION, skip=passed, **fault)
    with pytest.raises(kind) as caught:
        await drift.contacts.unsubscribe(ADDRESSES)
    assert not isinstance(caught.value, OutcomeUnknownError)
    assert caught.value.applied is applied
    notes = [] if done is None else [f"the first {done} of 1007 addresses are unsubscribed"]
    assert getattr(caught.value, "__notes__", []) == notes
    if done is not None:
        arrived = [one for part in parts(box) for one in part]
        assert arrived[:done] == ADDRESSES[:done]


def test_one_timeout_covers_all_requests() -> None:
    async def main() -> None:
        wire = Wire(latency=1)
        with pytest.raises(DeadlineError) as caught:
            await contacts(wire, timeout=2.5).unsubscribe(ADDRESSES)
        assert asyncio.get_running_loop().time() == pytest.approx(2.5)
        assert caught.value.applied is None
        assert len(wire.sent) == 3

    virtual.run(main())
