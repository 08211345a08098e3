"""Attachments: as bytes, and streamed to a file that appears when it is whole."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from drift_async import (
    ConnectionLostError,
    DeadlineError,
    Drift,
    NotFoundError,
    ResponseTooLargeError,
    Retry,
    Sandbox,
)
from drift_async.core import download
from tests.support.server import Got, Server, reply

pytestmark = pytest.mark.anyio


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    # Long enough that much has arrived before the end is cut off.
    async with Sandbox(attachment_size=2_000_000) as box:
        yield box


@pytest.fixture
async def document(drift: Any, box: Sandbox) -> int:
    """The id of an attachment of some message."""
    async for conversation in drift.conversations.all():
        async for message in drift.conversations.messages(conversation.id):
            for attachment in message.attachments or ():
                box.forget()
                return int(attachment.id)
    raise AssertionError("no message has an attachment")


async def test_an_attachment_as_bytes_and_as_a_file_are_the_same(
    drift: Any, document: int, tmp_path: Path
) -> None:
    whole = await drift.conversations.attachment(document)
    path = tmp_path / "file.bin"
    assert await drift.conversations.download_attachment(document, path) == len(whole) > 0
    assert path.read_bytes() == whole
    assert [item.name for item in tmp_path.iterdir()] == ["file.bin"]
    other = tmp_path / "other"
    other.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


async def test_a_file_that_was_there_stays_until_the_new_one_is_whole(
    make: Callable[..., Any], box: Sandbox, drift: Any, document: int, tmp_path: Path
) -> None:
    path = tmp_path / "file.bin"
    path.write_text("old")
    box.fail("conversations.attachment", short=3, times=None)
    async with make(box.token, base_url=box.url, retry=Retry(base=0)) as hasty:
        with pytest.raises(ConnectionLostError) as caught:
            await hasty.conversations.download_attachment(document, str(path))
    assert caught.value.applied is True
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["file.bin"]


async def test_after_a_break_all_is_asked_for_again(
    drift: Any, box: Sandbox, document: int, tmp_path: Path
) -> None:
    whole = await drift.conversations.attachment(document)
    box.forget()
    path = tmp_path / "file.bin"
    box.fail("conversations.attachment", short=3)
    assert await drift.conversations.download_attachment(document, path) == len(whole)
    assert path.read_bytes() == whole
    box.fail("conversations.attachment", short=3)
    assert await drift.conversations.attachment(document) == whole
    assert [dict(seen.headers).get("Range") for seen in box.seen] == [None] * 4


async def test_a_bound_holds_before_and_while_reading(
    drift: Any, box: Sandbox, document: int, tmp_path: Path
) -> None:
    for call in (
        drift.conversations.attachment(document, max_bytes=5),
        drift.conversations.download_attachment(document, tmp_path / "x", max_bytes=5),
    ):
        with pytest.raises(ResponseTooLargeError) as caught:
            await call
        assert caught.value.applied is True
    assert list(tmp_path.iterdir()) == []
    assert len(box.seen) == 2


@pytest.mark.parametrize("steps", range(1, 6))
async def test_a_download_cancelled_at_its_beginning_leaves_no_file(
    box: Sandbox, document: int, tmp_path: Path, steps: int
) -> None:
    async with Drift(box.token, base_url=box.url) as drift:
        path = tmp_path / "file.bin"
        call = asyncio.create_task(drift.conversations.download_attachment(document, path))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
    # The thread that makes and deletes files may be a moment later.
    await asyncio.to_thread(wait_for_no_threads, "drift-async-file")
    assert list(tmp_path.iterdir()) == []


def wait_for_no_threads(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name.startswith(name):
            thread.join(5)


async def test_an_unknown_document_leaves_no_file(drift: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        await drift.conversations.download_attachment(999_999_999_999, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


WHOLE = reply(b"0123456789", Connection="close")
BROKEN = WHOLE.replace(b"56789", b"")
ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n"
PART = reply(b"56789", "206 Partial Content", Content_Range="bytes 5-9/10", Connection="close")
UNUSABLE = {
    "broken": BROKEN,
    "without-its-end": ENDLESS,
    "part": PART,
    "part-without-place": PART.replace(b"Content-Range", b"X"),
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("again", [False, True])
async def test_what_is_not_whole_is_dropped(
    make: Any, name: str, again: bool, tmp_path: Path
) -> None:
    path, other = tmp_path / "file", reply(b"qrstuvwxyz", Connection="close")
    answers = (BROKEN, UNUSABLE[name], UNUSABLE[name] if again else other)
    async with (
        Server(lambda n, got: answers[(n - 1) % 3]) as server,
        make("t", base_url=server.url, retry=Retry(base=0)) as drift,
    ):
        calls = drift.conversations.attachment(7), drift.conversations.download_attachment(7, path)
        if again:
            for call in calls:
                with pytest.raises(ConnectionLostError) as caught:
                    await call
                status = 206 if name.startswith("part") else 200
                assert (caught.value.applied, caught.value.status) == (True, status)
            assert list(tmp_path.iterdir()) == []
        else:
            assert [await call for call in calls] == [b"qrstuvwxyz", 10]
            assert path.read_bytes() == b"qrstuvwxyz"
        assert [got.headers.get("range") for got in server.got] == [None] * 6


async def test_an_attachment_is_asked_for_uncompressed(make: Any) -> None:
    async with Server(WHOLE) as server, make("t", base_url=server.url) as drift:
        assert await drift.conversations.attachment(7) == b"0123456789"
        assert [got.headers["accept-encoding"] for got in server.got] == ["identity"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full")
async def test_a_full_disk_is_told_as_such_and_not_tried_again(
    make: Any, box: Sandbox, document: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, mode: str) -> BinaryIO:
        os.close(handle)
        return Path("/dev/full").open("wb", buffering=0)

    monkeypatch.setattr("drift_async.core.download.os.fdopen", full)
    async with make(box.token, base_url=box.url) as drift:
        box.forget()
        with pytest.raises(OSError, match="No space left") as caught:
            await drift.conversations.download_attachment(document, tmp_path / "x")
        assert (caught.value.errno, len(box.seen)) == (errno.ENOSPC, 1)
    assert list(tmp_path.iterdir()) == []


class Disk:
    """A file whose first write waits until it may go on, and then does what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, write: Callable[[Any, bytes], int]) -> None:
        self.go = threading.Event()
        self.over = False
        self._write: Callable[[Any, bytes], int] | None = write
        make = os.fdopen

        def opened(handle: int, mode: str) -> Any:
            self._file = make(handle, mode)
            return self

        monkeypatch.setattr("drift_async.core.download.os.fdopen", opened)

    def write(self, chunk: bytes) -> int:
        write, self._write = self._write, None
        if write is None:
            return int(self._file.write(chunk))
        assert self.go.wait(5)
        self.over = True
        return write(self._file, chunk)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def as_told(file: Any, chunk: bytes) -> int:
    return int(file.write(chunk))


