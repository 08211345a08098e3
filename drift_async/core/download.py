"""Bodies that are streamed: into memory up to a bound, or into a file that appears when whole."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self, TypeVar

T = TypeVar("T")

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_STRONG = re.compile(r'"[\x21\x23-\x7e]*"')

PATIENCE = 0.5
"""Seconds that a call that is over waits for the disk to delete what it leaves."""


class TooLargeError(Exception):
    """A body went over its bound."""


class WrongPartError(OSError):
    """A server sent another part than was asked for; counts as a broken connection."""


class DiskError(Exception):
    """The disk failed, not the connection: ``reason`` is the error to tell."""

    def __init__(self, reason: OSError) -> None:
        super().__init__()
        self.reason = reason


class Sink(Protocol):
    """Where the body of a 2xx reply goes, attempt by attempt."""

    def headers(self) -> Mapping[str, str]:
        """Return what the next attempt asks for: the rest, if there is a beginning."""
        ...

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Take note of the head; bytes that came before stay only if this is their rest."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes, or raise `TooLargeError`."""
        ...


class Buffer:
    """Holds at most *most* bytes, and keeps what has come when an attempt breaks off."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._total: int | None = None
        self._version: str | None = None
        self._from = 0
        self.size = 0
        self._chunks: list[bytes] = []

    def headers(self) -> Mapping[str, str]:
        """Ask for the bytes that are still missing, and for them as they are.

        Of what is compressed on its way, neither the rest nor the end can be told.
        """
        plain = {"Accept-Encoding": "identity"}
        self._from = self.size
        if not self.size:
            return plain
        # Past the end there is nothing to be had, not even the news that it is the end. So where
        # all may have come, the last byte is asked for again.
        if self._total in (None, self.size):
            self._from -= 1
        rest = {**plain, "Range": f"bytes={self._from}-"}
        # A weak mark or a time does not vouch for each byte: these are only compared, in `begin`.
        if self._version is not None and _STRONG.fullmatch(self._version):
            rest["If-Range"] = self._version
        return rest

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Start over, unless the server sends just what is missing, of the same version.

        Where it marks no versions, the size of the whole has to do for it.
        """
        total = None
        version = headers.get("ETag") or headers.get("Last-Modified")
        if status == 206:
            total = missing(headers, self._from)
            changed = version != self._version or self._total not in (None, total)
            if total is None or (self.size and changed):
                await self._cut(0)
                raise WrongPartError
            await self._cut(self._from)
        else:
            await self._cut(0)
            length = headers.get("Content-Length", "")
            if length.isdecimal() and "Content-Encoding" not in headers:
                total = int(length)
        self._total, self._version = total, version
        if total is not None and total > self._most:
            raise TooLargeError(f"a body of {total} bytes, over the limit of {self._most}")

    async def write(self, chunk: bytes) -> None:
        """Append, within the bound."""
        if self.size + len(chunk) > self._most:
            raise TooLargeError(f"a body over the limit of {self._most} bytes")
        # First: what is on its way to the disk gets there, also if nobody waits for it any more.
        self.size += len(chunk)
        await self._append(chunk)

    async def _cut(self, size: int) -> None:
        """Keep the first *size* bytes only."""
        if size < self.size:
            self._chunks = [self.whole()[:size]]
        self.size = size

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

    async def _cut(self, size: int) -> None:
        written, self.size = self.size, size
        if size < written:
            await self._on_disk(self._truncate, size)

    async def _append(self, chunk: bytes) -> None:
        await self._on_disk(self._open_file().write, chunk)

    async def _on_disk(self, work: Callable[..., object], *args: object) -> None:
        """Do it in the middle of an attempt, which takes an `OSError` for the connection's."""
        trouble = await self._do(self._step, work, *args)
        if trouble is not None:
            raise DiskError(trouble)

    async def _do(self, work: Callable[..., T], *args: object) -> T:
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, work, *args))

    def _step(self, work: Callable[..., object], *args: object) -> OSError | None:
        """Do it if all went well before: who would have been told may have been cancelled."""
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

    def _truncate(self, size: int) -> None:
        file = self._open_file()
        file.seek(size)
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


def missing(headers: Mapping[str, str], size: int) -> int | None:
    """Return the size of the whole, if a part holds all the bytes from *size* on; else None."""
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if found is None or "Content-Encoding" in headers:
        return None
    first, last = int(found[1]), int(found[2])
    total = last + 1 if found[3] == "*" else int(found[3])
    rest = str(total - first)
    right = first == size and last == total - 1 >= first
    return total if right and headers.get("Content-Length", rest) == rest else None
