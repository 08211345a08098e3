"""The pure parts of delivery: what outcomes mean, and how long to wait."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drift_async import DriftEvents, Retry, SegmentStream
from drift_async.core.request import Failure, Response
from drift_async.events.delivery import Backoff, classify


@pytest.mark.parametrize("client", [DriftEvents, SegmentStream])
def test_the_routes_are_those_of_the_api(client: type[DriftEvents] | type[SegmentStream]) -> None:
    rows = json.loads((Path(__file__).parents[1] / "sandbox" / "operations.json").read_text())
    table = {row["operation"]: row for row in rows}
    api = "events" if client is DriftEvents else "segmentstream"
    names = set()
    for route in client._routes:
        for name, endpoint in ((route.name, route.one), (f"{route.name}_many", route.many)):
            if endpoint is not None:
                row = table[f"{api}.{name}"]
                path = row["path"].removeprefix("/segmentstream")  # a part of the base URL
                names.add(row["operation"])
                wanted = f"{row['method']} {path}", row["effect"]
                assert (endpoint.name, endpoint.effect) == wanted
    assert names == {name for name in table if name.startswith(f"{api}.")}


STATUSES = {
    **dict.fromkeys(range(200, 300), "delivered"),
    **dict.fromkeys((429, 503), "again"),
    **dict.fromkeys((408, 500, 502, 504), "again or unknown"),
    401: "unauthorized",
    404: "singly",
    405: "singly",
}


@pytest.mark.parametrize("repeats", [True, False])
def test_every_status_means_one_thing(repeats: bool) -> None:
    for status in range(100, 600):
        wanted = STATUSES.get(status, "split or refused")
        for size in (1, 2):
            for in_batch, has_token in ((True, False), (False, True)):
                action = classify(
                    Response(status, {}, b""),
                    size=size,
                    in_batch=in_batch,
                    repeats=repeats,
                    has_token=has_token,
                )
                exact = wanted
                if wanted == "again or unknown":
                    exact = "again" if repeats else "unknown"
                elif (
                    wanted == "split or refused"
                    or (wanted == "unauthorized" and not has_token)
                    or (wanted == "singly" and not in_batch)
                ):
                    exact = "split" if size == 2 else "refused"
                assert action == exact, status


@pytest.mark.parametrize(
    ("failure", "repeated", "set_aside"),
    [
        (Failure("connect", "", sent=False), "again", "again"),
        (Failure("certificate", "", sent=False), "again", "again"),
        (Failure("stalled", "", sent=False), "again", "again"),
        (Failure("stalled", "", sent=True), "again", "unknown"),
        (Failure("lost", "", sent=True), "again", "unknown"),
        (Failure("protocol", "", sent=True), "again", "unknown"),
        (Failure("lost", "", sent=True, status_read=200), "delivered", "delivered"),
        (Failure("too_large", "", sent=True, status_read=204), "delivered", "delivered"),
    ],
)
def test_without_a_reply_it_depends_on_what_was_sent(
    failure: Failure, repeated: str, set_aside: str
) -> None:
    for repeats, wanted in ((True, repeated), (False, set_aside)):
        said = classify(failure, size=2, in_batch=True, repeats=repeats, has_token=False)
        assert said == wanted


def test_the_waits_of_a_partition_double_up_to_the_cap() -> None:
    backoff = Backoff(Retry())
    waits = [backoff.failed(n, n, n, throttled=False, jitter=1.0) for n in range(1, 9)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 20, 20]
    assert backoff.failed(1, 9, 9, throttled=True, jitter=0.5) == 0.5  # of a longer first step
    assert backoff.failed(10_000, 9, 9, throttled=True, jitter=1.0) == 20


def test_all_partitions_wait_once_several_requests_have_failed_in_a_row() -> None:
    backoff = Backoff(Retry())
    for _ in range(9):  # failures between successes concern their own partition
        backoff.failed(1, 0.0, 0.0, throttled=False, jitter=1.0)
        backoff.failed(1, 0.0, 0.0, throttled=False, jitter=1.0)
        assert backoff.remaining(0.0) < 0
        backoff.succeeded()
    for n in range(16):  # all partitions, at nearly the same time
        backoff.failed(1, 0.0, 1.0 + n / 64, throttled=False, jitter=1.0)
    assert backoff.remaining(1.0) == 0.5 + 2 / 64  # what was under way does not prolong it
    backoff.failed(2, 1.6, 2.0, throttled=False, jitter=1.0)
    assert backoff.remaining(2.0) == 1.0
    backoff.skip_wait()
    assert backoff.remaining(2.0) < 0
