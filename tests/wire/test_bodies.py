"""Bodies without end, bodies that blow up, and bodies that are no JSON."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import anyio.from_thread
import pytest

from drift_async import (
    ConnectionLostError,
    DecodeError,
    Drift,
    ProtocolError,
    ResponseTooLargeError,
    Retry,
    ServerError,
)
from drift_async.sandbox import Sandbox
from tests.support.expected_requests import ROWS
from tests.support.gaps import Gaps
from tests.support.server import Server, reply

TOKEN = "drift-secret-token-0123456789abcdefghijklmnop"
EMAIL = "ada.lovelace@private.example"
NAME = "Ada Lovelace"
PERSONAL = (EMAIL, "lovelace", "Lovelace", "415 555", TOKEN, TOKEN[:20])
MIB = 1024 * 1024


@asynccontextmanager
async def opened(make: Callable[..., Any], url: str, **settings: Any) -> AsyncIterator[Any]:
    retry = Retry(base=0, throttled_base=0)
    async with make(TOKEN, base_url=url, **{"retry": retry, **settings}) as drift:
        yield drift


# -- without end

# One mebibyte of zeros in a kilobyte, again and again.
_DEFLATE = zlib.compressobj(9, zlib.DEFLATED, -15)
MEBIBYTE = _DEFLATE.compress(bytes(MIB)) + _DEFLATE.flush(zlib.Z_FULL_FLUSH)
GZIP = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
EMPTY_MEMBER = GZIP + b"\x03" + bytes(9)
BOMBS: Mapping[str, bytes] = {
    "gzip": reply(GZIP + MEBIBYTE * 512, Content_Encoding="gzip"),
    "members": reply(gzip.compress(bytes(4096)) * 20_000, Content_Encoding="gzip"),
    "deflate": reply(b"\x78\x9c" + MEBIBYTE * 512, Content_Encoding="deflate"),
    "raw-deflate": reply(MEBIBYTE * 512, Content_Encoding="deflate"),
}
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"1000\r\n" + b" " * 4096 + b"\r\n"
ENDLESS: Mapping[str, tuple[bytes, bytes]] = {
    **{name: (bomb, b"") for name, bomb in BOMBS.items()},
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000001\r\n\r\n", b""),
    "huge-length": (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2**63 - 1), b""),
    "chunked": (CHUNKED, CHUNK),
    "till-closed": (b"HTTP/1.1 200 OK\r\n\r\n", b" " * 4096),
}


@contextmanager
def elsewhere(answer: bytes, again: bytes = b"") -> Iterator[str]:
    """Run a server on a thread of its own, and give its address: its work does not count here."""
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Server(answer, again=again)) as server,
    ):
        yield server.url


@pytest.mark.anyio
@pytest.mark.parametrize("call", [("users.get", 7), ("accounts.create", 7)])
@pytest.mark.parametrize("name", ENDLESS)
async def test_a_body_over_the_bound_is_not_read(
    make: Any, name: str, call: tuple[str, int]
) -> None:
    head, again = ENDLESS[name]
    async with (
        Server(head, again=again) as server,
        opened(make, server.url, max_body=1_000_000) as drift,
    ):
        with pytest.raises(ResponseTooLargeError, match="1000000") as caught:
            await attrgetter(call[0])(drift)(call[1])
        error = caught.value
        assert (error.applied, error.status, error.attempts) == (True, 200, 1)
        assert len(server.got) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("name", [*BOMBS, "chunked", "till-closed"])
async def test_a_body_over_the_bound_does_not_hold_the_loop(name: str) -> None:
    with elsewhere(*ENDLESS[name]) as url:
        async with Drift("t", base_url=url) as drift, Gaps() as gaps:
            with pytest.raises(ResponseTooLargeError):
                await drift.users.get(7)
            with pytest.raises(ResponseTooLargeError):
                await drift.conversations.attachment(7)
    assert gaps.longest < 0.05


@pytest.mark.anyio
@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip, br", "\xe4"])
async def test_a_coding_that_was_not_asked_for_is_refused(make: Any, coding: str) -> None:
    answer = reply(gzip.compress(b"{}"), Content_Encoding=coding)
    async with Server(answer) as server, opened(make, server.url) as drift:
        for call in (drift.users.get, drift.conversations.attachment, drift.accounts.create):
            with pytest.raises(ProtocolError, match="not asked for") as caught:
                await call(7)
            assert (caught.value.applied, caught.value.status) == (True, 200)
        assert "br" not in server.got[0].headers["accept-encoding"]


@pytest.mark.anyio
@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw-deflate"])
@pytest.mark.parametrize("framing", ["length", "chunked", "till-closed"])
async def test_a_compressed_body_that_ends_early_is_an_error(
    make: Any, coding: str, framing: str, tmp_path: Path
) -> None:
    text = b'{"data": {"id": 7}}' + bytes(f"{list(range(1000))}", "ascii")
    deflate = zlib.compressobj(wbits={"gzip": 31, "deflate": 15, "raw-deflate": -15}[coding])
    whole = deflate.compress(text) + deflate.flush()
    coding = coding.removeprefix("raw-")
    headers = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: {coding}\r\n"
    for half in (whole[: len(whole) // 2], whole[:-1]):
        head = {
            "length": f"{headers}Content-Length: {len(half)}\r\n\r\n".encode() + half,
            "chunked": f"{headers}Transfer-Encoding: chunked\r\n\r\n{len(half):x}\r\n".encode()
            + half
            + b"\r\n0\r\n\r\n",
            "till-closed": f"{headers}\r\n".encode() + half,
        }[framing]
        async with Server(head) as server, opened(make, server.url, retry=Retry(attempts=1)) as d:
            talks, file = d.conversations, tmp_path / "file"
            calls = [partial(talks.transcript, 7), partial(talks.attachment, 7)]
            for call in (*calls, partial(talks.download_attachment, 7, file)):
                with pytest.raises(ConnectionLostError, match="ends early") as caught:
                    await call()
                assert (caught.value.applied, caught.value.status) == (True, 200)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.anyio
@pytest.mark.parametrize("members", [20_000, 200_000])
async def test_many_empty_members_of_gzip_are_soon_refused(members: int) -> None:
    with elsewhere(reply(EMPTY_MEMBER * members, Content_Encoding="gzip")) as url:
        async with Drift("t", base_url=url, retry=Retry(attempts=1)) as drift, Gaps() as gaps:
            began = time.thread_time()
            with pytest.raises(ConnectionLostError) as caught:
                await drift.users.get(7)
            assert time.thread_time() - began < 0.5
    assert (caught.value.applied, caught.value.status) == (True, 200)
    assert gaps.longest < 0.05


GROWTH = """
import asyncio, pathlib, re, sys
from drift_async import Drift, ResponseTooLargeError

