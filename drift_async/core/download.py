"""Bodies that are streamed: into memory up to a bound, or into a file that appears when whole."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self, TypeVar

T = TypeVar("T")

PATIENCE = 0.5
"""Seconds that a call that is over waits for the disk to delete what it leaves."""


class TooLargeError(Exception):
    """A body went over its bound."""


class WrongPartError(OSError):
    """The server sent a part of the body, unasked; counts as a broken connection."""


class DiskError(Exception):
    """The disk failed, not the connection: ``reason`` is the error to tell."""

    def __init__(self, reason: OSError) -> None:
        super().__init__()
        self.reason = reason


class Sink(Protocol):
    """Receives the body of a 2xx reply."""

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Start a new attempt: drop what an earlier one has written."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Append the next bytes, or raise `TooLargeError`."""
        ...


class Buffer:
    """Holds at most *most* bytes in memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = 0
        self._chunks: list[bytes] = []

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Start from the beginning, within the bound."""
        await self._clear()
        if status == 206:
            raise WrongPartError
        length = headers.get("Content-Length", "")
        # Of a compressed body, this is not the size that counts.
        if "Content-Encoding" not in headers and length.isdecimal() and int(length) > self._most:
            raise TooLargeError(f"a body of {length} bytes, over the limit of {self._most}")

    async def write(self, chunk: bytes) -> None:
        """Append, within the bound."""
        if self.size + len(chunk) > self._most:
            raise TooLargeError(f"a body over the limit of {self._most} bytes")
        # First, since a cancelled call does not stop its last write to the disk.
        self.size += len(chunk)
        await self._append(chunk)

    async def _clear(self) -> None:
        self.size = 0
        self._chunks.clear()

    async def _append(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def whole(self) -> bytes:
        """Return all bytes."""
        return b"".join(self._chunks)


class FileBuffer(Buffer):
    """Writes beside *path* under a temporary name; `keep` gives the file its name.

    Disk work is done in a thread of its own, so that the event loop goes on and each step comes
    after the one before, also when a cancelled call waits for neither.
    """

    def __init__(self, path: str | os.PathLike[str], most: int) -> None:
        super().__init__(most)
        self._path = Path(path)
        self._file: BinaryIO | None = None
        self._part: str | None = None
        self._trouble: OSError | None = None
        self._thread = ThreadPoolExecutor(1, "drift-async-file")

    async def __aenter__(self) -> Self:
        try:
            await self._do(self._create)
        except BaseException:
            self._thread.submit(self._discard)  # created after all, when it was cancelled
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
            # A disk that hangs is left to the thread: no call lasts until it is well again.
            loop = asyncio.get_running_loop()
            gone = loop.run_in_executor(self._thread, self._discard)
            await asyncio.wait([gone], timeout=PATIENCE)
        finally:
            self._thread.shutdown(wait=False)
        if isinstance(error, DiskError):
            raise error.reason from None

    async def keep(self) -> None:
        """Put the whole file in place, at once and on disk."""
        await self._on_disk(self._keep)

    async def _clear(self) -> None:
        if self.size:
            self.size = 0
            await self._on_disk(self._truncate)

    async def _append(self, chunk: bytes) -> None:
        await self._on_disk(self._open_file().write, chunk)

    async def _on_disk(self, work: Callable[..., object], *args: object) -> None:
        """Run *work* on the disk's thread, and raise its `OSError` as a `DiskError`.

        The attempt around it would take an `OSError` for one of the connection.
        """
        trouble = await self._do(self._step, work, *args)
        if trouble is not None:
            raise DiskError(trouble)

    async def _do(self, work: Callable[..., T], *args: object) -> T:
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, work, *args))

    def _step(self, work: Callable[..., object], *args: object) -> OSError | None:
        """Run *work* unless an earlier disk step failed, and return the first error.

        The call that should have got that error may have been cancelled.
        """
        if self._trouble is None:
            try:
                work(*args)
            except OSError as error:
                self._trouble = error
        return self._trouble

    def _create(self) -> None:
        # Not named after the file, whose own name may be as long as the disk takes any.
        handle, self._part = tempfile.mkstemp(".part", ".drift-", self._path.parent)
        self._file = os.fdopen(handle, "wb")

    def _open_file(self) -> BinaryIO:
        assert self._file is not None, "used outside of `async with`"
        return self._file

    def _truncate(self) -> None:
        file = self._open_file()
        file.seek(0)
        file.truncate()

    def _keep(self) -> None:
        assert self._part is not None
        file = self._open_file()
        file.flush()
        if os.fstat(file.fileno()).st_size != self.size:
            raise OSError(errno.EIO, "the disk does not hold what was written to it", self._part)
        os.fsync(file.fileno())
        file.close()
        # mkstemp makes files private; the result gets the mode that open() would have given.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(self._part, 0o666 & ~mask)
        os.replace(self._part, self._path)
        self._part = None

    def _discard(self) -> None:
        # Whatever it says now, what went wrong before is what is to be told.
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        if self._part is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._part)
