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
    Drift,
    NotFoundError,
    ResponseTooLargeError,
    Retry,
    Sandbox,
)
from drift_async.core.download import missing

from .server import Server, reply

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


def part(first: int, last: int, body: bytes, total: object = 10) -> bytes:
    place = f"bytes {first}-{last}/{total}"
    return reply(body, "206 Partial Content", Content_Range=place, Connection="close")


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
