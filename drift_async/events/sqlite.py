"""The durable store: asks a thread that writes to SQLite, and hands its answers to the event loop.

What arrives while a commit is under way goes into the next one. The connection is known to nothing
but the frame of that thread: in a forked child the frame neither goes on nor ends, so nothing there
can close what is the parent's.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import ClosedError, InputError
from .disk import Disk, Job, Outcome
from .lanes import Row
from .ledger import logger
from .store import DeadLimits, Grave, Held, Loaded, Replayed

Damage = list[tuple[int, str]]

CLOSING = 2.0
"""Seconds for which closing waits for the thread."""


class SqliteStore:
    """Keeps rows in a file of its own: see `drift_async.events.disk`."""

    is_durable = True
    on_gone: Callable[[Mapping[str, int]], object]

    def __init__(
        self,
        outbox: Path,
        stem: str,
        limits: DeadLimits,
        reserve: int,
        clock: Callable[[], float],
        on_damage: Callable[[int, str], None],
    ) -> None:
        self._settings = (outbox, stem, limits, reserve, clock)
        self._jobs: SimpleQueue[Sequence[Job] | None] = SimpleQueue()
        self._puts: list[Job] = []  # of this turn of the loop: the thread is woken once for them
        self._loop = asyncio.get_running_loop()
        self._taken: asyncio.Future[None]
        self._on_damage = on_damage
        self._is_begun = self._is_closed = False

    async def open(self) -> None:
        """Open a file, or go on with it in another loop.

        Raises `OutboxLockedError` and `InputError`.
        """
        self._loop = asyncio.get_running_loop()
        self._puts = []  # nobody waits for those of a loop that has ended
        self._taken = self._loop.create_future()
        self._taken.set_result(None)
        if not self._is_begun:
            opened: asyncio.Future[None] = self._loop.create_future()
            threading.Thread(
                target=_serve,
                args=(self._settings, self._jobs, Job(_into(opened), self._loop), self._post),
                name="drift-async-outbox",
                daemon=True,
            ).start()
            self._is_begun = True
            try:
                await opened
            except OSError as error:
                raise InputError("outbox", f"cannot be used ({type(error).__name__})") from None

    def held(self) -> asyncio.Future[Held]:
        """Return what the file holds."""
        return self._ask(Disk.held)

    async def close(self) -> None:
        """Close the file, after all that was asked; what is asked from then on is refused."""
        closed = self._ask(Disk.close, alone=True)
        self._jobs.put(None)
        self._is_closed = True
        try:
            async with asyncio.timeout(CLOSING):
                await closed
        except TimeoutError:
            logger.warning("the outbox's disk is slow: its file is closed later")

    def put(self, rows: Sequence[Row], done: Callable[[object, Exception | None], None]) -> None:
        """Keep rows; *done* is called when they are kept, or with the error that prevents it.

        Once it is closed, `ClosedError` is raised too: it is of no use to try again.
        """
        if self._is_closed:
            refusal = _closed()
            done(None, refusal)
            raise refusal
        job = Job(done, self._loop, rows)
        self._puts.append(job)
        if len(rows) > 1:
            self._taken = job.taken = self._loop.create_future()
            self._hand_over()
        elif len(self._puts) == 1:
            self._loop.call_soon(self._hand_over)

    def taken(self) -> asyncio.Future[None]:
        """Return what is done once the thread is at work on the last rows that came together."""
        return self._taken

    def _hand_over(self) -> None:
        if self._puts:
            self._jobs.put(self._puts)
            self._puts = []

    def forget(self, rows: Sequence[Row], through: int = 0) -> asyncio.Future[None]:
        """Remove rows; with them no row up to the number *through* is left, if it is given."""
        return self._ask(None, gone=rows, through=through, must=True)

    def bury(self, graves: Sequence[Grave]) -> asyncio.Future[dict[str, int]]:
        """Set rows aside; return how many dead letters went for it, by reason."""
        return self._ask(lambda disk: disk.bury(graves), must=True, default={})

    def dead(self) -> asyncio.Future[list[Grave]]:
        """Return what was set aside, oldest first."""
        self._prune()
        return self._ask(Disk.dead)

    def replay(self, after: int, most: int) -> asyncio.Future[Replayed]:
        """Take up to so many dead letters for rows again, numbered from *after* on."""
        self._prune()
        return self._ask(lambda disk: disk.replay(after, most))

    def _prune(self) -> None:
        self._ask(Disk.prune, must=True, default={}).add_done_callback(self._pruned)

    def _pruned(self, pruned: asyncio.Future[dict[str, int]]) -> None:
        if not pruned.cancelled() and pruned.exception() is None:
            self.on_gone(pruned.result())

    def load(self, after: int, rows: int, size: int) -> asyncio.Future[Loaded]:
        """Return the rows that follow number *after*, up to so many rows and bytes."""
        return self._ask(lambda disk: disk.load(after, rows, size))

    def has_others(self) -> asyncio.Future[bool]:
        """Tell whether there are files of other clients, living or not."""
        return self._ask(lambda disk: bool(disk.others()), alone=True)

    def adopt(self, after: int, most: int) -> asyncio.Future[Held]:
        """Take over rows that others have left, numbered from *after* on; return how much."""
        return self._ask(lambda disk: disk.adopt(after, most), alone=True)

    def _ask(
        self,
        work: Callable[[Disk], Any] | None,
        *,
        gone: Sequence[Row] = (),
        through: int = 0,
        must: bool = False,
        alone: bool = False,
        default: Any = None,
    ) -> asyncio.Future[Any]:
        answer = self._loop.create_future()
        if self._is_closed:
            answer.set_exception(_closed())
            answer.exception()  # not all of what is asked is waited for
            return answer
        self._hand_over()  # what was asked before is done before
        done = _into(answer, default)
        self._jobs.put([Job(done, self._loop, (), gone, through, work, must, alone)])
        return answer

    def _post(self, outcomes: list[Outcome], damage: Damage, gone: Mapping[str, int]) -> None:
        """Tell what was done, each in the loop that asked; called by the thread."""
        if not outcomes:
            return
        loop = outcomes[-1][0].loop
        ours = [outcome for outcome in outcomes if outcome[0].loop is loop]
        with contextlib.suppress(RuntimeError):  # it has ended
            loop.call_soon_threadsafe(self._tell, ours, damage, gone)
        if len(ours) < len(outcomes):
            self._post([outcome for outcome in outcomes if outcome[0].loop is not loop], [], {})

    def _tell(self, outcomes: list[Outcome], damage: Damage, gone: Mapping[str, int]) -> None:
        for count, detail in damage:
            self._on_damage(count, detail)
        if gone:
            self.on_gone(gone)
        for job, result, error in outcomes:
            job.done(result, error)


def _closed() -> ClosedError:
    return ClosedError("the client was closed")


def _into(answer: asyncio.Future[Any], default: Any = None) -> Callable[[Any, Any], None]:
    def done(result: Any, error: Exception | None) -> None:
        if answer.done():
            return  # nobody waits any longer
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(default if result is None else result)

    return done


def _serve(
    settings: tuple[Path, str, DeadLimits, int, Callable[[], float]],
    jobs: SimpleQueue[Sequence[Job] | None],
    opened: Job,
    post: Callable[[list[Outcome], Damage, Mapping[str, int]], None],
) -> None:
    try:
        disk = Disk(*settings)
    except Exception as error:
        post([(opened, None, error)], [], {})
        return
    post([(opened, None, None)], disk.take_damage(), {})
    is_open = True
    while is_open:
        batch = [jobs.get()]
        with contextlib.suppress(Empty):
            while True:
                batch.append(jobs.get_nowait())
        is_open = None not in batch
        _work(disk, [job for some in batch if some is not None for job in some], post)
        del batch  # while waiting it holds on to nothing


def _work(
    disk: Disk,
    jobs: Sequence[Job],
    post: Callable[[list[Outcome], Damage, Mapping[str, int]], None],
) -> None:
    for job in jobs:
        if job.taken is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                job.loop.call_soon_threadsafe(_into(job.taken), None, None)
    # Pieces come first: the loop makes the next meanwhile. Other events are not passed by them.
    first = [job for job in jobs if job.rows]
    if any(job.taken is None for job in first):
        first = []
    for part in filter(None, (first, [job for job in jobs if job not in first])):
        try:
            outcomes = disk.commit(part)
        except Exception as error:  # whatever it is, nobody may wait for ever
            logger.exception("the outbox's thread failed")
            outcomes = [(job, None, error) for job in part]
        post(outcomes, disk.take_damage(), disk.take_gone())
