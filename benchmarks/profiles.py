"""The five dearest functions of each hot path, by their own time.

python -m benchmarks.profiles
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePath

import drift_async.sync
from drift_async import Drift, DriftEvents

from .events import ATTRIBUTES, NAME, USERS
from .harness import TOKEN, AsyncCall
from .measure import Server, serving
from .models import ours as read_page

TOP = 5


def awaited_call(server: Server, *, typed: bool) -> cProfile.Profile:
    """Profile calls by 16 tasks."""
    profile = cProfile.Profile()

    async def main() -> None:
        async with Drift(TOKEN, base_url=server.url) as drift:
            call: AsyncCall = partial(drift.request, "GET", "/contacts/7")
            if typed:
                call = partial(drift.contacts.get, 7)

            async def work() -> None:
                for _ in range(200):
                    await call()

            await asyncio.gather(*(work() for _ in range(16)))
            profile.enable()
            await asyncio.gather(*(work() for _ in range(16)))
            profile.disable()

    asyncio.run(main())
    return profile


def blocking_call(server: Server) -> cProfile.Profile:
    """Profile the caller's side of calls by one thread; the other side is an awaited call."""
    with drift_async.sync.Drift(TOKEN, base_url=server.url) as drift:
        return _repeated(partial(drift.request, "GET", "/contacts/7"), 1500)


def page(_: Server) -> cProfile.Profile:
    """Profile the reading of a page of conversations."""
    return _repeated(read_page, 300)


def bulk(server: Server) -> cProfile.Profile:
    """Profile a bulk of contacts."""
    profile = cProfile.Profile()

    async def main() -> None:
        async with Drift(TOKEN, base_url=server.url) as drift:
            await drift.contacts.get_many(range(1, 2_001)).collect()
            profile.enable()
            await drift.contacts.get_many(range(1, 2_001)).collect()
            profile.disable()

    asyncio.run(main())
    return profile


def events(server: Server, *, delivered: bool) -> cProfile.Profile:
    """Profile events in memory as they are accepted, or as they are delivered."""
    profile = cProfile.Profile()

    async def main() -> None:
        async with DriftEvents(1, base_url=server.url) as events:
            for _ in range(2):  # the first warms up
                profile.clear()
                if not delivered:
                    profile.enable()
                for n in range(20_000):
                    await events.track(NAME, user_id=f"user-{n % USERS}", attributes=ATTRIBUTES)
                profile.disable()
                if delivered:
                    profile.enable()
                await events.flush()
                profile.disable()

    asyncio.run(main())
    return profile


PATHS: dict[str, Callable[[Server], cProfile.Profile]] = {
    "a call, 16 in flight": partial(awaited_call, typed=False),
    "a typed call, 16 in flight": partial(awaited_call, typed=True),
    "a blocking call, in the caller": blocking_call,
    "a page of 100 conversations": page,
    "a bulk item": bulk,
    "an accepted event": partial(events, delivered=False),
    "a delivered batch of events": partial(events, delivered=True),
}


def _repeated(call: Callable[[], object], times: int) -> cProfile.Profile:
    profile = cProfile.Profile()
    for turn in range(2):
        if turn:
            profile.enable()
        for _ in range(times):
            call()
    profile.disable()
    return profile


def top(profile: cProfile.Profile) -> Iterator[str]:
    """Give the dearest functions as lines of text."""
    stats = pstats.Stats(profile)
    total: float = stats.total_tt  # type: ignore[attr-defined]  # not in its stubs
    found = stats.stats.items()  # type: ignore[attr-defined]  # not in its stubs
    for (file, _, name), figures in sorted(found, key=lambda item: -item[1][2])[:TOP]:
        where = "" if file == "~" else f"{'/'.join(PurePath(file).parts[-2:])}: "
        yield f"  {figures[2] / total:5.1%}  {where}{name}"


def main() -> None:
    """Profile all paths."""
    with serving() as server:
        for name, path in PATHS.items():
            print(name)
            print("\n".join(top(path(server))), flush=True)


if __name__ == "__main__":
    main()
