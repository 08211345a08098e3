"""Events as the bytes that are sent: checked and encoded once, on acceptance."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from ..core import validate
from ..core.strict_json import MAX_DEPTH, dumps, to_ms, to_plain_json
from ..errors import InputError
from .storage import QueuedEvent

MAX_EVENT = 65_536
"""Bytes of one encoded event. SegmentStream's own limit; for Drift, which documents none, ours."""

MAX_ID = 1024
MAX_HIT_ID = 128
SAFE = 2**53
"""Integers beyond are not exact in JavaScript, which reads the events."""

_SPELLED = {"userId": "user_id", "companyId": "company_id"}
_TOO_LONG = f"must be from -{SAFE} to {SAFE}, which JavaScript reads exactly; send others as text"
_FLAT = "must be text, number, bool or datetime: attributes are flat"

IDENTIFY, TRACK = 0, 1


def _encode(value: dict[str, Any], option: int) -> bytes:
    return dumps(value) + b"\n"


try:
    import orjson
except ImportError:
    encode: Callable[..., bytes] = _encode
    OPTION = 0
else:
    encode = orjson.dumps
    OPTION = orjson.OPT_APPEND_NEWLINE


def encode_event(
    kind: int,
    org_id: int,
    event: str | None,
    user_id: str | int | None,
    company_id: str | int | None,
    attributes: Mapping[str, Any] | None,
    created_at: datetime | None,
) -> QueuedEvent:
    """Return an event of Drift, by default of now; what identifies has no name."""
    field, owner = _owner(user_id, company_id)
    if created_at is None:
        moment = time.time_ns() // 1_000_000
    else:
        moment = milliseconds("created_at", created_at)
    value: dict[str, Any] = {"orgId": org_id, field: owner, "createdAt": moment}
    if kind == TRACK:
        value["event"] = name = _text("event", event)
        if name.startswith("page"):
            raise InputError("event", "must not begin with 'page': such names are Drift's own")
    if attributes is not None:
        value["attributes"] = _flat(attributes)
    return _row(kind, value, owner)


def encode_hit(
    event: Mapping[str, Any],
    user_id: str | None,
    anonymous_id: str | None,
    hit_id: str,
    sent_at: str,
    context: Mapping[str, Any] | None,
    integrations: Mapping[str, Any] | None,
) -> QueuedEvent:
    """Return a SegmentStream event."""
    content = _free("event", event)
    user, owner = _user(content.get("user", {}), user_id, anonymous_id)
    value = {"hitId": hit_id, "sentAt": sent_at, "event": {**content, "user": user}}
    if context is not None:
        value["context"] = _free("context", context)
    if integrations is not None:
        value["integrations"] = _free("integrations", integrations)
    return _row(0, value, owner)


def _user(user: Any, user_id: str | None, anonymous_id: str | None) -> tuple[dict[str, Any], str]:
    """Return the user of an event with the ids that were given apart, and by which order holds."""
    if type(user) is not dict:
        raise InputError("event.user", "must be a mapping")
    owner = None
    for field, name, given in (
        ("anonymous_id", "anonymousId", anonymous_id),
        ("user_id", "userId", user_id),
    ):
        own = user.get(name)
        if given is not None:
            if own is not None and own != given:
                raise InputError(field, f"differs from event.user.{name}")
            own = _text(field, given)
            user = {**user, name: own}
        elif own is not None:
            _text(f"event.user.{name}", own)
        owner = own or owner
    if owner is None:
        raise InputError("user_id", "is needed, or anonymous_id")
    return user, owner


def _row(kind: int, value: dict[str, Any], owner: str | int) -> QueuedEvent:
    """Return an event with the key by which order holds, and its bytes."""
    try:
        # A result of orjson keeps a buffer of 1 to 4 KB alive as long as it lives. A slice is a
        # copy of its true size, but only if it leaves something off.
        body = encode(value, option=OPTION)[:-1]
    except (TypeError, ValueError):
        for name, item in value.items():
            to_plain_json(
                _SPELLED.get(name, name), item
            )  # raises with the place of a lone surrogate
        raise
    if len(body) > MAX_EVENT:
        raise InputError("event", f"has {len(body)} bytes encoded; at most {MAX_EVENT} are taken")
    return QueuedEvent(kind, zlib.crc32(str(owner).encode()), body)