def lost(file: Any, chunk: bytes) -> int:
    return len(chunk)


def refused(file: Any, chunk: bytes) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("arrived", [5, 10])
@pytest.mark.parametrize(("write", "number"), [(as_told, None), (refused, errno.ENOSPC)])
async def test_what_a_slow_disk_still_writes_after_an_attempt_does_not_stay(
    make: Any,
    arrived: int,
    write: Callable[[Any, bytes], int],
    number: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, path = Disk(monkeypatch, write), tmp_path / "file"

    def answer(n: int, got: Got) -> bytes:
        if n == 1:  # and no more, with the connection left open
            return reply(b"0123456789")[: arrived - 10 or None]
        disk.go.set()
        return reply(b"qrstuvwxyz", Connection="close")

    async with (
        Server(answer) as server,
        make("t", base_url=server.url, retry=Retry(base=0), attempt_timeout=0.1) as drift,
    ):
        call = drift.conversations.download_attachment(7, path)
        if number is None:
            assert await call == 10
            assert path.read_bytes() == b"qrstuvwxyz"
        else:
            with pytest.raises(OSError, match="No space left") as caught:
                await call
            assert caught.value.errno == number
            assert list(tmp_path.iterdir()) == []
    assert len(server.got) == 2


async def test_a_file_that_lacks_bytes_does_not_appear(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Disk(monkeypatch, lost).go.set()
    async with Server(WHOLE) as server, make("t", base_url=server.url) as drift:
        with pytest.raises(OSError, match="does not hold") as caught:
            await drift.conversations.download_attachment(7, tmp_path / "file")
    assert caught.value.errno == errno.EIO
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_that_hangs_does_not_hold_up_the_end_of_a_call(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PATIENCE", 0.05)
    disk = Disk(monkeypatch, as_told)
    async with Server(WHOLE) as server, make("t", base_url=server.url, timeout=0.1) as drift:
        with pytest.raises(DeadlineError):
            await drift.conversations.download_attachment(7, tmp_path / "file")
    assert not disk.over
    disk.go.set()
    await asyncio.to_thread(wait_for_no_threads, "drift-async-file")
    assert list(tmp_path.iterdir()) == []


async def test_a_name_may_be_as_long_as_the_disk_takes_any(make: Any, tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".bin")
    path.touch()
    async with Server(WHOLE) as server, make("t", base_url=server.url) as drift:
        assert await drift.conversations.download_attachment(7, path) == 10
    assert path.read_bytes() == b"0123456789"
