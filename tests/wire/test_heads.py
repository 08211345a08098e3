"""Heads and frames that no server should send, and headers of any text."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from drift_async import (
    CallError,
    ConnectionLostError,
    Drift,
    DriftError,
    OutcomeUnknownError,
    ProtocolError,
    Rate,
    ResponseTooLargeError,
    Retry,
)
from drift_async.core.rate_limit import Limiter
from drift_async.errors import CallInfo, error_from_response
from tests.support.server import Server

OK = b"HTTP/1.1 200 OK\r\n"
END = b"\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
NO_HTTP: Mapping[str, bytes] = {
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "http-2": b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0d\r\n\r\n",
    "zeros": bytes(100),
    "html": b"<html>\r\n\r\n",
    "version": b"HTTP/9.9 200 OK\r\n\r\n",
    "no-status": b"HTTP/1.1 xyz OK\r\n\r\n",
    "long-status": b"HTTP/1.1 9999 OK\r\n\r\n",
    "long-reason": b"HTTP/1.1 200 " + b"a" * 9000 + END,
    "long-name": OK + b"a" * 9000 + b": x" + END,
    "long-value": OK + b"X: " + b"a" * 9000 + END,
    "20,000-headers": OK + b"".join(b"X-%d: 1\r\n" % n for n in range(20_000)) + END,
    "no-colon": OK + b"Xa" + END,
    "blank-in-name": OK + b"X : a" + END,
    "nul": OK + b"X: a\0b" + END,
    "bare-cr": OK + b"X: a\rb" + END,
    "length-negative": OK + b"Content-Length: -5\r\nConnection: close" + END + b"12345",
    "length-plus": OK + b"Content-Length: +5\r\nConnection: close" + END + b"12345",
    "length-text": OK + b"Content-Length: five\r\nConnection: close" + END + b"12345",
    "length-arabic": OK + "Content-Length: ٥\r\nConnection: close".encode() + END + b"12345",
    "length-digits": OK + b"Content-Length: " + b"9" * 5000 + b"\r\nConnection: close" + END,
    "length-list": OK + b"Content-Length: 5, 5\r\nConnection: close" + END + b"12345",
    "chunk-size": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "chunk-negative": CHUNKED + b"-5\r\n{}\r\n0\r\n\r\n",
    "chunk-end": CHUNKED + b"2\r\n{}{}\r\n0\r\n\r\n",
}
AT_ONCE = Retry(base=0)


def info(status: int) -> CallInfo:
    return CallInfo(operation="GET /x", status=status)


@pytest.mark.anyio
@pytest.mark.parametrize("name", NO_HTTP)
async def test_what_is_no_http_is_a_protocol_error_and_never_drifts_own_refusal(
    make: Any, name: str
) -> None:
    async with (
        Server(NO_HTTP[name]) as server,
        make("t", base_url=server.url, retry=AT_ONCE) as drift,
    ):
        with pytest.raises(ProtocolError) as caught:
            await drift.contacts.get(7)
        error: CallError = caught.value
        assert (error.applied, error.attempts, error.status) == (None, 3, None)
        with pytest.raises(OutcomeUnknownError) as unknown:
            await drift.accounts.create(7)
        error = unknown.value
        assert (error.applied, error.attempts, error.reason) == (None, 1, "not_retryable")
        assert unknown.value.failure == "protocol"
        assert len(server.got) == 4


FRAMES: Mapping[str, tuple[bytes, type[CallError]]] = {
    "bad-gzip": (
        OK + b"Content-Encoding: gzip\r\nContent-Length: 8" + END + b"not gzip",
        ConnectionLostError,
    ),
    "chunk-cut": (CHUNKED + b"5\r\n{}", ConnectionLostError),
    "chunk-huge": (CHUNKED + b"7fffffffffffffff\r\n{}", ConnectionLostError),
    "length-short": (OK + b"Content-Length: 9\r\nConnection: close" + END, ConnectionLostError),
    "length-19": (OK + b"Content-Length: " + b"9" * 19 + END, ResponseTooLargeError),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", FRAMES)
async def test_after_a_good_head_it_was_applied_whatever_the_body_is(make: Any, name: str) -> None:
    out, kind = FRAMES[name]
    async with (
        Server(out) as server,
        make("t", base_url=server.url, retry=AT_ONCE) as drift,
    ):
        for call in (drift.contacts.get, drift.accounts.create):
            with pytest.raises(kind) as caught:
                await call(7)
            assert (caught.value.applied, caught.value.status) == (True, 200)


# aiohttp reads with a parser in C or in Python, which differ in what they let through.
LATER = """
import asyncio
from drift_async import CallError, Drift, Retry