def _owner(user_id: str | int | None, company_id: str | int | None) -> tuple[str, str | int]:
    name, field, owner = "userId", "user_id", user_id
    if company_id is not None:
        if user_id is not None:
            raise InputError("company_id", "must not be given together with user_id")
        name, field, owner = "companyId", "company_id", company_id
    if owner is None:
        raise InputError("user_id", "is needed, or company_id")
    if isinstance(owner, int):
        return name, validate.integer(field, owner, 0, SAFE)
    return name, _text(field, owner)


def _text(field: str, value: str | None) -> str:
    """Return a text of 1 to 1024 characters; encoding it finds a lone surrogate."""
    if type(value) is str and 0 < len(value) <= MAX_ID and not value.isspace():
        return value
    return validate.text(field, value, most=MAX_ID)


def _flat(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as plain JSON data, of which none is null, a list or a map."""
    if not isinstance(attributes, Mapping):
        raise InputError("attributes", "must be a mapping")
    return {
        name if type(name) is str else _name("attributes", name): item
        if _is_plain(item)
        else _attribute(name, item)
        for name, item in attributes.items()
    }


def _name(field: str, name: object) -> str:
    if not isinstance(name, str):
        raise InputError(field, "must have texts as keys")
    return str.__str__(name)


def _is_plain(value: object) -> bool:
    """Return whether a value can be encoded as it is, but for a lone surrogate."""
    kind = type(value)
    if kind is str or kind is bool:
        return True
    return (kind is int or kind is float) and -SAFE <= value <= SAFE  # type: ignore[operator]


def _attribute(name: object, value: object) -> Any:
    field = f"attributes.{name}"
    while isinstance(value, Enum):
        value = value.value
    if value is None:
        raise InputError(field, "must not be None: the API takes no null here")
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        raise InputError(field, _FLAT)
    if isinstance(value, int) and not -SAFE <= value <= SAFE:
        raise InputError(field, _TOO_LONG)
    return to_plain_json(field, value)


def _free(field: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a free-form map of SegmentStream as plain JSON data; times become ISO 8601."""
    if not isinstance(value, Mapping):
        raise InputError(field, "must be a mapping")
    made: dict[str, Any] = _converted(field, value, MAX_DEPTH)
    return made


def _converted(field: str, value: Any, depth: int) -> Any:
    if value is None or _is_plain(value):
        return value
    while isinstance(value, Enum):
        value = value.value
    if isinstance(value, datetime):
        return iso(field, value)
    if isinstance(value, int) and not -SAFE <= value <= SAFE:
        raise InputError(field, _TOO_LONG)
    if isinstance(value, Mapping | list | tuple) and not depth:
        raise InputError(field, f"must not be nested over {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {
            _name(field, name): _converted(f"{field}.{name}", item, depth - 1)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_converted(f"{field}[{n}]", item, depth - 1) for n, item in enumerate(value)]
    return to_plain_json(field, value)


def milliseconds(field: str, moment: datetime) -> int:
    """Return an aware datetime as epoch milliseconds that are not negative."""
    return validate.integer(field, to_ms(field, moment))


def iso(field: str, moment: datetime) -> str:
    """Return an aware datetime as ISO 8601 in UTC, with milliseconds."""
    to_ms(field, moment)
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise InputError(field, "must be from the year 1 to 9999 in UTC") from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class HitIds:
    """Makes uuids of version 1, as SegmentStream wants them, that tell no hardware address."""

    def __init__(self) -> None:
        self._last = 0
        # A random node has the multicast bit set, which no hardware address has.
        node = random.SystemRandom().getrandbits(48) | 1 << 40
        clock = random.SystemRandom().getrandbits(14) | 0x8000
        self._tail = f"{clock:04x}-{node:012x}"

    def make(self, now: int) -> str:
        """Return the next one, at *now* in nanoseconds since 1970."""
        # In steps of 100 ns since 15 October 1582.
        stamp = self._last = max(now // 100 + 0x01B21DD213814000, self._last + 1)
        low, middle, high = stamp & 0xFFFFFFFF, stamp >> 32 & 0xFFFF, stamp >> 48 & 0x0FFF | 0x1000
        return f"{low:08x}-{middle:04x}-{high:04x}-{self._tail}"
