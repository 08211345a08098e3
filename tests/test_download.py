"""Attachments: as bytes, and streamed to a file that appears when it is whole."""

from __future__ import annotations

import asyncio
import errno
import os
import re
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
from drift_async.core.download import missing

from .server import Got, Server, reply

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


async def test_after_a_break_only_the_rest_is_asked_for(
    drift: Any, box: Sandbox, document: int, tmp_path: Path
) -> None:
    whole = await drift.conversations.attachment(document)
    box.forget()
    box.fail("conversations.attachment", short=3)
    path = tmp_path / "file.bin"
    assert await drift.conversations.download_attachment(document, path) == len(whole)
    assert path.read_bytes() == whole
    ranges = [dict(seen.headers).get("Range") for seen in box.seen]
    assert ranges[0] is None
    assert re.fullmatch("bytes=[1-9][0-9]*-", ranges[1] or "")


async def test_a_server_that_sends_all_again_is_understood(
    drift: Any, box: Sandbox, document: int, tmp_path: Path
) -> None:
    whole = await drift.conversations.attachment(document)
    box.fail("conversations.attachment", short=3)
    box.fail("conversations.attachment", status=200, body=whole)
    path = tmp_path / "file.bin"
    assert await drift.conversations.download_attachment(document, path) == len(whole)
    assert path.read_bytes() == whole


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


@pytest.mark.parametrize(
    ("value", "length", "total"),
    [
        ("bytes 7-9/10", "3", 10),
        ("bytes 7-9/10", None, 10),
        ("bytes 7-9/*", "3", 10),
        ("bytes 6-9/10", "4", None),
        ("bytes 8-9/10", "2", None),
        ("bytes 7-8/10", "2", None),
        ("bytes 7-9/10", "2", None),
        ("bytes 7-9/9", "3", None),
        ("bytes 7-6/7", "0", None),
        ("bytes */10", "3", None),
        ("bytes 7-9", "3", None),
        ("", "3", None),
        ("bytes 7-9/10x", "3", None),
        ("bytes " + "9" * 5000 + "-9/10", "3", None),
    ],
)
def test_only_just_the_bytes_that_are_missing_continue(
    value: str, length: str | None, total: int | None
) -> None:
    headers = {"Content-Range": value} | ({} if length is None else {"Content-Length": length})
    assert missing(headers, 7) == total
    assert missing({**headers, "Content-Encoding": "gzip"}, 7) is None


def part(first: int, last: int, body: bytes, total: object = 10, **more: str) -> bytes:
    place = f"bytes {first}-{last}/{total}"
    return reply(body, "206 Partial Content", Content_Range=place, Connection="close", **more)


WHOLE = reply(b"0123456789", Connection="close")
BROKEN = WHOLE.replace(b"56789", b"")
WRONG = {
    "another-place": part(3, 9, b"3456789"),
    "not-to-the-end": part(5, 7, b"567"),
    "of-another-size": part(5, 8, b"5678", 9),
    "compressed": part(5, 9, b"56789").replace(b"206", b"206 OK\r\nContent-Encoding: gzip\r\nX:"),
    "no-place": reply(b"56789", "206 Partial Content", Connection="close"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("again", [False, True])
async def test_another_part_than_was_asked_for_is_not_taken_for_the_rest(
    make: Any, name: str, again: bool, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    answers = (BROKEN, WRONG[name], WRONG[name] if again else WHOLE)
    async with (
        Server(lambda n, got: answers[n - 1]) as server,
        make("t", base_url=server.url, retry=Retry(base=0)) as drift,
    ):
        if again:
            with pytest.raises(ConnectionLostError) as caught:
                await drift.conversations.download_attachment(7, path)
            assert (caught.value.applied, caught.value.status) == (True, 206)
            assert list(tmp_path.iterdir()) == []
        else:
            assert await drift.conversations.download_attachment(7, path) == 10
            assert path.read_bytes() == b"0123456789"
        ranges = [got.headers.get("range") for got in server.got]
        assert ranges == [None, "bytes=5-", None]


MARKS: list[tuple[str, str, str | None]] = [
    ("ETag", '"one"', '"one"'),
    ("ETag", 'W/"one"', None),
    ("ETag", '"\xfc"', None),
    ("ETag", "one", None),
    ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT", None),
]


@pytest.mark.parametrize(("name", "mark", "asked"), MARKS)
@pytest.mark.parametrize("other", [None, "same", '"two"'])
async def test_two_versions_are_not_put_together(
    make: Any, name: str, mark: str, asked: str | None, other: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    new = {} if other is None else {name: mark if other == "same" else other}
    answers = (
        reply(b"0123456789", Connection="close", **{name: mark})[:-5],
        part(5, 9, b"vwxyz", **new),
        reply(b"qrstuvwxyz", Connection="close", **new),
    )
    async with (
        Server(lambda n, got: answers[n - 1]) as server,
        make("t", base_url=server.url, retry=Retry(base=0)) as drift,
    ):
        assert await drift.conversations.download_attachment(7, path) == 10
    whole = other == "same"
    assert path.read_bytes() == (b"01234vwxyz" if whole else b"qrstuvwxyz")
    wanted = [(None, None), ("bytes=5-", asked), (None, None)]
    got = [(got.headers.get("range"), got.headers.get("if-range")) for got in server.got]
    assert got == wanted[: 2 if whole else 3]


@pytest.mark.parametrize("body", [b"0123456789", b"0"])
async def test_where_only_the_end_was_not_told_it_is_asked_for_with_the_last_byte(
    make: Any, body: bytes, tmp_path: Path
) -> None:
    size, path = len(body), tmp_path / "file"
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (size, body)

    def answer(n: int, got: Got) -> bytes:
        asked = got.headers.get("range")
        if asked is None:
            return endless
        first = int(asked[len("bytes=") : -1])
        if first >= size:
            return reply(b"", "416 Range Not Satisfiable", Content_Range=f"bytes */{size}")
        return part(first, size - 1, body[first:], size)

    async with (
        Server(answer) as server,
        make("t", base_url=server.url, retry=Retry(base=0)) as drift,
    ):
        assert await drift.conversations.attachment(7) == body
        assert await drift.conversations.download_attachment(7, path) == size
    assert path.read_bytes() == body
    assert len(server.got) == 4


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


@pytest.mark.parametrize(("arrived", "asked"), [(5, "bytes=5-"), (10, "bytes=9-")])
@pytest.mark.parametrize(("write", "number"), [(as_told, None), (refused, errno.ENOSPC)])
async def test_what_a_slow_disk_still_writes_after_an_attempt_is_not_written_again(
    make: Any,
    arrived: int,
    asked: str,
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
        first = int(got.headers.get("range", "bytes=0-")[len("bytes=") : -1])
        return part(first, 9, b"0123456789"[first:]) if first else WHOLE

    async with (
        Server(answer) as server,
        make("t", base_url=server.url, retry=Retry(base=0), attempt_timeout=0.1) as drift,
    ):
        call = drift.conversations.download_attachment(7, path)
        if number is None:
            assert await call == 10
            assert path.read_bytes() == b"0123456789"
        else:
            with pytest.raises(OSError, match="No space left") as caught:
                await call
            assert caught.value.errno == number
            assert list(tmp_path.iterdir()) == []
    assert [got.headers.get("range") for got in server.got] == [None, asked]


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
