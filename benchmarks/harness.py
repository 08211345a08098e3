"""What the benchmarks share: the server, how thorough to be, the JSON reader, calls in flight."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from drift_async.core import strict_json

from .measure import Lane, Row, Server, Target, compare, cpu

TOKEN = "benchmark-token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}

AsyncCall = Callable[[], Coroutine[Any, Any, Any]]
Loads = Callable[[bytes], Any]


@dataclass
class Bench:
    """The server, how long to measure, and what was seen of the server's load."""

    server: Server
    quick: bool = False
    busy: list[float] = field(default_factory=list)

    def rounds(self, thorough: int) -> int:
        """Return how many rounds to run."""
        return 1 if self.quick else thorough

    def calls(self, thorough: int, least: int) -> int:
        """Return how many calls make a block."""
        return least if self.quick else thorough

    def compare(
        self,
        id: str,
        what: str,
        against: str,
        target: Target,
        ours: Lane,
        peer: Lane,
        *,
        rounds: int,
        calls: int = 1,
    ) -> Row:
        """Measure, with an eye on the server; *rounds* are those of a thorough run."""
        with self.server.watched(self.busy):
            return compare(
                id, what, against, target, ours, peer, rounds=self.rounds(rounds), calls=calls
            )


def installed(name: str) -> bool:
    """Tell whether there is a module of that name; without it a peer is left out."""
    return importlib.util.find_spec(name) is not None


def codecs() -> Iterator[tuple[str, Loads]]:
    """Give the JSON readers to measure with."""
    yield "json", json.loads
    if installed("orjson"):
        import orjson

        yield "orjson", orjson.loads


@contextlib.contextmanager
def reading_with(loads: Loads) -> Iterator[None]:
    """Make the library read JSON with *loads*."""
    before = strict_json._fast_loads
    strict_json._fast_loads = None if loads is json.loads else loads
    try:
        yield
    finally:
        strict_json._fast_loads = before


def awaited(runner: asyncio.Runner, call: AsyncCall, tasks: int, calls: int) -> Lane:
    """Return a lane of CPU time: so many *calls*, by so many *tasks* at once."""

    async def work() -> None:
        for _ in range(calls // tasks):
            await call()

    async def block() -> None:
        await asyncio.gather(*(work() for _ in range(tasks)))

    return cpu(lambda: runner.run(block()))


def threaded(calls: Sequence[Callable[[], Any]], total: int) -> Callable[[], None]:
    """Return a function that makes *total* calls, each of *calls* in a thread of its own."""

    def work(call: Callable[[], Any]) -> None:
        for _ in range(total // len(calls)):
            call()

    def block() -> None:
        if len(calls) == 1:
            work(calls[0])
            return
        threads = [threading.Thread(target=work, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return block


def repeated(call: Callable[[], object], times: int) -> Lane:
    """Return a lane of CPU time: *call*, so many times."""

    def block() -> None:
        for _ in range(times):
            call()

    return cpu(block)
