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
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import attrs

from ..errors import ClosedError, DriftError, InputError, OutboxLockedError
from . import ownership
from .sqlite_database import DISK_ERRORS
from .sqlite_file import SqliteFile
from .storage import (
    DeadLetter,
    DeadLetters,
    DeadLimits,
    QueuedEvent,
    ReadResult,
    Replayed,
    Storage,
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
        self.damage: deque[str] = deque()  # that is not reported yet
        self._stem = stem
        self._clock = clock
        self._owner = owner
        self._requests: SimpleQueue[list[WriteRequest] | None]
        self._requests = SimpleQueue() if owner is None else owner._requests
        self._unsent: list[WriteRequest] = []  # of this turn of the loop
        self._is_started = owner is not None
        self._is_closed = False
        self._refused: set[Path] = set()  # files that are not safe to adopt
        self._left = 0  # deletions that could not be done

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
        except BaseException as error:
            if isinstance(error, Exception):
                self._requests.put(None)
                self._is_closed = True
            raise
        return summary

    def append(self, events: Sequence[QueuedEvent]) -> asyncio.Future[None]:
        if self._is_closed:
            raise ClosedError("the client was closed")
        return self._send(append=events)

    def delete(self, numbers: Sequence[int]) -> asyncio.Future[int]:
        return self._send(delete=numbers)

    def dead_letter(
        self, letters: Sequence[DeadLetter], limits: DeadLimits
    ) -> asyncio.Future[Mapping[str, int]]:
        return self._ask(lambda files: files[self.path].dead_letter(letters, limits))

    def dead(self, limits: DeadLimits) -> asyncio.Future[DeadLetters]:
        return self._ask(lambda files: files[self.path].dead(limits))

    def replay(self, limits: DeadLimits) -> asyncio.Future[Replayed]:
        return self._ask(lambda files: files[self.path].replay(limits))

    def read(self, after: int, count: int, size: int) -> asyncio.Future[ReadResult]:
        return self._ask(lambda files: files[self.path].read(after, count, size))

    async def adopt(self, limits: DeadLimits) -> tuple[Storage, StorageSummary] | None:
        found = await self._ask(lambda files: self._adopt(files, limits))
        if found is None:
            return None
        path, summary = found
        return SqliteStorage(path, self._stem, self._clock, owner=self), summary

    def take_damage(self) -> list[str]:
        return [self.damage.popleft() for _ in range(len(self.damage))]

    async def close(self) -> int:
        if self._is_closed:
            return self._left
        closed = self._ask(self._close)
        if self._owner is None:
            self._requests.put(None)
        self._is_closed = True
        try:
            async with asyncio.timeout(CLOSING):
                self._left = await asyncio.shield(closed)
        except TimeoutError:
            logger.warning("the outbox's disk is slow: its file is closed later")
        return self._left

    def _send(self, **request: Any) -> asyncio.Future[Any]:
        """Ask for something with all else that is asked for in this turn of the loop."""
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        if self._is_closed:
            answer.set_exception(ClosedError("the client was closed"))
            answer.exception()  # not all answers are waited for
            return answer
        self._unsent.append(WriteRequest(answer, self, **request))
        if len(self._unsent) == 1:
            loop.call_soon(self._hand_over)
        return answer

    def _ask(self, work: Callable[[Files], Any]) -> asyncio.Future[Any]:
        answer = self._send(work=work)
        self._hand_over()
        return answer

    def _hand_over(self) -> None:
        if self._unsent:
            unsent, self._unsent = self._unsent, []
            self._requests.put(unsent)

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

    def _adopt(self, files: Files, limits: DeadLimits) -> tuple[Path, StorageSummary] | None:
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
                if summary.pending or summary.dead or summary.expired:
                    files[path] = file
                    return path, summary
            file.close(keep_empty=False)
        return None

    def _close(self, files: Files) -> int:
        file = files.pop(self.path, None)
        is_named = self._owner is None and self.path.suffix == ownership.SUFFIX
        return 0 if file is None else file.close(keep_empty=is_named)


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
        writes = [r for r in requests if r.storage is storage and r.work is None]
        if writes:
            try:
                answers += _write(files[storage.path], writes)
            except Exception as error:  # whatever it is, nobody may wait for ever
                answers += [(request, None, error) for request in writes]
    for request in requests:
        if request.work is not None:
            try:
                answers.append((request, request.work(files), None))
            except DISK_ERRORS as error:
                is_told = isinstance(error, DriftError)
                refusal = error if is_told else DriftError(f"the outbox's disk failed ({error})")
                answers.append((request, None, refusal))
            except Exception as error:
                logger.exception("the outbox's thread failed")
                answers.append((request, None, error))
    for storage in storages:
        if storage.path in files:
            storage.damage.extend(files[storage.path].take_damage())
    _answer(answers)


def _write(file: SqliteFile, requests: Sequence[WriteRequest]) -> Answers:
    appends = [request for request in requests if request.append]
    deletes = [request for request in requests if not request.append]
    errors = file.write(
        [request.append for request in appends], [n for r in deletes for n in r.delete]
    )
    left = file.undeleted
    answers: Answers = [(r, None, error) for r, error in zip(appends, errors, strict=True)]
    return answers + [(request, left, None) for request in deletes]


def _answer(answers: Answers) -> None:
    """Hand answers to the loops that asked; that of a loop that has ended is nobody's."""
    loops = dict.fromkeys(request.answer.get_loop() for request, _, _ in answers)
    for loop in loops:
        ours = [answer for answer in answers if answer[0].answer.get_loop() is loop]
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, ours)


def _resolve(answers: Answers) -> None:
    for request, result, error in answers:
        if request.answer.done():
            continue  # nobody waits any longer
        if error is not None:
            request.answer.set_exception(error)
        else:
            request.answer.set_result(result)