async def serve(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
    await asyncio.sleep(0.05)  # so that the head has been read
    writer.write(b"secret\\r\\n{}\\r\\n0\\r\\n\\r\\n")
    await writer.drain()
    writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    async with Drift("t", base_url=url, retry=Retry(attempts=1), attempt_timeout=0.5) as drift:
        try:
            await drift.users.get(7)
        except CallError as error:
            print(type(error).__name__, error.applied, "secret" in f"{error} {error.__context__!r}")
    server.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("extensions", ["", "1"])
def test_a_bad_chunk_behind_a_good_head_is_a_typed_error(extensions: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATER],
        env={**os.environ, "AIOHTTP_NO_EXTENSIONS": extensions},
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout in ("ProtocolError True False\n", "ConnectionLostError True False\n")


# -- any text in a header

Ask = Callable[[bytes, str], "Exception | None"]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """What makes a call that is answered with given bytes, and returns its error."""
    answers: list[bytes] = []

    async def call(method: str) -> Exception | None:
        try:
            await drift.request(method, "/x")
        except Exception as error:
            return error
        return None

    def ask(answer: bytes, method: str = "GET") -> Exception | None:
        answers[:] = [answer]
        # A refusal before must not make this call wait.
        limiters: Any = drift._caller.state.limiters
        limiters["default"] = Limiter(Rate())
        return runner.run(call(method))

    with asyncio.Runner() as runner:
        server = Server(lambda n, got: answers[0])
        runner.run(server.__aenter__())
        drift = Drift("t", base_url=server.url, retry=Retry(attempts=1), attempt_timeout=2)
        runner.run(drift.open())
        yield ask
        runner.run(drift.close())
        runner.run(server.__aexit__())


def judge(error: Exception | None) -> None:
    assert error is None or isinstance(error, DriftError), repr(error)
    if isinstance(error, CallError):
        assert str(error).isprintable()
        assert len(str(error)) < 1000


NAMES = (
    *("Retry-After", "Link", "X-Request-Id", "Location", "Content-Type", "Content-Range"),
    *("Set-Cookie", "Content-Encoding", "Connection", "Date", "Server", "WWW-Authenticate"),
)
STATUSES = (200, 204, 206, 301, 304, 401, 403, 404, 408, 429, 500, 503)
VALUES = st.binary(max_size=200) | st.text("019-.:;,=/ <>\"'nextrelGMTgzip\xe9").map(str.encode)


@given(st.sampled_from(STATUSES), st.lists(st.tuples(st.sampled_from(NAMES), VALUES)))
@example(429, [("Retry-After", b"9" * 200)])
@example(301, [("Location", b"http://[")])
def test_any_text_in_a_header_ends_in_a_value_or_a_typed_error(
    ask: Ask, status: int, headers: list[tuple[str, bytes]]
) -> None:
    lines = [f"{name}: ".encode() + value for name, value in headers]
    lines = [line for line in lines if not set(line) & set(b"\r\n")]
    for method in ("GET", "POST"):
        judge(ask(b"\r\n".join([b"HTTP/1.1 %d X" % status, *lines, b"", b"{}"]), method))


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_end_in_a_value_or_a_typed_error(ask: Ask, head: bytes, body: bytes) -> None:
    for start in (b"", OK, OK + END[2:], CHUNKED):
        if b"content-length" not in head.lower():
            judge(ask(start + head + END + body, "GET"))


@given(
    st.integers(300, 599),
    st.dictionaries(st.sampled_from(NAMES), st.text()),
    st.binary() | st.text().map(lambda text: f'{{"error": {{"message": "{text}"}}}}'.encode()),
)
def test_any_refusal_becomes_a_short_line(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    error = error_from_response(info(status), headers, body, scope="contact_read")
    assert error.status == status
    assert str(error).isprintable()
    assert len(error.message.encode()) <= 600
