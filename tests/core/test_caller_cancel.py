"""Cancelled at any point where it waits, a call leaves at once and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import attrs
import pytest
import trustme

from drift_async import Drift, Rate, Retry
from drift_async.sandbox import Sandbox
from tests.support.proxy import Proxy

pytestmark = pytest.mark.anyio

KNOWN = "ext-1-83dcefb7"  # the external id of one of the sandbox's contacts
ATTACHMENT = 700_002


@types.coroutine
def stepped(work: Coroutine[Any, Any, Any], at: Callable[[Any], None]) -> Generator[Any, None, Any]:
    """Await *work*, and tell each time it waits for something, and for what."""
    thrown: BaseException | None = None
    while True:
        try:
            waits_for = work.send(None) if thrown is None else work.throw(thrown)
        except StopIteration as done:
            return done.value
        at(waits_for)
        thrown = None
        try:
            yield waits_for
        except BaseException as error:
            thrown = error


Moment = Literal["waiting", "woken"]


@attrs.define
class Stop:
    """Cancels at the n-th wait: while it lasts, or in the moment that what was awaited is there."""

    n: int
    moment: Moment
    cancel: Callable[[], object] = lambda: None
    steps: int = 0

    def at(self, waits_for: Any) -> None:
        self.steps += 1
        if self.steps != self.n:
            return
        if self.moment == "woken" and waits_for is not None:
            waits_for.add_done_callback(lambda _: self.cancel())  # before that of the task
        else:
            asyncio.get_running_loop().call_soon(self.cancel)


async def by_task(work: Coroutine[Any, Any, Any], stop: Stop) -> bool:
    """Run in a task of its own and cancel that; tell whether it ended so."""
    task = asyncio.ensure_future(stepped(work, stop.at))
    stop.cancel = task.cancel
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return task.cancelled()


async def by_timeout(work: Coroutine[Any, Any, Any], stop: Stop) -> bool:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    try:
        async with asyncio.timeout(None) as scope:
            stop.cancel = lambda: scope.reschedule(loop.time())
            await stepped(work, stop.at)
    except TimeoutError:
        assert task.cancelling() == 0
        return True
    return False


async def by_scope(work: Coroutine[Any, Any, Any], stop: Stop) -> bool:
    with anyio.CancelScope() as scope:
        stop.cancel = scope.cancel
        await stepped(work, stop.at)
    return scope.cancelled_caught


# -- what is cancelled


@attrs.define
class Place:
    """Where a call is made."""

    box: Sandbox
    drift: Drift
    folder: Path
    holder: asyncio.Task[Any] | None = None


async def arrived(box: Sandbox) -> None:
    """Wait until a request is in."""
    async with asyncio.timeout(5):
        while not box.count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def nothing(place: Place) -> None:
    """Prepare nothing."""


async def warm(place: Place) -> None:
    await place.drift.users.get(228_225)


async def failing(place: Place) -> None:
    place.box.fail("users.get", status=500)
    place.box.fail("users.get", cut="before")


async def late_body(place: Place) -> None:
    place.box.fail("users.get", pause=0.02)


async def paused(place: Place) -> None:
    limiter = place.drift._caller.site.limiters["default"]
    limiter.refused(time.monotonic(), 0.1, is_rate_limit=False)


async def hold_the_connection(place: Place) -> None:
    place.box.fail("users.get", delay=0.02)
    place.holder = asyncio.create_task(place.drift.users.get(228_225))
    await arrived(place.box)


async def get(place: Place) -> None:
    await place.drift.users.get(228_225)


async def walk(place: Place) -> None:
    assert len(await place.drift.conversations.all(page_size=20).collect()) == 50


async def download(place: Place) -> None:
    await place.drift.conversations.download_attachment(ATTACHMENT, place.folder / "file")


async def upsert_known(place: Place) -> None:
    await place.drift.contacts.upsert(KNOWN, email="a@b.example")


async def upsert_new(place: Place) -> None:
    await place.drift.contacts.upsert("new", email="a@b.example")


AUTHORITY = trustme.CA()
SERVER, CLIENT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
AUTHORITY.issue_cert("127.0.0.1").configure_cert(SERVER)
AUTHORITY.configure_trust(CLIENT)

Act = Callable[[Place], Coroutine[Any, Any, None]]
# What goes before, what is cancelled, the client's settings, and the least number of waits.
CALLS: Mapping[str, tuple[Act, Act, dict[str, Any], int]] = {
    "plain": (nothing, get, {}, 3),
    "tls": (nothing, get, {"tls": CLIENT}, 3),
    "warm": (warm, get, {}, 1),
    "body": (late_body, get, {}, 4),
    "retry": (failing, get, {"retry": Retry(base=0.002)}, 7),
    "pacing": (paused, get, {"rate": Rate(1000)}, 4),
    "pool": (hold_the_connection, get, {"max_connections": 1}, 2),
    "walk": (nothing, walk, {}, 5),
    "download": (nothing, download, {}, 7),
    "update": (nothing, upsert_known, {}, 4),
    "creation": (nothing, upsert_new, {}, 4),
}


def sockets() -> set[str]:
    """Return the open sockets of this process."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@asynccontextmanager
