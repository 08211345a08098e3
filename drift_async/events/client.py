"""The life of an event client: an outbox that outlives its connections, and a way to leave."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal, TypeVar, get_args

from ..core.bulk import Items
from ..core.client import BaseClient, CommonSettings
from ..core.models import FrozenMap
from ..core.rate_limit import Limiter, Rate
from ..core.resolver import Resolver
from ..core.session import HttpSession
from ..core.validate import integer, number
from ..errors import ClosedError, InputError, WrongLoopError
from . import leaving
from .delivery import Delivery, Pause, Route
from .lanes import Row
from .ledger import logger
from .many import accept_many
from .outbox import Outbox, WhenFull
from .records import DeadEvent, EventStats, Loss
from .room import Room
from .sqlite import SqliteStore
from .store import DeadLimits, Grave, MemoryStore

OnUnknown = Literal["send", "dead"]

ADOPT_EVERY = 10.0
"""Seconds between two looks for files whose process has ended."""

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


class EventClient(BaseClient):
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
    _moving: asyncio.Future[None] | None
    """Done once an opening, or a closing, is over. A task: who asked for it may be cancelled."""

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
        self._window = integer("window", window, 1, 1000)
        self._rate = rate or Rate()
        self._made_of = (
            DeadLimits(
                rows=integer("max_dead", max_dead),
                seconds=number("dead_days", dead_days) * DAY,
            ),
            integer("max_events", max_events, 1),
            integer("max_bytes", max_bytes, 1),
            when_full,
            on_drop,
        )
        self._reset()
        leaving.enroll(self)

    def _reset(self) -> None:
        """Begin with an empty outbox: a new client, or a forked child."""
        dead, max_events, max_bytes, when_full, on_drop = self._made_of
        self._outbox = Outbox(
            MemoryStore(dead, time.time),
            self._window,
            Room(max_events, max_bytes),
            when_full,
            on_drop,
            time.time,
        )
        self._pause = Pause(self._caller.retry)
        self._store: SqliteStore | None = None
        self._resolver: Resolver | None = None
        self._moving: asyncio.Future[None] | None = None

    # Open, deliver, close

    async def open(self) -> None:
        """Make the client usable, and begin to deliver what waits.

        With an ``outbox`` on disk, what is found there is delivered too. Raises
        `CredentialsError`, `OutboxLockedError` when the file belongs to another, `InputError` when
        it cannot be used; on the awaited face, where it is for the running event loop,
        `WrongLoopError` while it is open in another one. Opening an open client does nothing; one
        that is being closed is opened after that.
        """
        state = self._caller.state
        self._refuse_view()
        await self._at_rest()
        if state.session is not None and not state.session.loop.is_closed():
            state.require_open()
            return
        self._authorization()  # says what is missing before a file is opened
        opening = self._moving = asyncio.create_task(self._open())
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            if not opening.cancel() and self._delivery is not None:  # it is open by now
                self._end_apart()
            raise

    async def _open(self) -> None:
        self._forget_after_fork()  # the last loop may have ended before it was closed
        try:
            await self._open_store()
            await super().open()
            self._begin()
        except BaseException:
            await self._end()
            raise

    async def _open_store(self) -> None:
        if self._path is not None:
            store = self._store = self._store or self._new_store(self._path)
            try:
                await store.open()
            except Exception:  # whatever it is, the store's thread has ended already
                self._store = None
                raise
        await self._outbox.bury_at_risk()
        if self._store is not None:
            self._outbox.begin(self._store, await self._store.held())

    async def _at_rest(self) -> None:
        """Wait while somebody opens the client, or closes it."""
        while (moving := self._moving) is not None and not moving.done():
            if moving.get_loop().is_closed():
                return  # it was cut off
            if moving.get_loop() is not asyncio.get_running_loop():
                raise WrongLoopError("the client is being opened or closed in another event loop")
            await asyncio.wait([moving])

    def _new_store(self, path: Path) -> SqliteStore:
        dead, _, max_bytes, *_ = self._made_of
        reserve = min(max_bytes // 20, 16 << 20)
        return SqliteStore(path, self._stem, dead, reserve, time.time, self._hurt)

    def _hurt(self, count: int, detail: str) -> None:
        self._outbox.ledger.report(Loss(reason="damaged", count=count, detail=detail))

    def _begin(self) -> None:
        state = self._caller.state
        session = state.session
        assert session is not None
        self._delivery = Delivery(
            self._outbox,
            session,
            self._routes,
            hooks=state.hooks,
            limiter=state.limiters["default"],
            pause=self._pause,
            attempt_timeout=self._caller.attempt_timeout,
            linger=self._linger,
            repeats_unknown=self._repeats_unknown,
            has_token=state.token is not None,
            chance=state.random,
        )
        for lane in self._outbox.ledger.lanes:
            session.spawn(self._delivery.work(lane))
        if self._store is not None:
            session.spawn(self._adopt())
        self._outbox.ledger.room.refuse(None)
        self._taking = session.loop
        leaving.hold(self)

    async def _adopt(self) -> None:
        """Take over, now and then, what processes that are gone have left."""
        while True:
            try:
                await self._outbox.backlog.adopt()
            except Exception:  # it is tried again
                logger.exception("the files of other processes could not be taken over")
            await asyncio.sleep(ADOPT_EVERY)

    def _new_session(self, resolver: Resolver | None = None) -> HttpSession:
        # That of a loop that has ended: at interpreter exit no thread can be started for another.
        return super()._new_session(resolver or self._resolver)

    async def flush(self, timeout: float = 30.0) -> EventStats:
        """Send what waits now without delay, and return once it is delivered or set aside.

        After *timeout* seconds it returns all the same; so it does when delivery is stopped. The
        counts tell what is left.
        """
        self._caller.state.require_open()
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
        state = self._caller.state
        if self._delivery is None:
            await self._at_rest()
        if self._is_cut_off():
            await self.open()  # here it can be done
        if state.session is None:
            return self.stats()
        state.require_open()
        delivery, self._taking = self._delivery, None
        assert delivery is not None
        if self._moving is None or self._moving.done():
            self._moving = asyncio.get_running_loop().create_future()
        try:
            await delivery.drain(timeout)
        finally:
            if self._delivery is delivery:  # of several who close, the first one ends it
                self._end_apart()
            await asyncio.shield(self._moving)
        return self.stats()

    def _is_cut_off(self) -> bool:
        """Tell whether the last loop ended before the client was closed, or amid that."""
        session = self._caller.state.session
        return self._store is not None if session is None else session.loop.is_closed()

    def _end_apart(self) -> None:
        """End the client in a task of its own, for which who waited until now waits instead."""
        drained, self._delivery = self._moving, None
        self._moving = asyncio.create_task(self._end())
        if drained is not None and not drained.done():
            drained.set_result(None)

    async def _end(self) -> None:
        """End what there is, all of it, also when a loop that ends cancels this meanwhile."""
        leaving.let_go(self)
        self._delivery = self._taking = None
        ledger = self._outbox.ledger
        ledger.room.refuse(lambda: ClosedError("the client was closed"))
        ledger.give_up_flushes()
        try:
            await super().close()
        finally:
            await self._end_store()
        if left := ledger.pending:
            where = "in memory" if self._path is None else "on disk"
            logger.warning("closed with %d events not delivered, %s", left, where)

    async def _end_store(self) -> None:
        store, self._store = self._store, None
        try:
            await self._outbox.bury_at_risk()
        finally:
            try:
                if store is not None:
                    await store.close()
            finally:
                self._outbox.recall()
                self._resolver = None

    def _forget_after_fork(self) -> None:
        """Drop the connections without touching them, and the delivery; the outbox stays."""
        if (session := self._caller.state.session) is not None:
            self._resolver = session.resolver
        super()._forget_after_fork()
        self._delivery = self._taking = None
        self._outbox.recall()

    def _start_clean(self) -> None:
        """In a forked child: what was accepted before is the parent's, and so is who waits."""
        self._forget_after_fork()
        self._caller.state.limiters = {"default": Limiter(self._rate)}
        self._reset()

    # Accepting, and what is known of it

    async def _accept_many(self, items: Items[T], row_of: Callable[[T], Row]) -> int:
        timeout = self._caller.timeout
        return await accept_many(self._outbox, items, row_of, self._check_open, timeout)

    def _check_open(self) -> None:
        """Raise unless events are accepted in the running loop."""
        if self._taking is not asyncio.get_running_loop():
            self._caller.state.require_open()
            raise ClosedError("the client is being closed")

    def stats(self) -> EventStats:
        """Return the counts of now."""
        ledger, delivery = self._outbox.ledger, self._delivery
        paused = 0.0
        if delivery is not None:
            paused = max(delivery.paused_for(), self.rate.paused_for)
        return EventStats(
            accepted=ledger.accepted,
            delivered=ledger.delivered,
            pending=ledger.pending,
            dead=ledger.dead,
            dropped=FrozenMap(ledger.dropped),
            recovered=ledger.recovered,
            in_flight=ledger.in_flight(),
            bytes=ledger.bytes,
            paused_for=paused,
            stopped=None if delivery is None else delivery.stopped,
        )

    async def dead(self) -> list[DeadEvent]:
        """Return the events that were set aside, oldest first."""
        self._caller.state.require_open()
        return [self._shown(grave) for grave in await self._outbox.store.dead()]

    async def replay(self) -> int:
        """Put the events that were set aside back in line, behind all others; return how many.

        What does not match its checksum stays where it is.
        """
        self._caller.state.require_open()
        return await self._outbox.backlog.replay()

    def _shown(self, grave: Grave) -> DeadEvent:
        try:
            event = FrozenMap(json.loads(grave.row.body))
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
