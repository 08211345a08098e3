"""P7, P8, P9, B12: what events cost, against other event clients and against doing without."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

import drift_async.sync
from drift_async import DriftEvents, Hit, SegmentStream, Track

from .harness import Bench, installed
from .measure import Lane, Row, Spread, Target, compare, pinned

ATTRIBUTES = {
    "url": "https://www.example.com/pricing/teams?utm_source=search",
    "referrer": "https://www.example.org/search?q=engines",
    "plan": "team",
    "seats": 25,
    "price": 99.5,
    "trial": False,
    "campaign": "autumn-2026",
    "variant": "B",
}
NAME = "Viewed pricing"
USERS = 500

Story = Coroutine[Any, Any, float]


def track_item(n: int) -> Track:
    return Track(NAME, user_id=f"user-{n % USERS}", attributes=ATTRIBUTES)


def hit_item(n: int) -> Hit:
    return Hit({"name": NAME, **ATTRIBUTES}, user_id=f"user-{n % USERS}")


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """A directory on the disk where temporary files are."""
    with tempfile.TemporaryDirectory() as path:
        yield path


def told(story: Callable[[], Story]) -> Lane:
    """Return a lane that costs what a coroutine says."""
    return lambda: asyncio.run(story())


# Peers


def segment(bench: Bench, **settings: Any) -> Any:
    """Return a client of Segment that sends to the benchmark's server."""
    from segment.analytics.client import Client

    return Client("key", host=bench.server.url, max_queue_size=1_000_000, **settings)


def segment_track(client: Any, n: int) -> None:
    client.track(f"user-{n % USERS}", NAME, dict(ATTRIBUTES))


def segment_accepts(bench: Bench, count: int) -> float:
    client = segment(bench)
    began = time.thread_time()
    for n in range(count):
        segment_track(client, n)
    spent = time.thread_time() - began
    client.shutdown()
    return spent / count


def segment_delivers(bench: Bench, count: int) -> float:
    client = segment(bench, upload_interval=0.05)
    began = time.perf_counter()
    for n in range(count):
        segment_track(client, n)
    client.shutdown()
    return (time.perf_counter() - began) / count


def customerio_delivers(bench: Bench, count: int) -> float:
    from customerio import CustomerIO

    client = CustomerIO("site", "key")
    client.base_url = f"{bench.server.url}/api/v1"
    began = time.perf_counter()
    for n in range(count):
        client.track(customer_id=f"user-{n % USERS}", name=NAME, data=ATTRIBUTES)
    return (time.perf_counter() - began) / count


# Ours


async def accepts(bench: Bench, count: int) -> float:
    """Accept events in memory, one after another, as a program does."""
    async with DriftEvents(1, base_url=bench.server.url, max_events=count) as events:
        track = events.track
        began = time.thread_time()
        for n in range(count):
            await track(NAME, user_id=f"user-{n % USERS}", attributes=ATTRIBUTES)
        return (time.thread_time() - began) / count


async def stream_accepts(bench: Bench, count: int) -> float:
    """The same for SegmentStream, whose events get an id and their time."""
    async with SegmentStream("token", base_url="http://127.0.0.1:9", max_events=count) as stream:
        track = stream.track
        began = time.thread_time()
        for n in range(count):
            await track({"name": NAME, **ATTRIBUTES}, user_id=f"user-{n % USERS}")
        spent = time.thread_time() - began
        logging.disable(logging.WARNING)
        await stream.close(0)
        logging.disable(logging.NOTSET)
    return spent / count


