"""Events as data for `identify_many` and `track_many`, and reports about a client's events."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs


@attrs.frozen(repr=False, unsafe_hash=False)
class Identify:
    """Arguments of `DriftEvents.identify`, as one item of `identify_many`."""

    user_id: str | int | None = attrs.field(default=None, kw_only=True)
    company_id: str | int | None = attrs.field(default=None, kw_only=True)
    attributes: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    created_at: datetime | None = attrs.field(default=None, kw_only=True)


@attrs.frozen(repr=False, unsafe_hash=False)
class Track:
    """Arguments of `DriftEvents.track`, as one item of `track_many`."""

    event: str
    user_id: str | int | None = attrs.field(default=None, kw_only=True)
    company_id: str | int | None = attrs.field(default=None, kw_only=True)
    attributes: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    created_at: datetime | None = attrs.field(default=None, kw_only=True)


@attrs.frozen(repr=False, unsafe_hash=False)
class Hit:
    """Arguments of `SegmentStream.track`, as one item of `track_many`."""

    event: Mapping[str, Any]
    user_id: str | None = attrs.field(default=None, kw_only=True)
    anonymous_id: str | None = attrs.field(default=None, kw_only=True)
    hit_id: str | None = attrs.field(default=None, kw_only=True)
    sent_at: datetime | None = attrs.field(default=None, kw_only=True)
    context: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    integrations: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)


@attrs.frozen(kw_only=True)
class EventStats:
    """Counts of a client's events.

    ``accepted == delivered + pending + dead + sum(dropped.values())`` holds at every moment.
    ``recovered`` of the accepted ones were found on disk. ``in_flight`` of the pending ones are
    being sent; all pending ones have ``bytes``. ``dropped`` is by reason, see `Loss`.
    ``undeleted`` of the delivered ones are still in a file, because its disk is full: opening that
    file again would send them again. ``paused_for`` are the seconds until the next request after a
    failure. ``stopped`` says why nothing is sent at all.
    """

    accepted: int
    delivered: int
    pending: int
    dead: int
    dropped: Mapping[str, int]
    recovered: int
    in_flight: int
    bytes: int
    paused_for: float
    stopped: str | None
    undeleted: int = 0


@attrs.frozen(kw_only=True, repr=False)
class DeadEvent:
    """An event that was set aside: ``event`` is the JSON that would have been sent.

    ``reason`` is ``refused``, with the server's ``status``; ``unknown``, where it may or may not
    have been applied; or ``damaged``, where ``event`` is None if it cannot be read.
    """

    operation: str
    reason: str
    status: int | None
    died_at: datetime
    event: Mapping[str, Any] | None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.operation}, {self.reason}, status {self.status}>"


@attrs.frozen(kw_only=True, repr=False)
class Loss:
    """Argument of ``on_drop``: how many events were lost, and why.

    ``reason`` is ``full`` (the outbox or its disk), ``dead_full`` or ``dead_old`` (dead letters
    over the limit in number or age), or ``damaged`` (a file of the outbox). ``detail`` is a
    sentence for people.
    """

    reason: str
    count: int
    detail: str

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.count}, {self.reason}: {self.detail}>"
