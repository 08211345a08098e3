"""Whether the events that have come in are those that were sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from .. import Hit, Identify, Track
from .report import Box, Difference

Told: TypeAlias = tuple[str, Mapping[str, Any]]
"""Kind and JSON value of an event."""


def compare_events(sent: Iterable[Identify | Track | Hit], box: Box, api: str) -> list[Difference]:
    """Return the users whose events did not all come in: once, in order, and as they were sent."""
    came: defaultdict[str, list[Told]] = defaultdict(list)
    for one in box.events(api):
        came[one.user].append((one.kind, _without_organisation(one.value)))
    expected: defaultdict[str, list[Told]] = defaultdict(list)
    for item in sent:
        expected[str(item.user_id)].append(_told(item))
    return [
        Difference(user, f"{api} events") for user, told in expected.items() if came[user] != told
    ]


def _without_organisation(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out what the client adds; the sandbox takes its own organisation only."""
    return {key: item for key, item in value.items() if key != "orgId"}


def _told(item: Identify | Track | Hit) -> Told:
    """Return what the server must get."""
    if isinstance(item, Hit):
        event = {**item.event, "user": {"userId": item.user_id}}
        return "track", {"hitId": item.hit_id, "sentAt": _iso(item.sent_at), "event": event}
    value = {
        "userId": item.user_id,
        "attributes": item.attributes,
        "createdAt": _milliseconds(item.created_at),
    }
    if isinstance(item, Track):
        return "track", {**value, "event": item.event}
    return "identify", value


def _iso(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z") if moment else ""


def _milliseconds(moment: datetime | None) -> int:
    return round(moment.timestamp() * 1000) if moment else 0
