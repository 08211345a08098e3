"""Streamed bodies: into memory up to a bound, or into a file that appears when it is whole."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

T = TypeVar("T")

CLEANUP_TIMEOUT = 0.5
"""Seconds that a download that is over waits for the disk to delete the temporary file."""


class TooLargeError(Exception):
    """A body exceeds its bound."""


class WrongPartError(OSError):
    """The server sent a part of the body, unasked; counts as a broken connection."""


class DiskError(Exception):
    """The disk failed, not the connection; ``reason`` is the error to raise from the call."""

    def __init__(self, reason: OSError) -> None:
        super().__init__()
        self.reason = reason


class Sink(ABC):
    """Receives the body of a 2xx response, at most *limit* bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.size = 0

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Start a new attempt: drop what an earlier one wrote, and check the size announced."""
        await self._clear()
        self.size = 0
        if status == 206:
            raise WrongPartError
        length = headers.get("Content-Length", "")
        # Of a compressed body, this is not the size that counts.
        if "Content-Encoding" not in headers and length.isdecimal() and int(length) > self._limit:
            raise TooLargeError(f"a body of {length} bytes, over the limit of {self._limit}")

    async def write(self, chunk: bytes) -> None:
        """Append the next bytes, or raise `TooLargeError`."""
        if self.size + len(chunk) > self._limit:
            raise TooLargeError(f"a body over the limit of {self._limit} bytes")
        # Counted first: a cancelled call does not stop its last write to the disk.
        self.size += len(chunk)
        await self._append(chunk)

    @abstractmethod
    async def _clear(self) -> None: ...

    @abstractmethod
    async def _append(self, chunk: bytes) -> None: ...


class Buffer(Sink):
    """Holds a body in memory."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._chunks: list[bytes] = []

    def whole(self) -> bytes:
        """Return all bytes."""
        return b"".join(self._chunks)

    async def _clear(self) -> None:
        self._chunks.clear()

    async def _append(self, chunk: bytes) -> None:
        self._chunks.append(chunk)


class FileBuffer(Sink):
    """Writes a body beside *path* under a temporary name; `commit` gives the file its name.

    A thread of its own works on the disk, so the event loop goes on and each step comes after the
    one before, also when a cancelled call waits for neither.
    """

    _file: BinaryIO

    def __init__(self, path: str | os.PathLike[str], limit: int) -> None:
        super().__init__(limit)
        self._path = Path(path)
        self._part: str | None = None
        self._disk_error: OSError | None = None
        self._thread = ThreadPoolExecutor(1, "drift-async-file")

    async def __aenter__(self) -> Self:
        try:
            await self._in_thread(self._create)
        except BaseException:
            # A cancellation does not stop the thread: it may create the file afterwards.
            self._thread.submit(self._discard)
            self._thread.shutdown(wait=False)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # Bounded: no call lasts as long as a disk that hangs.
            loop = asyncio.get_running_loop()
            cleanup = loop.run_in_executor(self._thread, self._discard)
            await asyncio.wait([cleanup], timeout=CLEANUP_TIMEOUT)
        finally:
            self._thread.shutdown(wait=False)
        if isinstance(error, DiskError):
            raise error.reason from None

    async def commit(self) -> None:
        """Put the whole file in place, at once and on disk."""
        await self._on_disk(self._commit)

    async def _clear(self) -> None:
        if self.size:
            await self._on_disk(self._truncate)

    async def _append(self, chunk: bytes) -> None:
        await self._on_disk(self._file.write, chunk)

    async def _on_disk(self, work: Callable[..., object], *args: object) -> None:
        """Run *work* in the thread, and raise its `OSError` as a `DiskError`."""
        error = await self._in_thread(self._step, work, *args)
        if error is not None:
            raise DiskError(error)

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, work, *args))

    def _step(self, work: Callable[..., object], *args: object) -> OSError | None:
        """Run *work* unless an earlier disk step failed; return the first error of all steps."""
        if self._disk_error is None:
            try:
                work(*args)
            except OSError as error:
                self._disk_error = error
        return self._disk_error

    def _create(self) -> None:
        # Not named after the file, whose own name may have the greatest length the disk takes.
        handle, self._part = tempfile.mkstemp(".part", ".drift-", self._path.parent)
        self._file = os.fdopen(handle, "wb")

    def _truncate(self) -> None:
        self._file.seek(0)
        self._file.truncate()

    def _commit(self) -> None:
        assert self._part is not None
        self._file.flush()
        if os.fstat(self._file.fileno()).st_size != self.size:
            raise OSError(errno.EIO, "the disk does not hold what was written to it", self._part)
        os.fsync(self._file.fileno())
        self._file.close()
        # mkstemp makes files private; the result gets the mode that open() would have given.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(self._part, 0o666 & ~mask)
        os.replace(self._part, self._path)
        self._part = None

    def _discard(self) -> None:
        # Errors are ignored: an earlier one is the reason for this and the one to raise.
        if self._part is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                os.unlink(self._part)
