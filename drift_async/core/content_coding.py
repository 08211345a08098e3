"""Reading bodies in a content coding: bounded memory, and an error for one that ends early."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE = 256 * 1024
"""Bytes that are decompressed at once: a small body may hold gigabytes."""

MAX_EMPTY = 100
"""Parts in a row that hold nothing: a body may consist of any number, and each takes time."""


class CodingError(Exception):
    """A body that is not what its Content-Encoding says, or that ends too early."""


class UnknownCodingError(CodingError):
    """A body in a coding that was not asked for."""


class Decompressor:
    """Decompresses a body in the coding ``gzip`` or ``deflate``; raises `UnknownCodingError`."""

    def __init__(self, coding: str) -> None:
        self._coding = coding.strip().lower()
        if self._coding not in ("gzip", "x-gzip", "deflate"):
            raise UnknownCodingError("a content coding that was not asked for")
        self._stream: zlib._Decompress | None = None
        self._empty = 0  # parts of the body that held nothing

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the pieces that *data*, the next bytes of the body, decompresses to."""
        try:
            while data:
                if self._stream is None or self._stream.eof:
                    self._stream = self._new_stream(data)
                    self._empty += 1
                while piece := self._stream.decompress(data, PIECE):
                    self._empty = 0
                    yield piece
                    data = self._stream.unconsumed_tail
                data = self._stream.unused_data
                if self._empty > MAX_EMPTY:
                    raise CodingError(f"a body of {self._coding} in too many empty parts")
        except zlib.error:
            raise CodingError(f"a body that is not {self._coding}") from None

    def finish(self) -> None:
        """Raise `CodingError` if the body has ended before its coding has."""
        if self._stream is not None and not self._stream.eof:
            raise CodingError(f"a body of {self._coding} that ends early")

    def _new_stream(self, data: bytes) -> zlib._Decompress:
        if self._coding != "deflate":
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        # Some servers send the bare format, whose first byte has other bits set.
        is_bare = data[0] & 0x0F != 8
        return zlib.decompressobj(-zlib.MAX_WBITS if is_bare else zlib.MAX_WBITS)
