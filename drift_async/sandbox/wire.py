"""Conversions between HTTP and the dispatcher: targets, bodies, responses."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

from aiohttp import web
from multidict import CIMultiDict

from .call import MAX_BODY
from .types import Reply


def latin(text: str) -> str:
    """Return one character for each byte of text that the parser decoded as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def split(target: str, host: str) -> tuple[list[str], dict[str, list[str]], bool]:
    """Return the decoded path segments, the query, and whether the path is SCIM's.

    SegmentStream and Drift both have a path /track: the host of SegmentStream stands for a prefix.
    """
    path, _, text = target.partition("?")
    if not path.startswith("/"):  # a client behind a proxy sends the whole URL
        path = "/" + path.partition("://")[2].partition("/")[2]
    segments = path.removesuffix("/").split("/")[1:]
    if "%" in path:
        segments = [unquote(segment) for segment in segments]
    if host.startswith("track.segmentstream.com"):
        segments.insert(0, "segmentstream")
    query: dict[str, list[str]] = {}
    for key, value in parse_qsl(text, keep_blank_values=True) if text else ():
        query.setdefault(key, []).append(value)
    scim = segments[1:2] if segments[:1] == ["v1"] else segments[:1]
    return segments, query, scim == ["scim"]


async def read(request: web.BaseRequest, body: bytearray) -> None:
    """Read the body; stop when it is over `MAX_BODY`."""
    if not request.body_exists:
        return
    while len(body) <= MAX_BODY and (chunk := await request.content.readany()):
        body += chunk


def respond(reply: Reply, request_id: str | None = None) -> web.Response:
    """Return the response to send; a scripted X-Request-Id goes before `request_id`."""
    headers = CIMultiDict(reply.headers)
    if request_id:
        headers.setdefault("X-Request-Id", request_id)
    body = reply.payload()
    if body or reply.status not in (204, 302, 304):
        headers.setdefault("Content-Type", reply.content_type)
    return web.Response(status=reply.status, body=body, headers=headers)