def most():  # of this program alone; what getrusage tells begins with the parent's
    return int(re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

async def main():
    async with Drift("t", base_url=sys.argv[1]) as drift:
        before = most()
        for _ in range(5):
            try:
                await drift.users.get(7)
            except ResponseTooLargeError:
                pass
            else:
                sys.exit("was read")
        print(most() - before)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", [*BOMBS, "chunked", "till-closed"])
def test_a_body_over_the_bound_takes_little_memory(name: str) -> None:
    with elsewhere(*ENDLESS[name]) as url:
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, url], capture_output=True, text=True, check=True
        )
    assert int(done.stdout) < 64 * 1024


@pytest.mark.anyio
async def test_a_refusal_with_an_endless_body_is_known_by_its_head(make: Any) -> None:
    head = CHUNKED.replace(b"200 OK", b"501 No")
    async with (
        Server(head, again=CHUNK) as server,
        opened(make, server.url, max_body=1000) as drift,
    ):
        with pytest.raises(ServerError) as caught:
            await drift.users.get(7)
        assert (caught.value.status, len(server.got)) == (501, 1)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["length", "chunked", "till-closed"])
async def test_an_attachment_has_a_bound_of_its_own(make: Any, name: str, tmp_path: Path) -> None:
    head, again = ENDLESS[name]
    async with Server(head, again=again) as server, opened(make, server.url) as drift:
        with pytest.raises(ResponseTooLargeError):
            await drift.conversations.attachment(7, max_bytes=10_000)
        with pytest.raises(ResponseTooLargeError):
            await drift.conversations.download_attachment(7, tmp_path / "file", max_bytes=10_000)
        assert len(server.got) == 2
    assert list(tmp_path.iterdir()) == []


