"""Events as data, for `identify_many` and `track_many`; they are checked when they are accepted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs


@attrs.frozen(repr=False, unsafe_hash=False)
class Identify:
    """What `DriftEvents.identify` takes, as one item of many."""

    user_id: str | int | None = attrs.field(default=None, kw_only=True)
    company_id: str | int | None = attrs.field(default=None, kw_only=True)
    attributes: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    created_at: datetime | None = attrs.field(default=None, kw_only=True)


@attrs.frozen(repr=False, unsafe_hash=False)
class Track:
    """What `DriftEvents.track` takes, as one item of many."""

    event: str
    user_id: str | int | None = attrs.field(default=None, kw_only=True)
    company_id: str | int | None = attrs.field(default=None, kw_only=True)
    attributes: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    created_at: datetime | None = attrs.field(default=None, kw_only=True)


@attrs.frozen(repr=False, unsafe_hash=False)
class Hit:
    """What `SegmentStream.track` takes, as one item of many."""

    event: Mapping[str, Any]
    user_id: str | None = attrs.field(default=None, kw_only=True)
    anonymous_id: str | None = attrs.field(default=None, kw_only=True)
    hit_id: str | None = attrs.field(default=None, kw_only=True)
    sent_at: datetime | None = attrs.field(default=None, kw_only=True)
    context: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    integrations: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
