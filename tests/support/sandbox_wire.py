"""A raw HTTP client: literal text out, what came back in; and exact shapes of JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import attrs

from drift_async.sandbox import Sandbox


@attrs.frozen
class Answer:
    """What came back; `whole` is False when the connection ended too early."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def exchange(box: Sandbox | str, text: bytes) -> bytes:
    """Write bytes, and read one answer, or what comes before the connection ends.

    A text in place of the sandbox is its URL.
    """
    url = box if isinstance(box, str) else box.url
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(text)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            size = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
            return head + await reader.readexactly(sum(size))
        except asyncio.IncompleteReadError as error:
            return (b"" if error.expected is None else head) + error.partial
    finally:
        writer.close()


def request_text(line: str, body: str | bytes | None, token: str | None, extra: str) -> bytes:
    """A request with no header that is not needed."""
    text = f"{line} HTTP/1.1\r\nHost: driftapi.com\r\n"
    if token is not None:
        text += f"Authorization: Bearer {token}\r\n"
    payload = body.encode() if isinstance(body, str) else body
    if payload is not None:
        text += f"Content-Length: {len(payload)}\r\n"
    return (text + extra + "\r\n").encode() + (payload or b"")


async def ask(
    box: Sandbox | str,
    line: str,
    body: Any = None,
    *,
    token: str | None = "sandbox-token",
    extra: str = "",
) -> Answer:
    """Send `METHOD target` with a body (text or bytes as they are, else JSON)."""
    if body is not None and not isinstance(body, str | bytes):
        body = json.dumps(body)
    return parse(await exchange(box, request_text(line, body, token, extra)))


def parse(raw: bytes) -> Answer:
    """Read an answer from its bytes."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
    return Answer(
        int(first.split(" ")[1]), headers, body, len(body) == int(headers.get("content-length", 0))
    )


def fits(value: Any, shape: Any, where: str = "$") -> None:
    """Assert that a JSON value has exactly this shape; a key with `?` may be absent."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), f"{where} is no object"
        names = {key.removesuffix("?"): inner for key, inner in shape.items()}
        needed = {key for key in shape if not key.endswith("?")}
        assert needed <= value.keys() <= names.keys(), f"{where}: {sorted(value.keys() ^ needed)}"
        for key, inner in value.items():
            fits(inner, names[key], f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), f"{where} is no list"
        for i, inner in enumerate(value):
            fits(inner, shape[0], f"{where}[{i}]")
    elif isinstance(shape, type):
        assert type(value) is shape, f"{where} is {type(value)}"
    else:
        assert value == shape, f"{where} is {value!r}"


NOW = 1_795_000_000.0