async def leaving_nothing() -> AsyncIterator[None]:
    """Check that no task and no socket is there that was not before."""
    tasks, open_ones = asyncio.all_tasks(), sockets()
    yield
    assert asyncio.all_tasks() <= tasks
    assert sockets() <= open_ones


async def cancelled(
    name: str, stop: Stop, way: Callable[..., Awaitable[bool]], folder: Path
) -> bool:
    """Make one call and cancel it; tell whether it was not over before."""
    before, act, settings, _ = CALLS[name]
    async with leaving_nothing(), Sandbox() as box, AsyncExitStack() as stack:
        url = box.url
        if "tls" in settings:
            port = int(url.rpartition(":")[2])
            url = (await stack.enter_async_context(Proxy(port, tls=SERVER))).url
        drift = Drift(box.token, base_url=url, timeout=5, **settings)
        async with drift:
            place = Place(box, drift, folder)
            await before(place)
            ended = await way(act(place), stop)
            if not ended and stop.steps >= stop.n:
                # A scope cancels at the next wait, and there may be none.
                assert way is not by_task
                assert stop.moment == "woken"
            live = drift._caller.site.live
            assert live is not None
            await asyncio.gather(*live.tasks)  # a page fetched ahead
            if place.holder is not None:
                await place.holder
            assert drift.rate.waiting == 0
            assert not live.connection._watch.running
            connector = live.connection._session.connector
            assert connector is not None
            assert not connector._acquired
            await drift.users.get(228_225)  # and all goes on
    return stop.steps >= stop.n


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("moment", ["waiting", "woken"])
@pytest.mark.parametrize("way", [by_task, by_timeout, by_scope])
@pytest.mark.parametrize("name", CALLS)
async def test_a_cancelled_call_leaves_nothing_behind(
    name: str, way: Callable[..., Awaitable[bool]], moment: Moment, rounds: int, tmp_path: Path
) -> None:
    for _ in range(rounds):
        n = 1
        while await cancelled(name, Stop(n, moment), way, tmp_path):
            for thread in threading.enumerate():
                if thread.name.startswith("drift-async-file"):
                    thread.join(5)  # it may be about to delete one
            for left in tmp_path.iterdir():
                assert (left.name, left.stat().st_size) == ("file", 4096)
            n += 1
        assert n > CALLS[name][-1]


@pytest.mark.parametrize("first", ["limit", "caller"])
async def test_a_cancellation_in_the_moment_of_the_time_limit_is_not_lost(first: str) -> None:
    async with Sandbox() as box, Drift(box.token, base_url=box.url) as drift:
        box.fail("users.get", delay=60)
        call = asyncio.create_task(drift.users.get(228_225))
        await arrived(box)
        live = drift._caller.site.live
        assert live is not None
        [attempt] = live.connection._watch.running
        both: list[Callable[[], object]] = [attempt.expire, call.cancel]
        for end in both if first == "limit" else reversed(both):
            end()
        await asyncio.wait([call])
        assert call.cancelled()
        assert box.count == 1
