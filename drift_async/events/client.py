"""The life of an event client: an outbox that outlives its connections, and a way to leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import attrs

from ..core.batch import Chunk, Items
from ..core.codec import Frozen
from ..core.connection import Connection
from ..core.discreet import discreet
from ..core.inputs import number, whole
from ..core.life import Client, CommonSettings
from ..core.rate import Limiter, Rate
from ..core.resolver import Resolver
from ..errors import ClosedError, InputError
from .delivery import Delivery, Pause, Route
from .lanes import Row
from .outbox import Loss, Outbox, WhenFull, logger
from .room import Room
from .sqlite import SqliteStore
from .store import DeadLimits, Grave, MemoryStore

OnUnknown = Literal["send", "dead"]

EXIT_BOUND = 5.0
"""Seconds that delivery may take at interpreter exit, for all clients together."""

ADOPT_EVERY = 10.0
"""Seconds between two looks for files whose process has ended."""

TOGETHER = 500
"""Events of many that wait for the disk in one piece."""

BREATH = 100
"""Events of many to accept before other tasks have a turn."""

DAY = 86_400.0

T = TypeVar("T")


class EventSettings(CommonSettings, total=False):
    """The keyword arguments that both event clients take."""

    outbox: str | os.PathLike[str] | None
    when_full: WhenFull
    max_events: int
    max_bytes: int
    max_dead: int
    dead_days: float
    window: int
    on_drop: Callable[[Loss], object] | None


@attrs.frozen(kw_only=True)
class EventStats:
    """What has become of the events of a client.

    ``accepted == delivered + pending + dead + sum(dropped.values())`` holds at every moment.
    ``recovered`` of the accepted ones were found on disk. ``in_flight`` of the pending ones are
    being sent; all pending ones have ``bytes``. ``dropped`` is by reason, see `Loss`.
    ``paused_for`` are the seconds until the next request after a failure. ``stopped`` says why
    nothing is sent at all.
    """

    accepted: int
    delivered: int
    pending: int
    dead: int
    dropped: Mapping[str, int]
    recovered: int
    in_flight: int
    bytes: int
    paused_for: float
    stopped: str | None


@attrs.frozen(kw_only=True, repr=False)
class DeadEvent:
    """An event that was set aside: ``event`` is what would have been sent.

    ``reason`` is ``refused``, with the server's ``status``; ``unknown``, where it may or may not
    have been applied; or ``damaged``, where ``event`` is None if it cannot be read.
    """

    operation: str
    reason: str
    status: int | None
    died_at: datetime
    event: Mapping[str, Any] | None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.operation}, {self.reason}, status {self.status}>"


@discreet
class EventClient(Client):
    """What the event clients share. Settings and counters; the outbox is open while it is."""

    _stem: ClassVar[str]
    _routes: ClassVar[Sequence[Route]]
    _repeats_unknown = True
    _linger = 0.0
    _outbox: Outbox
    _path: Path | None
    _window: int
    _delivery: Delivery | None = None
    _taking: asyncio.AbstractEventLoop | None = None
    """The loop in which events are accepted now."""

    def _set_up_events(
        self,
        *,
        rate: Rate | None,
        outbox: str | os.PathLike[str] | None,
        when_full: WhenFull,
        max_events: int,
        max_bytes: int,
        max_dead: int,
        dead_days: float,
        window: int,
        on_drop: Callable[[Loss], object] | None,
    ) -> None:
        """Check the settings of the outbox and make it."""
        if when_full not in get_args(WhenFull):
            raise InputError("when_full", f"must be one of {', '.join(get_args(WhenFull))}")
        if not callable(on_drop or print):
            raise InputError("on_drop", "must be callable")
        if not isinstance(outbox, str | os.PathLike | None):
            raise InputError("outbox", "must be a path")
        self._path = None if outbox is None else Path(outbox)
        self._window = whole("window", window, 1, 1000)
        self._rate = rate or Rate()
        self._made_of = (
            DeadLimits(
                rows=whole("max_dead", max_dead),
                seconds=number("dead_days", dead_days) * DAY,
            ),
            whole("max_events", max_events, 1),
            whole("max_bytes", max_bytes, 1),
            when_full,
            on_drop,
        )
        self._reset()
        _clients.add(self)

    def _reset(self) -> None:
        """Begin with an empty outbox: a new client, or a forked child."""
        dead, max_events, max_bytes, when_full, on_drop = self._made_of
        self._room = Room(max_events, max_bytes)
        self._outbox = Outbox(
            MemoryStore(dead, time.time), self._window, self._room, when_full, on_drop, time.time
        )
        self._pause = Pause(self._caller.retry)
        self._store: SqliteStore | None = None
        self._resolver: Resolver | None = None
        self._opening = asyncio.Lock()

    # Open, deliver, close

    async def open(self) -> None:
        """Make the client usable in the running event loop, and begin to deliver what waits.

        With an ``outbox`` on disk, what is found there is delivered too. Raises
        `CredentialsError`, `OutboxLockedError` when the file belongs to another, `InputError` when
        it cannot be used, `WrongLoopError` while the client is open in another loop. Opening an
        open client does nothing.
        """
        site = self._caller.site
        self._refuse_view()
        async with self._opening:
            if site.live is not None and not site.live.loop.is_closed():
                site.use()
                return
            self._authorization()  # says what is missing before a file is opened
            await self._open_store()
            await super().open()
            self._begin()

    async def _open_store(self) -> None:
        if self._path is None:
            return
        store = self._store
        if store is None:
            dead, _, max_bytes, *_ = self._made_of
            store = SqliteStore(
                self._path, self._stem, dead, min(max_bytes // 20, 16 << 20), time.time, self._hurt
            )
        held = await store.open()
        self._store = self._outbox.store = store
        if self._outbox.torn:
            await self._outbox.bury_torn()
            held = await store.open()
        self._outbox.begin(held)

    def _hurt(self, count: int, detail: str) -> None:
        self._outbox.report(Loss(reason="damaged", count=count, detail=detail))

    def _begin(self) -> None:
        site = self._caller.site
        live = site.live
        assert live is not None
        self._delivery = Delivery(
            self._outbox,
            live,
            self._routes,
            hooks=site.hooks,
            limiter=site.limiters["default"],
            pause=self._pause,
            attempt_timeout=self._caller.attempt_timeout,
            linger=self._linger,
            repeats_unknown=self._repeats_unknown,
            has_token=site.token is not None,
            chance=site.chance,
        )
        for lane in self._outbox.lanes:
            live.spawn(self._delivery.work(lane))
        if self._store is not None:
            live.spawn(self._adopt())
        self._taking = live.loop
        _open.add(self)
        self._exit = weakref.finalize(_anchor, _deliver_at_exit)

    async def _adopt(self) -> None:
        """Take over, now and then, what processes that are gone have left."""
        while True:
            try:
                await self._outbox.adopt()
            except Exception:  # it is tried again
                logger.exception("the files of other processes could not be taken over")
            await asyncio.sleep(ADOPT_EVERY)

    def _connect(self, resolver: Resolver | None = None) -> Connection:
        # That of a loop that has ended: at interpreter exit no thread can be started for another.
        return super()._connect(resolver or self._resolver)

    async def flush(self, timeout: float = 30.0) -> EventStats:
        """Send what waits now without delay, and return once it is delivered or set aside.

        After *timeout* seconds it returns all the same; so it does when delivery is stopped. The
        counts tell what is left.
        """
        self._caller.site.use()
        number("timeout", timeout)
        if self._delivery is not None:
            await self._delivery.drain(timeout)
        return self.stats()

    async def close(self, timeout: float = 5.0) -> EventStats:
        """Accept no more, deliver what waits for at most *timeout* seconds, and close.

        What is left is in the returned counts: on disk, to be delivered by who opens that outbox
        next; in memory, to be delivered if this client is opened again. Closing twice does nothing.
        """
        self._refuse_view()
        number("timeout", timeout)
        site = self._caller.site
        if site.live is not None and site.live.loop.is_closed():
            await self.open()  # it ended before it was closed: here it can be done
        if site.live is None:
            return self.stats()
        site.use()
        delivery, self._taking = self._delivery, None
        try:
            if delivery is not None:
                await delivery.drain(timeout)
        finally:
            await self._end()
        return self.stats()

    async def _end(self) -> None:
        self._room.refuse(lambda: ClosedError("the client was closed"))
        self._delivery = None
        await super().close()
        await self._outbox.bury_torn()
        if self._store is not None:
            store, self._store = self._store, None
            await store.close()
        self._outbox.recall()
        self._resolver = None
        _open.discard(self)
        self._exit.detach()
        if left := self._outbox.pending:
            where = "in memory" if self._path is None else "on disk"
            logger.warning("closed with %d events not delivered, %s", left, where)

    def _abandon(self) -> None:
        """Drop what is live without touching it; the outbox stays."""
        if (live := self._caller.site.live) is not None:
            self._resolver = live.connection.resolver
        super()._abandon()
        self._delivery = self._taking = None
        self._outbox.recall()

    def _start_clean(self) -> None:
        """In a forked child: what was accepted before is the parent's, and so is who waits."""
        self._abandon()
        self._caller.site.limiters = {"default": Limiter(self._rate)}
        self._reset()

    async def _leave(self, seconds: float) -> None:
        """Deliver what is left, in a loop that may be another than the one it was opened in."""
        await self.close(seconds)

    # Accepting, and what is known of it

    async def _accept(self, row: Row) -> None:
        if not self._outbox.offer(row):
            await self._outbox.put(row, self._caller.timeout)

    async def _accept_many(self, items: Items[T], row_of: Callable[[T], Row]) -> int:
        count = first = items.first if isinstance(items, Chunk) else 0
        waiting: list[Row] = []  # for a disk, or for room: these go together
        keeping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        keeping.set_result(None)
        try:
            async for item in _each(items):
                self._check_open()
                try:
                    row = row_of(item)
                except InputError as error:
                    raise InputError(f"items[{count}].{error.field}", error.limit) from None
                count += 1
                if waiting or not keeping.done() or not self._outbox.offer(row):
                    waiting.append(row)
                if len(waiting) == TOGETHER:
                    await keeping
                    # While these are being kept, the next are made.
                    keeping = asyncio.ensure_future(self._put_many(waiting))
                    waiting = []
                if not count % BREATH:
                    await asyncio.sleep(0)  # the loop has other work too
        except Exception:  # of the items, whatever it is: those before it are accepted all the same
            await keeping
            await self._put_many(waiting)
            raise
        await keeping
        await self._put_many(waiting)
        return count - first

    async def _put_many(self, rows: Sequence[Row]) -> None:
        await self._outbox.put_many(rows, self._caller.timeout)

    def _check_open(self) -> None:
        """Raise unless events are accepted in the running loop."""
        if self._taking is not asyncio.get_running_loop():
            self._caller.site.use()
            raise ClosedError("the client is being closed")

    def stats(self) -> EventStats:
        """Return the counts of now."""
        outbox, delivery = self._outbox, self._delivery
        paused = 0.0
        if delivery is not None:
            paused = max(delivery.paused_for(), self.rate.paused_for)
        return EventStats(
            accepted=outbox.accepted,
            delivered=outbox.delivered,
            pending=outbox.pending,
            dead=outbox.dead,
            dropped=Frozen(outbox.dropped),
            recovered=outbox.recovered,
            in_flight=outbox.in_flight(),
            bytes=outbox.bytes,
            paused_for=paused,
            stopped=None if delivery is None else delivery.stopped,
        )

    async def dead(self) -> list[DeadEvent]:
        """Return the events that were set aside, oldest first."""
        self._caller.site.use()
        return [self._shown(grave) for grave in await self._outbox.store.dead()]

    async def replay(self) -> int:
        """Put the events that were set aside back in line, behind all others; return how many.

        What does not match its checksum stays where it is.
        """
        self._caller.site.use()
        return await self._outbox.replay()

    def _shown(self, grave: Grave) -> DeadEvent:
        try:
            event = Frozen(json.loads(grave.row.body))
            operation = self._routes[grave.row.kind].name
        except (ValueError, TypeError, IndexError):
            event, operation = None, "unreadable"
        return DeadEvent(
            operation=operation,
            reason=grave.reason,
            status=grave.status,
            died_at=datetime.fromtimestamp(grave.died_at, UTC),
            event=event,
        )


