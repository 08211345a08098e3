"""The order of events, and how batches are taken."""

from __future__ import annotations

from collections import deque

from hypothesis import given, strategies as st

from drift_async.events.partition import Partition, take_batch
from drift_async.events.storage import QueuedEvent

events = st.lists(
    st.builds(QueuedEvent, st.integers(0, 1), st.integers(0, 3), st.binary(max_size=30)),
    max_size=60,
)


@given(events, st.integers(1, 8), st.integers(2, 100))
def test_batches_hold_one_kind_fit_and_keep_the_order_of_each_key(
    given_events: list[QueuedEvent], most: int, most_bytes: int
) -> None:
    for n, event in enumerate(given_events):
        event.number = n
    line = deque(given_events)
    taken: list[QueuedEvent] = []
    while line:
        first = line[0]
        batch = take_batch(line, most, most_bytes)
        assert batch[0] is first
        assert len({event.kind for event in batch}) == 1
        assert len(batch) <= most
        sent = b"[" + b",".join(event.body for event in batch) + b"]"
        assert len(batch) == 1 or len(sent) <= most_bytes + 1
        taken += batch
    assert sorted(event.number for event in taken) == list(range(len(given_events)))
    for key in range(4):
        numbers = [event.number for event in taken if event.key == key]
        assert numbers == sorted(numbers)


def test_a_batch_is_the_largest_there_is() -> None:
    line = deque(QueuedEvent(n % 2, n, b"x") for n in range(1000))
    assert len(take_batch(line, 600, 1 << 20)) == 500
    assert len(line) == 500
    assert take_batch(deque(), 600, 1 << 20) == []
    assert len(take_batch(deque([QueuedEvent(0, 0, b"x" * 100)]), 600, 50)) == 1


def test_events_in_flight_go_back_to_their_place() -> None:
    partition = Partition()
    for n in range(5):
        partition.waiting.append(QueuedEvent(0, 0, b"", n))
    batch = partition.take_batch(3, 1 << 20)
    partition.settle(batch[:1])
    assert [event.number for event in partition.in_flight] == [1, 2]
    partition.requeue()
    assert [event.number for event in partition.waiting] == [1, 2, 3, 4]
    assert partition.in_flight == []


def test_unrepeatable_events_are_not_sent_again_in_the_next_loop() -> None:
    partition = Partition()
    for n in range(6):
        partition.waiting.append(QueuedEvent(0, 0, b"", n))
    batch = partition.take_batch(4, 1 << 20)
    partition.unrepeatable = batch[1:3]
    following = partition.rebind()
    assert [event.number for event in following.in_flight] == [1, 2]
    assert [event.number for event in following.waiting] == [0, 3, 4, 5]
