"""Comparison of the events that came in with the events that were sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from .. import Hit, Identify, Track
from .report import Box, Difference

Event: TypeAlias = tuple[str, Mapping[str, Any]]
"""Kind and JSON value of an event."""


def compare_events(sent: Iterable[Identify | Track | Hit], box: Box, api: str) -> list[Difference]:
    """Return the users whose events did not all come in once, in order, and as sent."""
    came: defaultdict[str, list[Event]] = defaultdict(list)
    for one in box.events(api):
        came[one.user].append((one.kind, _without_organisation(one.value)))
    expected: defaultdict[str, list[Event]] = defaultdict(list)
    for item in sent:
        expected[str(item.user_id)].append(_as_received(item))
    return [
        Difference(user, f"{api} events")
        for user, events in expected.items()
        if came[user] != events
    ]


def _without_organisation(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Remove the organisation, which the client adds; the sandbox accepts its own only."""
    return {key: item for key, item in value.items() if key != "orgId"}


def _as_received(item: Identify | Track | Hit) -> Event:
    """Return the event as the server must receive it."""
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
