"""Events as the bytes that are sent: checked and encoded once, on acceptance.

The common case is short: a look at each value's type, one `dumps`. Whatever is not plain goes the
long way, which converts it or raises `InputError` with the place.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
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

_SPELLED = {"userId": "user_id", "companyId": "company_id", "hitId": "hit_id"}
_TOO_LONG = f"must be from -{SAFE} to {SAFE}, which JavaScript reads exactly; send others as text"
_TEXTS = frozenset({str})
_FLAT = "must be text, number, bool or datetime: attributes are flat"

IDENTIFY, TRACK = 0, 1


def _encode(value: dict[str, Any], option: int) -> bytes:
    """Return plain JSON data as bytes; TypeError where a key of the attributes is no text."""
    if not _TEXTS.issuperset(map(type, value.get("attributes", ()))):
        raise TypeError("the standard library would make a text of it")
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
    owner: str | int
    if (
        company_id is None
        and type(user_id) is str
        and 0 < len(user_id) <= MAX_ID
        and not user_id.isspace()
    ):
        field, owner = "userId", user_id  # nearly always, so without a call
    else:
        field, owner = _owner(user_id, company_id)
    if created_at is None:
        moment = time.time_ns() // 1_000_000
    else:
        moment = milliseconds("created_at", created_at)
    value: dict[str, Any] = {"orgId": org_id, field: owner, "createdAt": moment}
    if kind == TRACK:
        if type(event) is not str or not 0 < len(event) <= MAX_ID or event.isspace():
            event = validate.text("event", event, most=MAX_ID)
        if event[0] == "p" and event.startswith("page"):
            raise InputError("event", "must not begin with 'page': such names are Drift's own")
        value["event"] = event
    if attributes is not None:
        value["attributes"] = attributes if _is_flat(attributes) else _flat(attributes)
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
    if "user" in content or anonymous_id is not None or user_id is None:
        user, owner = _user(content.get("user", {}), user_id, anonymous_id)
    else:
        owner = _id("user_id", user_id)
        user = {"userId": owner}
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
            own = _id(field, given)
            user = {**user, name: own}
        elif own is not None:
            _id(f"event.user.{name}", own)
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
    except (TypeError, ValueError):  # a lone surrogate, or a key that is no text, or more than that
        for name, item in value.items():
            if name == "attributes":
                item = _flat(item)
            value[name] = to_plain_json(_SPELLED.get(name, name), item)
        body = encode(value, option=OPTION)[:-1]
    if len(body) > MAX_EVENT:
        raise InputError("event", f"has {len(body)} bytes encoded; at most {MAX_EVENT} are taken")
    return QueuedEvent(
        kind, zlib.crc32((owner if type(owner) is str else str(owner)).encode()), body
    )


def _owner(user_id: str | int | None, company_id: str | int | None) -> tuple[str, str | int]:
    if company_id is None:
        if user_id is None:
            raise InputError("user_id", "is needed, or company_id")
        return "userId", _id_or_number("user_id", user_id)
    if user_id is not None:
        raise InputError("company_id", "must not be given together with user_id")
    return "companyId", _id_or_number("company_id", company_id)


def _id_or_number(field: str, value: str | int) -> str | int:
    if isinstance(value, int):
        return validate.integer(field, value, 0, SAFE)
    return _id(field, value)


def _id(field: str, value: str) -> str:
    if type(value) is str and 0 < len(value) <= MAX_ID and not value.isspace():
        return value
    return validate.text(field, value, most=MAX_ID)


def _is_flat(attributes: Mapping[str, Any]) -> bool:
    """Tell whether attributes of the event API can be encoded as they are, but for their names."""
    if type(attributes) is not dict:
        return False
    for item in attributes.values():
        kind = type(item)
        if kind is str or kind is bool:
            continue
        if kind is int and -SAFE <= item <= SAFE:
            continue
        if kind is float and item - item == 0.0:
            continue
        return False
    return True


def _flat(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as plain JSON data, of which none is null, a list or a map."""
    if not isinstance(attributes, Mapping):
        raise InputError("attributes", "must be a mapping")
    return {_name(name): _attribute(name, item) for name, item in attributes.items()}


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise InputError("attributes", "must have texts as keys")
    return str.__str__(name)


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
    if type(value) is dict and _is_plain(value, MAX_DEPTH):
        return value
    if not isinstance(value, Mapping):
        raise InputError(field, "must be a mapping")
    made: dict[str, Any] = _converted(field, value, MAX_DEPTH)
    return made


def _is_plain(value: Any, depth: int) -> bool:
    if not depth:
        return False
    if type(value) is dict:
        if not _TEXTS.issuperset(map(type, value)):
            return False
        value = value.values()
    for item in value:
        kind = type(item)
        if kind is str or item is None or kind is bool:
            continue
        if kind is int:
            if -SAFE <= item <= SAFE:
                continue
        elif kind is float:
            if item - item == 0.0:
                continue
        elif (kind is dict or kind is list) and _is_plain(item, depth - 1):
            continue
        return False
    return True


def _converted(field: str, value: Any, depth: int) -> Any:
    while isinstance(value, Enum):
        value = value.value
    if isinstance(value, datetime):
        return iso(field, value)
    if isinstance(value, int) and not -SAFE <= value <= SAFE:
        raise InputError(field, _TOO_LONG)
    if isinstance(value, Mapping | list | tuple) and not depth:
        raise InputError(field, f"must not be nested over {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        to_plain_json(field, dict.fromkeys(value))  # the names
        return {
            str.__str__(name): _converted(f"{field}.{name}", item, depth - 1)
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


@lru_cache(maxsize=2)
def _iso_of(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


def iso_of(now: int) -> str:
    """Return nanoseconds since 1970 as `iso` does a datetime, in a tenth of the time."""
    return f"{_iso_of(now // 1_000_000_000)}.{now // 1_000_000 % 1000:03d}Z"


class HitIds:
    """Makes uuids of version 1, as SegmentStream wants them, that tell no hardware address."""

    def __init__(self) -> None:
        self._last = 0
        # A random node has the multicast bit set, which no hardware address has.
        node = random.SystemRandom().getrandbits(48) | 1 << 40
        clock = random.SystemRandom().getrandbits(14) | 0x8000
        self._tail = f"{clock:04x}-{node:012x}"
        self._upper = -1

    def make(self, now: int) -> str:
        """Return the next one, at *now* in nanoseconds since 1970."""
        # In steps of 100 ns since 15 October 1582.
        stamp = self._last = max(now // 100 + 0x01B21DD213814000, self._last + 1)
        upper = stamp >> 32
        if upper != self._upper:  # which it is for seven minutes
            self._upper = upper
            self._rest = f"{upper & 0xFFFF:04x}-{upper >> 16 & 0x0FFF | 0x1000:04x}-{self._tail}"
        return f"{stamp & 0xFFFFFFFF:08x}-{self._rest}"
