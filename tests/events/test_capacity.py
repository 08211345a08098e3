"""Capacity: for how many events, how many bytes, and in which order it is given."""

from __future__ import annotations

import asyncio
import time

import pytest

from drift_async.events.capacity import Capacity
from drift_async.events.queue import EventQueue
from drift_async.events.storage import DeadLimits, QueuedEvent
from tests.support.virtual import run


def test_capacity_is_given_first_come_first_served() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        capacity = Capacity(2, 100)
        assert capacity.try_reserve(10)
        assert capacity.try_reserve(10)
        assert not capacity.try_reserve(10)
        order: list[str] = []

        async def waits(name: str, size: int, seconds: float) -> None:
            try:
                await capacity.reserve(size, loop.time() + seconds)
                order.append(name)
            except TimeoutError:
                order.append(f"{name} late")

        tasks = [
            asyncio.create_task(waits(name, size, seconds))
            for name, size, seconds in [("a", 90, 5.0), ("b", 1, 9.0), ("c", 1, 1.0)]
        ]
        await asyncio.sleep(0.5)
        capacity.release(1, 10)
        await asyncio.sleep(0.1)
        assert order == ["a"]  # 90 bytes fit beside 10
        assert not capacity.try_reserve(0)  # others wait
        await asyncio.sleep(1)
        assert order == ["a", "c late"]
        capacity.release(1, 90)
        await asyncio.sleep(0.1)
        assert order == ["a", "c late", "b"]
        assert (capacity.events, capacity.bytes) == (2, 11)
        capacity.release(2, 11)
        await asyncio.gather(*tasks)
        assert capacity.try_reserve(1000)  # one that is over the limit by itself

    run(story())


def test_a_small_event_does_not_pass_a_large_one_that_waits() -> None:
    async def story() -> None:
        limits = DeadLimits(count=9, seconds=9)
        queue = EventQueue(1, 9, 100, "block", limits, None, time.time)
        assert queue.put_nowait(QueuedEvent(0, 1, b"x" * 90))
        large = asyncio.create_task(queue.put(QueuedEvent(0, 2, b"x" * 20), 9))
        await asyncio.sleep(0)
        assert not queue.put_nowait(QueuedEvent(0, 3, b"x" * 10))
        queue.capacity.release(1, 90)
        await large
        assert queue.put_nowait(QueuedEvent(0, 3, b"x" * 10))
        assert not queue.put_nowait(QueuedEvent(0, 4, b"x" * 71))

    run(story())


def test_capacity_granted_in_the_moment_of_cancellation_goes_to_the_next() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        capacity = Capacity(1, 100)
        assert capacity.try_reserve(1)
        first = asyncio.create_task(capacity.reserve(1, loop.time() + 9))
        second = asyncio.create_task(capacity.reserve(2, loop.time() + 9))
        await asyncio.sleep(0)
        capacity.release(1, 1)
        first.cancel()
        await second
        assert (capacity.events, capacity.bytes) == (1, 2)
        third = asyncio.create_task(capacity.reserve(3, loop.time() + 9))
        await asyncio.sleep(0)
        capacity.refuse(lambda: ValueError("closed"))
        with pytest.raises(ValueError, match="closed"):
            await third
        assert (capacity.events, capacity.bytes) == (1, 2)

    run(story())


def test_a_cancellation_in_the_moment_of_the_timeout_is_a_cancellation() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        capacity = Capacity(1, 100)
        assert capacity.try_reserve(1)
        waiting = asyncio.create_task(capacity.reserve(1, loop.time() + 1))
        await asyncio.sleep(0)
        loop.call_at(loop.time() + 1, waiting.cancel)
        await asyncio.wait([waiting])
        assert waiting.cancelled()

    run(story())
