"""`SqliteStorage`: asks a thread that writes to outbox files, and gets its answers as futures.

One commit holds all that arrived during the one before. A client has one thread for its own file
and for those that it adopts. Only the frame of that thread knows the connections: in a forked child
the frame neither goes on nor ends, so the child closes nothing of its parent's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import attrs

from ..errors import ClosedError, DriftError, InputError, OutboxLockedError
from . import ownership
from .sqlite_file import SqliteFile
from .sqlite_format import DISK_ERRORS
from .storage import (
    DeadLetter,
    DeadLetters,
    DeadLimits,
    Expired,
    QueuedEvent,
    ReadResult,
    Replayed,
    StorageSummary,
)

logger = logging.getLogger("drift_async.events")

CLOSING = 2.0
"""Seconds for which closing waits for the thread."""

Files = dict[Path, SqliteFile]
"""The open files, by the path of a storage; the client's own one has the path of the outbox."""


@attrs.define(eq=False, repr=False)
class WriteRequest:
    """Work for the thread on the file of a storage: events to add, to delete, or all else."""

    answer: asyncio.Future[Any]
    storage: SqliteStorage
    append: Sequence[QueuedEvent] = ()
    delete: Sequence[int] = ()
    work: Callable[[Files], Any] | None = None


Answers = list[tuple[WriteRequest, Any, Exception | None]]