WHO = f'"{EMAIL}", "{TOKEN}", {{"name": "{NAME}", "phone": "+1 415 555 0199"}}'
NOT_JSON: Mapping[str, tuple[bytes, str]] = {
    "html": (f"<html><p>{EMAIL} {TOKEN}</p></html>".encode(), "text/html"),
    "empty": (b"", "application/json"),
    "blank": (b" \r\n", "application/json"),
    "latin-1": (f'{{"data": ["ö", {WHO}]}}'.encode("latin-1"), "application/json;charset=latin1"),
    "utf-16": (f'{{"data": [{WHO}]}}'.encode("utf-16"), "application/json; charset=utf-16"),
    "truncated": (f'{{"data": [{WHO}'.encode(), "application/json"),
    "two": (b'{"data": {}} {}', "application/json"),
    "nan": (f'{{"data": NaN, "x": [{WHO}]}}'.encode(), "application/json"),
    "infinity": (b'{"data": [-Infinity]}', "application/json"),
    "too-large-number": (b'{"data": 1e999}', "application/json"),
    "deep": (b"[" * 200_000, "application/json"),
    "deep-and-whole": (b'{"data":' * 1100 + b"1" + b"}" * 1100, "application/json"),
    "bom": (b'\xef\xbb\xbf{"data": {}}', "application/json"),
    "lone-surrogate": (f'{{"data": ["\\ud800", {WHO}]}}'.encode(), "application/json"),
    "single-quotes": (b"{'data': {}}", "application/json"),
    "unknown-charset": (b"\xff\xfe\xfd", "application/json; charset=nonsense"),
}
# The first row of each operation that reads JSON.
JSON_CALLS = {row.call: row for row in reversed(ROWS) if not row.faults}
for _name in ("request", "conversations.transcript", "conversations.attachment", "scim.delete"):
    del JSON_CALLS[_name]


@pytest.mark.anyio
@pytest.mark.parametrize("name", NOT_JSON)
async def test_a_reply_that_is_no_json_is_a_typed_error_for_every_call(
    make: Any, name: str
) -> None:
    body, content_type = NOT_JSON[name]
    headers = {"Content-Type": content_type}
    assert len(JSON_CALLS) == 42
    async with Sandbox(token=TOKEN) as box, opened(make, box.url) as drift:
        box.fail("*", status=200, body=body, headers=headers, times=None)
        for call, row in JSON_CALLS.items():
            box.forget()
            with pytest.raises(DecodeError) as caught:
                await walk_row(drift, row)
            error = caught.value
            assert (error.applied, error.status, error.attempts) == (True, 200, 1), call
            assert error.path.startswith("$")
            assert len(box.seen) == 1
            text = f"{error} {error.args} {vars(error)}"
            shown = f"({content_type.partition(';')[0]}, {len(body):,} bytes) at $"
            assert str(error).endswith(shown)
            assert not {part for part in PERSONAL if part in text}


async def walk_row(drift: Any, row: Any) -> Any:
    result = attrgetter(row.call)(drift)(*row.args, **row.kwargs)
    return await (result.collect() if hasattr(result, "collect") else result)


@pytest.mark.anyio
async def test_a_transcript_that_is_not_utf_8_is_a_typed_error(drift: Any, box: Sandbox) -> None:
    box.fail("conversations.transcript", status=200, body=b"Dec 16: M\xfcller\n")
    with pytest.raises(DecodeError) as caught:
        await drift.conversations.transcript(4_300_000_000)
    assert caught.value.applied is True
