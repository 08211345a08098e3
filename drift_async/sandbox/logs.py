"""Logs of requests and of accepted events. Both are safe to use from any thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs

from .types import Json

APIS: Final = ("drift", "segmentstream")


@attrs.frozen
class Seen:
    """One request as it arrived. `status` is None when no reply went out."""

    method: str
    raw_path: str
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    body: bytes
    operation: str | None
    status: int | None = None
    applied: bool = False


class RequestLog:
    """The last *keep* requests in order of arrival; ``count`` is the number of all."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._seen: dict[int, Seen] = {}
        self._lock = threading.Lock()
        self.count = 0

    def add(self, seen: Seen) -> int:
        """Log a request and return its number, counted from 1."""
        with self._lock:
            self.count += 1
            self._seen[self.count] = seen
            if len(self._seen) > self._keep:
                del self._seen[next(iter(self._seen))]
            return self.count

    def answered(self, number: int, status: int | None, applied: bool) -> None:
        """Note the answer to a request; *status* None means that no reply goes out."""
        with self._lock:
            if number in self._seen:
                self._seen[number] = attrs.evolve(
                    self._seen[number], status=status, applied=applied
                )

    def kept(self) -> list[Seen]:
        """Return the kept requests."""
        with self._lock:
            return list(self._seen.values())

    def forget(self) -> None:
        """Drop the kept requests; the count goes on."""
        with self._lock:
            self._seen.clear()


@attrs.frozen
class Event:
    """One event as it was accepted.

    `api` is "drift" or "segmentstream", `kind` "identify" or "track", `user` the user's id as text
    (else the company's, or the anonymous one) and `value` the JSON object as it came.
    """

    api: str
    kind: str
    user: str
    value: Json = attrs.field(repr=False)


@attrs.frozen
class EventCounts:
    """How many events one API has accepted, and how many of them were repeats.

    At SegmentStream a repeat has a known `hitId` and is not kept a second time; `changed` counts
    the repeats with other bytes. At Drift, which does not look for repeats, a repeat is an
    identical event, and is kept.
    """

    accepted: int = 0
    repeats: int = 0
    changed: int = 0


NewEvent = tuple[Event, str | bytes | None, bytes]
"""An accepted event, its identity (None: it has none), and a hash of its content."""


class EventLog:
    """The last `keep` events in order of arrival.

    Of older events only the mark that shows a repeat stays, some 200 bytes each.
    """

    def __init__(self, keep: int) -> None:
        self._kept: deque[Event] = deque(maxlen=keep)
        self._known: dict[str, dict[str | bytes, bytes]] = {api: {} for api in APIS}
        self._counts = dict.fromkeys(APIS, EventCounts())
        self._lock = threading.Lock()

    def add(self, api: str, new: Sequence[NewEvent]) -> None:
        """Log accepted events of one API."""
        repeats = changed = 0
        with self._lock:
            known = self._known[api]
            for event, key, mark in new:
                before = None
                if key is not None and (before := known.get(key)) is None:
                    known[key] = mark
                if before is not None:
                    repeats += 1
                    changed += before != mark
                if before is None or api == "drift":
                    self._kept.append(event)
            old = self._counts[api]
            self._counts[api] = EventCounts(
                old.accepted + len(new), old.repeats + repeats, old.changed + changed
            )

    def kept(self, api: str | None, user: str | None) -> list[Event]:
        """Return the kept events of an API and a user (None: of all)."""
        if api is not None:
            self.counts(api)
        with self._lock:
            return [
                event
                for event in self._kept
                if api in (None, event.api) and user in (None, event.user)
            ]

    def counts(self, api: str) -> EventCounts:
        """Return the counts of an API; ValueError if there is no such API."""
        if api not in self._counts:
            raise ValueError(f"api must be one of {', '.join(APIS)}")
        return self._counts[api]

    def forget(self) -> None:
        """Drop the kept events; counts and identities stay."""
        with self._lock:
            self._kept.clear()
