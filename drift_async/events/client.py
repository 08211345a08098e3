"""The life of an event client: an outbox that outlives its connections, and a way to leave."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar, get_args

from ..core import process
from ..core.bulk import IndexedBatch, Items
from ..core.client import BaseClient, CommonSettings
from ..core.models import FrozenMap
from ..core.rate_limit import Limiter, Rate
from ..core.resolver import Resolver
from ..core.validate import integer, number
from ..errors import ClosedError, InputError, WrongLoopError
from .delivery import Backoff, Delivery, Route
from .models import DeadEvent, EventStats, Loss
from .ownership import SUFFIX
from .queue import EventQueue, WhenFull, logger
from .sqlite import SqliteStorage
from .storage import DeadLetter, DeadLimits, QueuedEvent

if TYPE_CHECKING:
    from ..core.session import HttpSession

OnUnknown = Literal["send", "dead"]

ADOPT_EVERY = 10.0
"""Seconds between two looks for files whose process has ended."""

DAY = 86_400.0

PIECE = 1024
"""Events that may wait for the piece before them; then their source waits too."""

YIELD_EVERY = 100
"""Events after which other tasks have a turn."""

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
    """Base of `DriftEvents` and `SegmentStream`. The outbox is open only while the client is."""

    _stem: ClassVar[str]
    _routes: ClassVar[Sequence[Route]]
    _repeats_unknown = True
    _linger = 0.0
    _queue: EventQueue
    _path: Path | None
    _delivery: Delivery | None = None
    _accepting: asyncio.AbstractEventLoop | None = None
    """The loop in which events are accepted now."""
    _moving: asyncio.Future[None] | None
    """Done once an opening or a closing is over. A task: its caller may be cancelled."""
    _exit_hook: process.ExitHook | None = None

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
        if outbox is not None and (not os.fspath(outbox) or "\0" in os.fspath(outbox)):
            raise InputError("outbox", "must be a path, not empty")
        self._path = None if outbox is None else Path(outbox).expanduser()
        self._rate = rate or Rate()
        integer("window", window, 1, 1000)
        self._dead_limits = DeadLimits(
            count=integer("max_dead", max_dead), seconds=number("dead_days", dead_days) * DAY
        )
        self._queue_settings = (
            window,
            integer("max_events", max_events, 1),
            integer("max_bytes", max_bytes, 1),
            when_full,
            self._dead_limits,
            on_drop,
            time.time,
        )
        self._reset()
        process.after_fork(self._start_clean)

    def _reset(self) -> None:
        """Begin with an empty outbox: a new client, or a forked child."""
        self._queue = EventQueue(*self._queue_settings)
        self._backoff = Backoff(self._caller.retry)
        self._storage: SqliteStorage | None = None
        self._resolver: Resolver | None = None
        self._moving = None
        self._exit_hook = None

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
        self._authorization()  # raises before a file is opened
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
            await self._open_storage()
            await super().open()
            self._begin()
        except BaseException:
            await self._end()
            raise

    async def _open_storage(self) -> None:
        if self._storage is None and self._path is not None:
            self._storage = SqliteStorage(self._path, self._stem, time.time)
        else:
            await self._queue.dead_letter_interrupted()
        if self._storage is not None:
            is_shared = self._storage.path.suffix != SUFFIX
            try:
                summary = await self._storage.open(self._dead_limits)
            except Exception:  # whatever it is, the storage's thread has ended already
                self._storage = None
                raise
            self._queue.begin(self._storage, summary, is_shared=is_shared)

    async def _at_rest(self) -> None:
        """Wait while another task opens the client, or closes it."""
        while (moving := self._moving) is not None and not moving.done():
            if moving.get_loop().is_closed():
                return  # it was cut off
            if moving.get_loop() is not asyncio.get_running_loop():
                raise WrongLoopError("the client is being opened or closed in another event loop")
            await asyncio.wait([moving])

    def _begin(self) -> None:
        state, queue = self._caller.state, self._queue
        session = state.session
        assert session is not None
        self._delivery = Delivery(
            queue,
            session,
            self._routes,
            hooks=state.hooks,
            limiter=state.limiters["default"],
            backoff=self._backoff,
            attempt_timeout=self._caller.attempt_timeout,
            linger=self._linger,
            repeats_unknown=self._repeats_unknown,
            has_token=state.token is not None,
            jitter=state.random,
        )
        for partition in queue.partitions:
            session.spawn(self._delivery.run(partition))
        if self._storage is not None:
            session.spawn(self._adopt())
        queue.capacity.refuse(None)
        self._accepting = session.loop
        self._cancel_exit_hook()
        self._exit_hook = process.at_exit(self.close, session.loop)

    def _cancel_exit_hook(self) -> None:
        hook, self._exit_hook = self._exit_hook, None
        if hook is not None:
            process.cancel(hook)

    async def _adopt(self) -> None:
        """Take over the files of ended processes, one after another."""
        queue = self._queue
        while True:
            try:
                await queue.adopt()
            except Exception:  # it is tried again
                logger.exception("the files of other processes could not be taken over")
            try:
                async with asyncio.timeout(ADOPT_EVERY):
                    await queue.file_emptied.wait()
            except TimeoutError:
                pass

    def _new_session(self, resolver: Resolver | None = None) -> HttpSession:
        # Reuse the resolver of a loop that has ended: at interpreter exit no thread can be started.
        return super()._new_session(resolver or self._resolver)

    async def flush(self, timeout: float = 30.0) -> EventStats:
        """Send what waits now without delay, and return once it is delivered or set aside.

        After *timeout* seconds it returns all the same; so it does when delivery is stopped. The
        returned counts say what is left.
        """
        self._caller.state.require_open()
        number("timeout", timeout)
        if self._delivery is not None:
            await self._delivery.drain(timeout)
        return self.stats()

    async def close(self, timeout: float = 5.0) -> EventStats:
        """Accept no more, deliver what waits for at most *timeout* seconds, and close.

        The returned counts say what is left: on disk, for the client that opens that outbox next;
        in memory, for this client if it is opened again. Closing twice does nothing.
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
        delivery, self._accepting = self._delivery, None
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
        """Return whether the last loop ended before the client was closed, or amid that."""
        session = self._caller.state.session
        return self._storage is not None if session is None else session.loop.is_closed()

    def _end_apart(self) -> None:
        """Close in a separate task, so that cancelling `close` cannot stop it half way.

        Those waiting for the drain now wait for that task.
        """
        drained, self._delivery = self._moving, None
        self._moving = asyncio.create_task(self._end())
        if drained is not None and not drained.done():
            drained.set_result(None)

    async def _end(self) -> None:
        """End delivery, connections and storage, even if an ending loop cancels this meanwhile."""
        self._cancel_exit_hook()
        self._delivery = self._accepting = None
        self._queue.capacity.refuse(lambda: ClosedError("the client was closed"))
        self._queue.give_up_flushes()
        try:
            await super().close()
        finally:
            await self._end_storage()
        if left := self._queue.pending:
            where = "in memory" if self._path is None else "on disk"
            logger.warning("closed with %d events not delivered, %s", left, where)

    async def _end_storage(self) -> None:
        storage, self._storage = self._storage, None
        try:
            await self._queue.dead_letter_interrupted()
        finally:
            try:
                await self._queue.close()
            finally:
                if storage is not None:  # it may not have got as far as the queue
                    await storage.close()
                self._queue.rebind()
                self._resolver = None

    def _forget_after_fork(self) -> None:
        """Drop the connections without touching them, and the delivery; the queue stays."""
        if (session := self._caller.state.session) is not None:
            self._resolver = session.resolver
        super()._forget_after_fork()
        self._delivery = self._accepting = None
        self._queue.rebind()

    def _start_clean(self) -> None:
        """Start empty in a forked child: events accepted before the fork are the parent's."""
        self._forget_after_fork()
        self._caller.state.limiters = {"default": Limiter(self._rate)}
        self._reset()

    # Accepting, and counts

    async def _put(self, event: QueuedEvent) -> None:
        if not self._queue.put_nowait(event):
            await self._queue.put(event, self._caller.timeout)

    async def _put_many(self, items: Items[T], encode: Callable[[T], QueuedEvent]) -> int:
        """Encode and accept the items, one after another; return how many.

        An error leaves the events before it accepted; a cancellation leaves those accepted for
        which there is capacity.
        """
        count = first = items.first if isinstance(items, IndexedBatch) else 0
        self._check_open()
        writer = _Writer(self._queue, self._caller.timeout)
        try:
            async for item in _each(items):
                self._check_open()
                try:
                    event = encode(item)
                except InputError as error:
                    raise InputError(f"items[{count}].{error.field}", error.limit) from None
                count += 1
                writer.add(event)
                if len(writer.piece) >= PIECE:
                    await writer.finish()
                elif not count % YIELD_EVERY:
                    await asyncio.sleep(0)
            await writer.finish()
        except asyncio.CancelledError:
            if self._accepting is asyncio.get_running_loop():
                self._queue.put_what_fits(writer.piece)
            raise
        except Exception:  # of the items, whatever it is: those before it are accepted all the same
            await writer.finish()
            raise
        finally:
            writer.cancel()
        return count - first

    def _check_open(self) -> None:
        """Raise unless events are accepted in the running loop."""
        if self._accepting is not asyncio.get_running_loop():
            self._caller.state.require_open()
            raise ClosedError("the client is being closed")

    def stats(self) -> EventStats:
        """Return the counts of now."""
        if (delivery := self._delivery) is None:
            return self._queue.stats(0.0, None)
        paused_for = max(delivery.paused_for(), self.rate.paused_for)
        return self._queue.stats(paused_for, delivery.stopped)

    async def dead(self) -> list[DeadEvent]:
        """Return the events that were set aside, oldest first."""
        self._caller.state.require_open()
        return [self._shown(letter) for letter in await self._queue.dead_letters()]

    async def replay(self) -> int:
        """Put the events that were set aside back in line, behind all others; return how many.

        What does not match its checksum stays where it is.
        """
        self._caller.state.require_open()
        return await self._queue.replay()

    def _shown(self, letter: DeadLetter) -> DeadEvent:
        try:
            event = FrozenMap(json.loads(letter.event.body))
            operation = self._routes[letter.event.kind].name
        except (ValueError, TypeError, IndexError):
            event, operation = None, "unreadable"
        return DeadEvent(
            operation=operation,
            reason=letter.reason,
            status=letter.status,
            died_at=datetime.fromtimestamp(letter.died_at, UTC),
            event=event,
        )


