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
from drift_async import Drift

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


PATHS: dict[str, Callable[[Server], cProfile.Profile]] = {
    "a call, 16 in flight": partial(awaited_call, typed=False),
    "a typed call, 16 in flight": partial(awaited_call, typed=True),
    "a blocking call, in the caller": blocking_call,
    "a page of 100 conversations": page,
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
