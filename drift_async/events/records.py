"""What users are told of their events: counts, losses, and what was set aside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class EventStats:
    """What has become of the events of a client.

    ``accepted == delivered + pending + dead + sum(dropped.values())`` holds at every moment.
    ``recovered`` of the accepted ones were found on disk. ``in_flight`` of the pending ones are
    being sent; all pending ones have ``bytes``. ``dropped`` is by reason, see `Loss`.
    ``paused_for`` are the seconds until the next request after a failure. ``stopped`` says why
    nothing is sent at all.
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


@attrs.frozen(kw_only=True, repr=False)
class DeadEvent:
    """An event that was set aside: ``event`` is what would have been sent.

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
    """What ``on_drop`` is called with: how many events were lost, and why.

    ``reason`` is ``full`` (the outbox or its disk), ``dead_full`` or ``dead_old`` (dead letters
    over the limit in number or age), or ``damaged`` (a file of the outbox). ``detail`` says more,
    in words.
    """

    reason: str
    count: int
    detail: str

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.count}, {self.reason}: {self.detail}>"