class _Writer:
    """A task that hands events to the queue while their source gives the next ones.

    It does not wait for a full piece: the source may never give another event.
    """

    def __init__(self, queue: EventQueue, timeout: float) -> None:
        self.piece: list[QueuedEvent] = []
        self._queue = queue
        self._timeout = timeout
        self._task: asyncio.Task[None] | None = None

    def add(self, event: QueuedEvent) -> None:
        """Hand on an event with the next piece. Raises the error of an earlier one."""
        if self._task is None or self._task.done():
            if self._task is not None:
                self._task.result()
            self._task = asyncio.create_task(self._write())
        self.piece.append(event)

    async def _write(self) -> None:
        while self.piece:
            piece, self.piece = self.piece, []
            await self._queue.put_many(piece, self._timeout)

    async def finish(self) -> None:
        """Return when all events are accepted."""
        if self._task is not None:
            await self._task

    def cancel(self) -> None:
        """End the task; events that are on their way to a disk arrive there."""
        self.piece = []
        if self._task is not None and not self._task.cancel() and not self._task.cancelled():
            self._task.exception()  # seen: the source's own error, or cancellation, goes first


async def _each(items: Items[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    elif isinstance(items, Iterable):
        for item in items:
            yield item
    else:
        raise InputError("items", "must be an iterable")