async def accepts_on_disk(bench: Bench, count: int, cpu: Callable[[], float]) -> float:
    """Accept events on disk from 64 tasks at once; nothing is delivered meanwhile."""
    with folder() as path:
        async with DriftEvents(
            1, base_url="http://127.0.0.1:9", outbox=path, linger=60, max_events=10 * count
        ) as events:
            track = events.track

            async def work() -> None:
                for n in range(count // 64):
                    await track(NAME, user_id=f"user-{n % USERS}", attributes=ATTRIBUTES)

            logging.disable(logging.WARNING)
            began = cpu()
            await asyncio.gather(*(work() for _ in range(64)))
            spent = cpu() - began
            await events.close(0)
        logging.disable(logging.NOTSET)
        return spent / (count // 64 * 64)


async def drift_delivers(bench: Bench, count: int, path: str | None = None) -> float:
    began = time.perf_counter()
    async with DriftEvents(1, base_url=bench.server.url, outbox=path) as events:
        await events.track_many(map(track_item, range(count)))
        stats = await events.flush(120)
    assert stats.delivered == count, stats
    return (time.perf_counter() - began) / count


async def stream_delivers(bench: Bench, count: int, path: str | None = None) -> float:
    began = time.perf_counter()
    async with SegmentStream("token", base_url=bench.server.url, outbox=path) as stream:
        await stream.track_many(map(hit_item, range(count)))
        stats = await stream.flush(120)
    assert stats.delivered == count, stats
    return (time.perf_counter() - began) / count


def blocking_stream_delivers(bench: Bench, count: int) -> float:
    """Deliver on the blocking face, whose loop is uvloop's where that is installed."""
    began = time.perf_counter()
    with drift_async.sync.SegmentStream("token", base_url=bench.server.url) as stream:
        stream.track_many(map(hit_item, range(count)))
        stats = stream.flush(120)
    assert stats.delivered == count, stats
    return (time.perf_counter() - began) / count


async def from_disk(
    delivers: Callable[[Bench, int, str], Story], bench: Bench, count: int
) -> float:
    with folder() as path:
        return await delivers(bench, count, path)


# The measurements


def p7(bench: Bench) -> Iterator[Row]:
    """Caller's CPU for accepting one event."""
    if not installed("segment"):
        return
    count = bench.calls(6_400, 640)
    peer = partial(segment_accepts, bench, count)
    rows: list[tuple[str, Callable[[], Story], Target]] = [
        ("accept, memory", partial(accepts, bench, count), Target(1 / 6)),
        ("accept for SegmentStream", partial(stream_accepts, bench, count), Target()),
        (
            "accept, disk, 64 tasks",
            partial(accepts_on_disk, bench, count, time.thread_time),
            Target(1 / 2),
        ),
        (
            "the same with the disk's thread",
            partial(accepts_on_disk, bench, count, time.process_time),
            Target(),
        ),
    ]
    with pinned(), bench.server.watched(bench.busy):
        for what, ours, target in rows[: 1 if bench.quick else None]:
            yield compare(
                "P7",
                what,
                "segment, caller's thread",
                target,
                told(ours),
                peer,
                rounds=bench.rounds(12),
            )


def p8(bench: Bench) -> Iterator[Row]:
    """Events delivered a second."""
    batches = partial(drift_delivers, bench, bench.calls(20_000, 1_000))
    singles = partial(stream_delivers, bench, bench.calls(3_000, 200))
    with bench.server.watched(bench.busy):
        if installed("segment"):
            peer = partial(segment_delivers, bench, bench.calls(20_000, 500))
            for what, ours, bound in (
                ("deliver, batches", batches, 8.0),
                ("deliver, one a request", singles, 0.5),
            ):
                yield compare(
                    "P8",
                    what,
                    "segment",
                    Target(bound, at_least=True),
                    told(ours),
                    peer,
                    rounds=bench.rounds(10),
                )
        if installed("customerio"):
            slow_peer = partial(customerio_delivers, bench, bench.calls(300, 50))
            blocking = partial(blocking_stream_delivers, bench, bench.calls(3_000, 200))
            lanes = [("deliver, one a request", told(singles))]
            lanes += [("the same, blocking face with uvloop", blocking)] * installed("uvloop")
            for what, lane in lanes:
                yield compare(
                    "P8",
                    what,
                    "customerio",
                    Target(5.0, at_least=True),
                    lane,
                    slow_peer,
                    rounds=bench.rounds(10),
                )


def p9(bench: Bench) -> Iterator[Row]:
    """What durability costs, and the bytes of an event that waits."""
    with bench.server.watched(bench.busy):
        for what, delivers, count in (
            ("deliver one a request, disk", stream_delivers, bench.calls(3_000, 200)),
            ("deliver batches, disk", drift_delivers, bench.calls(20_000, 1_000)),
        ):
            yield compare(
                "P9",
                what,
                "memory",
                Target(0.45, at_least=True),
                told(partial(from_disk, delivers, bench, count)),
                told(partial(delivers, bench, count)),
                rounds=bench.rounds(10),
            )
    if installed("segment"):
        ours = asyncio.run(bytes_of_ours(5_000))
        peers = bytes_of_segment(bench, 5_000)
        ratio = Spread.of([ours / peers])
        yield Row(
            "P9",
            "bytes of a waiting event",
            "segment",
            Target(0.4),
            ratio,
            None,
            ours,
            peers,
        )


async def bytes_of_ours(count: int) -> float:
    async with DriftEvents(1, base_url="http://127.0.0.1:9", linger=60) as events:
        await events.track(NAME, user_id="u", attributes=ATTRIBUTES)
        tracemalloc.start()
        for n in range(count):
            await events.track(NAME, user_id=f"user-{n % USERS}", attributes=ATTRIBUTES)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        logging.disable(logging.WARNING)
        await events.close(0)
        logging.disable(logging.NOTSET)
        return size / count


def bytes_of_segment(bench: Bench, count: int) -> float:
    client = segment(bench, thread=0)  # nobody takes from the queue
    client.consumers = []  # its own code looks for them at exit
    segment_track(client, 0)
    tracemalloc.start()
    for n in range(count):
        segment_track(client, n)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / count


# A web service


class Service:
    """A web service with a path that tracks an event and one that does not, and what asks it."""

    def __init__(self, bench: Bench, requests: int) -> None:
        self._events = DriftEvents(1, base_url=bench.server.url)
        self._requests = requests

    async def open(self) -> None:
        app = web.Application()
        app.router.add_get("/with", self._with)
        app.router.add_get("/without", self._without)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        await self._events.open()
        self._load = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("webload.py")),
            str(self._runner.addresses[0][1]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    async def _with(self, request: web.Request) -> web.Response:
        await self._events.track(NAME, user_id=request.query_string, attributes=ATTRIBUTES)
        return web.json_response({"ok": True})

    async def _without(self, request: web.Request) -> web.Response:
        return web.json_response({"ok": True, "user": request.query_string[:1]})

    async def asked(self, path: str, flight: int) -> float:
        """Return the CPU seconds of the service for a request, delivery and all.

        With a core to itself, its request rate is the reciprocal of that.
        """
        assert self._load.stdin
        assert self._load.stdout
        began = time.process_time()
        self._load.stdin.write(f"{path} {self._requests} {flight}\n".encode())
        await self._load.stdout.readline()
        await self._events.flush()
        return (time.process_time() - began) / self._requests

    def costs(self, runner: asyncio.Runner, path: str, flight: int) -> float:
        """Do the same in the service's own loop."""
        return runner.run(self.asked(path, flight))

    async def close(self) -> None:
        await self._load.communicate(b"")  # it ends with its input, and its connections with it
        await self._runner.cleanup()
        await self._events.close()


async def longest_gap(bench: Bench, seconds: float) -> float:
    """Return the longest time for which the loop stood still at 5,000 events a second."""
    loop = asyncio.get_running_loop()
    worst = 0.0
    async with DriftEvents(1, base_url=bench.server.url) as events:
        end = loop.time() + seconds
        last = loop.time()
        while (now := loop.time()) < end:
            worst = max(worst, now - last - 0.002)
            last = now
            for n in range(10):
                await events.track(NAME, user_id=f"user-{n}", attributes=ATTRIBUTES)
            await asyncio.sleep(0.002)
    return worst


def b12(bench: Bench) -> Iterator[Row]:
    """A web service with and without an event in each request."""
    service = Service(bench, bench.calls(2_000, 300))
    with asyncio.Runner() as runner:
        runner.run(service.open())
        with bench.server.watched(bench.busy):
            for flight, times in ((1, 24), (16, 48)):
                yield compare(
                    "B12",
                    f"web requests with an event, {flight} in flight",
                    "without",
                    Target(0.9, at_least=True),
                    partial(service.costs, runner, "/with", flight),
                    partial(service.costs, runner, "/without", flight),
                    rounds=bench.rounds(times),
                )
        runner.run(service.close())
    rounds = [asyncio.run(longest_gap(bench, 0.2 if bench.quick else 2.0)) for _ in range(5)]
    yield Row(
        "B12",
        "longest gap in the loop, ms / 10",
        "10 ms",
        Target(1.0),
        Spread.of([gap * 100 for gap in rounds]),
    )
