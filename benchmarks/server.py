"""A loopback server that costs next to nothing: canned bodies over HTTP/1.1 with keep-alive.

Run as a program it prints its port, and ends when its standard input does. The first argument says
for how many seconds each reply is held back, the second which share of the requests is refused, at
random.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

ATTRIBUTES: dict[str, Any] = {
    "_END_USER_VERSION": 14,
    "_calculated_version": 14,
    "_classification": "Engaged",
    "email": "ada.lovelace@example.com",
    "externalId": "u-8c1f",
    "first_name": "Ada",
    "last_name": "Lovelace",
    "name": "Ada Lovelace",
    "phone": "+44 20 7946 0958",
    "employment_name": "Analytical Ltd",
    "employment_title": "Engineer",
    "industry": "Software",
    "plan": "team",
    "seats": 25,
    "score": 87.5,
    "trial": False,
    "tags": [{"name": "beta", "color": "EBEBEB"}],
    "events": {},
    "socialProfiles": {},
    "start_date": 1709652334141,
    "last_active": 1718720611021,
    "last_contacted": None,
    "ip": "203.0.113.24",
    "city": "London",
    "country": "United Kingdom",
    "recent_medium": "organic",
    "recent_source": "search",
    "recent_referer_url": "https://www.example.org/search?q=engines",
    "recent_entrance_page_url": "https://www.example.com/pricing/teams?utm_source=search",
    "last_context_location": '{"city":"London","latitude":51.5,"zone":"Europe/London"}',
}

CONTACT = {
    "id": 7,
    "createdAt": 1709652334027,
    "attributes": ATTRIBUTES,
    "leadStage": "qualified",  # not documented, so it has to be kept
}

CONVERSATIONS = [
    {
        "id": 3_000_000 + n,
        "status": "open",
        "contactId": 1_000_000 + n,
        "inboxId": 12,
        "createdAt": 1709652334027 + n,
        "updatedAt": 1709652934027 + n,
        "participants": [21, 22],
        "conversationTags": [{"name": "sales", "color": "EBEBEB"}],
        "relatedPlaybookId": None,
    }
    for n in range(100)
]


def canned(value: Any, status: str = "200 OK") -> bytes:
    """Return a whole reply with *value* as its body."""
    body = json.dumps(value, separators=(",", ":")).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}X-Request-Id: 0f4c1d\r\n\r\n".encode() + body


def page_of_walk(path: bytes) -> bytes:
    """Return a page of a walk that has no end: 25 conversations, and where the next ones are."""
    number = int(path.partition(b"page_token=")[2].partition(b"&")[0] or b"0")
    rows = [{**row, "id": 25 * number + n + 1} for n, row in enumerate(CONVERSATIONS[:25])]
    following = f"https://api.drift.com/conversations/list?page_token={number + 1}"
    return canned({"data": rows, "links": {"next": following}})


REPLIES = {
    b"conversations": canned({"data": CONVERSATIONS, "pagination": {"more": False}}),
    b"users": canned({"data": [{"id": n, "name": f"User {n}"} for n in range(20)]}),
}
OTHERWISE = canned({"data": CONTACT})
REFUSAL = canned({"error": {"type": "rate_limit", "message": "by chance"}}, "429 Too Many Requests")
# JSON takes blanks after a number, so that a contact's reply is always of one length.
BEFORE_ID, AFTER_ID = canned({"data": {**CONTACT, "id": 10**11}}).split(b"%d" % 10**11)


Reply = Callable[[bytes], bytes]
"""Returns the whole reply to a request for a path."""


class Exchange(asyncio.Protocol):
    """One connection: finds where a request ends, and answers by the first word of its path."""

    def __init__(self, delay: float, reply: Reply) -> None:
        self._waiting = b""
        self._delay = delay
        self._reply = reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer all requests that are complete."""
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            end += 4
            if not self._waiting.startswith(b"GET"):
                end += _body_length(self._waiting[:end])
                if len(self._waiting) < end:
                    return
            path = self._waiting.split(b" ", 2)[1]
            self._waiting = self._waiting[end:]
            if self._delay:
                loop = asyncio.get_running_loop()
                loop.call_later(self._delay, self._transport.write, self._reply(path))
            else:
                self._transport.write(self._reply(path))


def _reply(path: bytes) -> bytes:
    if path == b"/cpu":
        return canned(time.process_time())
    if path.startswith(b"/walk/"):
        return page_of_walk(path)
    name, _, rest = path[1:].partition(b"/")
    if rest.isdigit():
        return b"%s%-12s%s" % (BEFORE_ID, rest, AFTER_ID)
    return REPLIES.get(name.partition(b"?")[0], OTHERWISE)


def refusing(share: float, seed: int = 12) -> Reply:
    """Return what refuses a share of the requests, by the same chances in each run."""
    chance = random.Random(seed).random

    def reply(path: bytes) -> bytes:
        return REFUSAL if chance() < share else _reply(path)

    return reply


def _body_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


async def serve(delay: float = 0.0, refused: float = 0.0) -> None:
    """Listen on a free port until the parent process is gone."""
    loop = asyncio.get_running_loop()
    reply = refusing(refused) if refused else _reply
    server = await loop.create_server(lambda: Exchange(delay, reply), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def end_with_parent() -> None:
    """End this process as soon as its standard input ends."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Serve."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    asyncio.run(serve(*map(float, sys.argv[1:])))


if __name__ == "__main__":
    main()