class SqliteStorage:
    """Keeps events in the outbox file at *path*, or in a file of that directory."""

    is_durable = True

    def __init__(
        self,
        path: Path,
        stem: str,
        clock: Callable[[], float],
        owner: SqliteStorage | None = None,
    ) -> None:
        self.path = path
        self.undeleted = 0
        self._damage: list[str] = []
        self._stem = stem
        self._clock = clock
        self._owner = owner
        self._requests: SimpleQueue[list[WriteRequest] | None]
        self._requests = SimpleQueue() if owner is None else owner._requests
        self._unsent: list[WriteRequest] = []  # of this turn of the loop
        self._is_started = self._is_closed = False
        self._refused: set[Path] = set()  # files that are not safe to adopt

    async def open(self, limits: DeadLimits) -> StorageSummary:
        """Open the file, or go on with it in another loop; return what is in it.

        Raises `OutboxLockedError` and `InputError`.
        """
        self._unsent = []  # of an ended loop
        if not self._is_started:
            thread = threading.Thread(
                target=_serve, args=(self._requests,), name="drift-async-outbox", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                raise DriftError(f"no thread can be started for the outbox ({error})") from None
            self._is_started = True
        try:
            summary: StorageSummary = await self._ask(lambda files: self._open(files, limits))
        except Exception:
            self._requests.put(None)
            self._is_closed = True
            raise
        return summary

    def append(self, events: Sequence[QueuedEvent]) -> asyncio.Future[None]:
        if self._is_closed:
            raise ClosedError("the client was closed")
        return self._send(append=events)

    def delete(self, numbers: Sequence[int]) -> asyncio.Future[None]:
        return self._send(delete=numbers)

    def dead_letter(
        self, letters: Sequence[DeadLetter], limits: DeadLimits
    ) -> asyncio.Future[Expired]:
        return self._ask(lambda files: files[self.path].dead_letter(letters, limits))

    def dead(self, limits: DeadLimits) -> asyncio.Future[DeadLetters]:
        return self._ask(lambda files: files[self.path].dead(limits))

    def replay(self, limits: DeadLimits) -> asyncio.Future[Replayed]:
        return self._ask(lambda files: files[self.path].replay(limits))

    def read(self, after: int, count: int, size: int) -> asyncio.Future[ReadResult]:
        return self._ask(lambda files: files[self.path].read(after, count, size))

    async def adopt(self, limits: DeadLimits) -> tuple[SqliteStorage, StorageSummary] | None:
        found: tuple[SqliteStorage, StorageSummary] | None
        found = await self._ask(lambda files: self._adopt(files, limits))
        return found

    def take_damage(self) -> list[str]:
        damage, self._damage = self._damage, []
        return damage

    async def close(self) -> None:
        if self._is_closed:
            return
        closed = self._ask(self._close)
        if self._owner is None:
            self._requests.put(None)
        self._is_closed = True
        try:
            async with asyncio.timeout(CLOSING):
                await asyncio.shield(closed)
        except TimeoutError:
            logger.warning("the outbox's disk is slow: its file is closed later")

    def _ask(self, work: Callable[[Files], Any]) -> asyncio.Future[Any]:
        answer = self._send(work=work)
        self._hand_over()
        return answer

    def _send(self, **request: Any) -> asyncio.Future[Any]:
        """Ask for something with all else that is asked for in this turn of the loop."""
        loop = asyncio.get_running_loop()
        sent = WriteRequest(loop.create_future(), self, **request)
        if self._is_closed:
            _resolve([(sent, None, ClosedError("the client was closed"))])
            return sent.answer
        self._unsent.append(sent)
        if len(self._unsent) == 1:
            loop.call_soon(self._hand_over)
        return sent.answer

    def _hand_over(self) -> None:
        if self._unsent:
            unsent, self._unsent = self._unsent, []
            self._requests.put(unsent)

    def report(self, undeleted: int, damage: list[str]) -> None:
        """Have the client see what the thread found; run in either thread."""
        self.undeleted = undeleted
        self._damage = [*self._damage, *damage]

    # Run in the thread

    def _open(self, files: Files, limits: DeadLimits) -> StorageSummary:
        """Open the client's own file: the first free one of a directory, or a new one."""
        for path in [path for path in files if path != self.path]:
            files.pop(path).close(keep_empty=False)  # adopted in a loop that has ended
        if self.path not in files:
            try:
                ownership.make_folder(self.path)
            except OSError as error:
                raise InputError("outbox", f"cannot be used ({type(error).__name__})") from None
            files[self.path] = self._first_free()
        return files[self.path].summary(limits)

    def _first_free(self) -> SqliteFile:
        refusal: Exception | None = None
        for path in ownership.candidates(self.path, self._stem):
            try:
                return SqliteFile(path, self._stem, self._clock)
            except (OutboxLockedError, InputError) as error:
                refusal = error
        assert refusal is not None, "there is always a name"
        raise refusal

    def _adopt(
        self, files: Files, limits: DeadLimits
    ) -> tuple[SqliteStorage, StorageSummary] | None:
        """Open the next file of an ended process; remove those that are empty."""
        ours = {file.path for file in files.values()}
        for path in ownership.found(self.path, self._stem):
            if path in ours:
                continue
            try:
                file = SqliteFile(path, self._stem, self._clock)
            except OutboxLockedError:
                continue
            except InputError as error:
                if path not in self._refused:
                    logger.warning("outbox: %s is not taken over: %s", path.name, error)
                self._refused.add(path)
                continue
            with contextlib.suppress(*DISK_ERRORS):
                summary = file.summary(limits)
                if summary.pending or summary.dead:
                    files[path] = file
                    storage = SqliteStorage(path, self._stem, self._clock, owner=self)
                    storage.report(file.undeleted, file.take_damage())
                    return storage, summary
            file.close(keep_empty=False)
        return None

    def _close(self, files: Files) -> None:
        if (file := files.pop(self.path, None)) is not None:
            is_named = self._owner is None and self.path.suffix == ownership.SUFFIX
            left = file.close(keep_empty=is_named)
            self.report(left, file.take_damage())


def _serve(requests: SimpleQueue[list[WriteRequest] | None]) -> None:
    files: Files = {}
    is_open = True
    while is_open:
        batch = [requests.get()]
        with contextlib.suppress(Empty):
            while True:
                batch.append(requests.get_nowait())
        is_open = None not in batch
        _work(files, [request for some in batch if some is not None for request in some])
        del batch  # while waiting it holds on to nothing
    for file in files.values():
        with contextlib.suppress(*DISK_ERRORS):
            file.close(keep_empty=False)


def _work(files: Files, requests: Sequence[WriteRequest]) -> None:
    """Do all writing first, in one commit a file; then all else, which finds what was written."""
    answers: Answers = []
    storages = dict.fromkeys(request.storage for request in requests)
    for storage in storages:
        ours = [r for r in requests if r.storage is storage and r.work is None]
        appends, deletes = [r for r in ours if r.append], [r for r in ours if not r.append]
        if ours:
            errors = _write(files, storage, [r.append for r in appends], deletes)
            answers += [(r, None, e) for r, e in zip(appends, errors, strict=True)]
            answers += [(r, None, None) for r in deletes]
    for request in requests:
        if request.work is not None:
            answers.append((request, *_do(request.work, files)))
    for storage in storages:
        if (file := files.get(storage.path)) is not None:
            storage.report(file.undeleted, file.take_damage())
    for loop in {request.answer.get_loop() for request in requests}:
        heard = [answer for answer in answers if answer[0].answer.get_loop() is loop]
        with contextlib.suppress(RuntimeError):  # it has ended
            loop.call_soon_threadsafe(_resolve, heard)


def _write(
    files: Files,
    storage: SqliteStorage,
    appends: Sequence[Sequence[QueuedEvent]],
    deletes: Sequence[WriteRequest],
) -> list[Exception | None]:
    try:
        numbers = [number for request in deletes for number in request.delete]
        return files[storage.path].write(appends, numbers)
    except Exception as error:  # whatever it is, nobody may wait for ever
        return [error] * len(appends)


def _do(work: Callable[[Files], Any], files: Files) -> tuple[Any, Exception | None]:
    try:
        return work(files), None
    except DriftError as error:
        return None, error
    except DISK_ERRORS as error:
        return None, DriftError(f"the outbox's disk failed ({error})")
    except Exception as error:
        logger.exception("the outbox's thread failed")
        return None, error


def _resolve(answers: Answers) -> None:
    for request, result, error in answers:
        if request.answer.done():
            continue  # nobody waits any longer
        if error is None:
            request.answer.set_result(result)
        else:
            request.answer.set_exception(error)
            request.answer.exception()  # not all answers are waited for
