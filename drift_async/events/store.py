"""What an outbox asks of the place where its rows are kept, and the one in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

import attrs

from .lanes import Row


@attrs.define(eq=False, repr=False)
class Grave:
    """A row that was set aside: the reason, the status of the refusal, and when (since 1970)."""

    row: Row
    reason: str
    status: int | None
    died_at: float
    is_whole: bool = True


@attrs.frozen(kw_only=True)
class DeadLimits:
    """How many dead letters are kept, and for how many seconds."""

    rows: int
    seconds: float


@attrs.frozen
class Held:
    """What a store holds at the start; ``last`` is the highest number given to a row.

    ``gone`` are the dead letters over the limits that were dropped for it, by reason.
    """

    pending: int = 0
    bytes: int = 0
    dead: int = 0
    last: int = 0
    gone: Mapping[str, int] = attrs.Factory(dict)


@attrs.frozen
class Loaded:
    """Rows read back, those found damaged (they are dead letters now), and if there are more."""

    rows: list[Row]
    damaged: list[Row]
    more: bool


@attrs.frozen
class Replayed:
    """Dead letters that wait again: how many, and those that are not to be loaded first."""

    count: int
    bytes: int
    rows: list[Row]


class Store(Protocol):
    """Where rows are kept. What is asked is done in the order in which it was asked, but that rows
    which come together may go first.

    Nothing but `put` fails for want of space: it is tried again later.
    """

    is_durable: bool
    on_gone: Callable[[Mapping[str, int]], object]
    """Called with how many dead letters went, by reason, where no answer tells of it."""

    def put(self, rows: Sequence[Row], done: Callable[[object, Exception | None], None]) -> None:
        """Keep rows; *done* is called when they are kept, or with the error that prevents it."""

    def taken(self) -> asyncio.Future[None]:
        """Return what is done once the disk is at work on the last rows that came together.

        A loop that stays busy until then keeps it from them: its thread does not get Python's lock.
        """

    def forget(self, rows: Sequence[Row], through: int = 0) -> Awaitable[None]:
        """Remove rows; with them no row up to the number *through* is left, if it is given."""

    def bury(self, graves: Sequence[Grave]) -> Awaitable[dict[str, int]]:
        """Set rows aside; return how many dead letters went for it, by reason."""

    def dead(self) -> Awaitable[list[Grave]]:
        """Return what was set aside, oldest first."""

    def replay(self, after: int, most: int) -> Awaitable[Replayed]:
        """Take up to so many dead letters for rows again, numbered from *after* on."""

    def load(self, after: int, rows: int, size: int) -> asyncio.Future[Loaded]:
        """Return the rows that follow number *after*, up to so many rows and bytes."""

    def has_others(self) -> Awaitable[bool]:
        """Tell whether there are files of other clients, living or not."""

    def adopt(self, after: int, most: int) -> Awaitable[Held]:
        """Take over rows that others have left, numbered from *after* on; return how much."""

    async def close(self) -> None:
        """Let others have what is left."""


class Done:
    """An awaitable that has nothing to wait for."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


class MemoryStore:
    """Keeps dead letters only: the rows themselves are in their lanes."""

    is_durable = False
    on_gone: Callable[[Mapping[str, int]], object]

    def __init__(self, limits: DeadLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._graves: deque[Grave] = deque()

    def put(self, rows: Sequence[Row], done: Callable[[object, Exception | None], None]) -> None:
        done(None, None)

    def taken(self) -> asyncio.Future[None]:
        raise AssertionError("there is no disk")

    def forget(self, rows: Sequence[Row], through: int = 0) -> Awaitable[None]:
        return _DONE

    async def bury(self, graves: Sequence[Grave]) -> dict[str, int]:
        self._graves.extend(graves)
        return self._prune()

    def _prune(self) -> dict[str, int]:
        gone = {"dead_old": 0, "dead_full": 0}
        oldest = self._clock() - self._limits.seconds
        while self._graves and self._graves[0].died_at < oldest:
            self._graves.popleft()
            gone["dead_old"] += 1
        while len(self._graves) > self._limits.rows:
            self._graves.popleft()
            gone["dead_full"] += 1
        return gone

    async def dead(self) -> list[Grave]:
        self.on_gone(self._prune())
        return list(self._graves)

    async def replay(self, after: int, most: int) -> Replayed:
        self.on_gone(self._prune())
        rows = [self._graves.popleft().row for _ in range(min(most, len(self._graves)))]
        for n, row in enumerate(rows, after + 1):
            row.seq = n
        return Replayed(len(rows), sum(len(row.body) for row in rows), rows)

    def load(self, after: int, rows: int, size: int) -> asyncio.Future[Loaded]:
        raise AssertionError("all rows are in memory")

    async def has_others(self) -> bool:
        return False

    async def adopt(self, after: int, most: int) -> Held:
        return Held()

    async def close(self) -> None:
        pass


_DONE = Done()
