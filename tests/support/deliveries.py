"""Deliveries as Drift makes them: the documented payloads, their envelopes and their tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TOKEN = "verification-token-0123456789abcdef"
PAYLOADS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "payloads" / "webhooks.json").read_bytes()
)


def envelope(kind: str, **changes: Any) -> dict[str, Any]:
    """Return a delivery's JSON without the token; *changes* replace parts of its data."""
    return {"orgId": 1351205, "type": kind, "data": {**PAYLOADS[kind], **changes}}


def body(kind: str = "new_message", token: Any = TOKEN, **changes: Any) -> bytes:
    """Return a delivery as bytes."""
    return json.dumps({**envelope(kind, **changes), "token": token}).encode()


def headers(token: str = TOKEN) -> dict[str, str]:
    return {"X-Verification-Token": token}


class Clock:
    """Says what it is told to."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


HEADER = "X-Verification-Token"

BARE = json.dumps(envelope("new_message")).encode()

FORGERIES: dict[str, tuple[bytes, Any]] = {
    "no token": (BARE, {}),
    "wrong header": (BARE, headers("x" * len(TOKEN))),
    "wrong body": (body(token="x" * len(TOKEN)), {}),
    "right header, wrong body": (body(token="x" * len(TOKEN)), headers()),
    "wrong header, right body": (body(), headers("x" * len(TOKEN))),
    "empty header, right body": (body(), headers("")),
    "right header, empty body token": (body(token=""), headers()),
    "all but the last character": (body(token=TOKEN[:-1]), headers(TOKEN[:-1])),
    "one character more": (body(token=TOKEN + "0"), headers(TOKEN + "0")),
    "upper case": (body(token=TOKEN.upper()), headers(TOKEN.upper())),
    "blank around it": (body(token=f" {TOKEN}\n"), headers(f" {TOKEN}")),
    "right header, then a wrong one": (BARE, [(HEADER, TOKEN), (HEADER, "x")]),
    "wrong header, then a right one": (BARE, [(HEADER, "x"), (HEADER, TOKEN)]),
    "both in one header": (BARE, headers(f"{TOKEN}, x")),
    "right, then wrong in the body": (BARE[:-1] + f',"token":"{TOKEN}","token":"x"}}'.encode(), {}),
    "token in the data": (json.dumps(envelope("new_message", token=TOKEN)).encode(), {}),
    "token in another header": (BARE, {"X-Token": TOKEN, "Authorization": f"Bearer {TOKEN}"}),
    "look-alike": (body(token=TOKEN.replace("e", "е")), {}),
    "lone surrogate": (BARE, headers(TOKEN[:-1] + "\ud800")),
}
