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