async def _each(items: Items[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    elif isinstance(items, Iterable):
        for item in items:
            yield item
    else:
        raise InputError("items", "must be an iterable")


class _Anchor:
    """Lives until the interpreter ends."""


_anchor = _Anchor()
_open: set[EventClient] = set()
_clients: weakref.WeakSet[EventClient] = weakref.WeakSet()


def _deliver_at_exit() -> None:
    """Deliver what clients that nobody closed still hold, all within the exit bound."""
    until = time.monotonic() + EXIT_BOUND
    waiting: list[Future[None]] = []
    mine: dict[asyncio.AbstractEventLoop | None, list[EventClient]] = {}
    for client in list(_open):
        live = client._caller.site.live
        loop = None if live is None or live.loop.is_closed() else live.loop
        if loop is not None and loop.is_running():  # in another thread, as on the blocking face
            leave = client._leave(_seconds_to(until))
            waiting.append(asyncio.run_coroutine_threadsafe(leave, loop))
        else:
            mine.setdefault(loop, []).append(client)
    for loop, clients in mine.items():
        with contextlib.suppress(Exception):
            if loop is None:  # it has ended: a new one serves
                asyncio.run(_all_leave(clients, until))
            else:
                loop.run_until_complete(_all_leave(clients, until))
    for leaving in waiting:
        with contextlib.suppress(Exception):
            leaving.result(_seconds_to(until) + 1)


async def _all_leave(clients: Sequence[EventClient], until: float) -> None:
    await asyncio.gather(*(client._leave(_seconds_to(until)) for client in clients))


def _seconds_to(moment: float) -> float:
    return max(0.1, moment - time.monotonic())


def _after_fork_in_child() -> None:
    _open.clear()
    for client in list(_clients):
        client._start_clean()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
