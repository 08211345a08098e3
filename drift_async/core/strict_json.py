"""The strict JSON reader and writer.

orjson and the standard library disagree on nearly every corner of JSON. Here they give the same
result: UTF-8 only, no NaN or infinity, exact integers, no lone surrogates; of duplicate keys the
last wins. Only the depth differs: at most 64 levels, or orjson's own limit of 1024.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Never

from ..errors import InputError
from .secret import Secret

_fast_loads: Callable[[bytes], Any] | None
try:
    from orjson import loads as _fast_loads
except ImportError:
    _fast_loads = None

MAX_DEPTH = 64
MAX_DIGITS = 4_300  # of the longest integer that every Python reads and writes
MAX_BITS = 14_280  # every integer of so many bits has at most MAX_DIGITS digits
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 6
_SIGNED_DIGITS = bytes.maketrans(b"-123456789", b"0000000000")
_MAYBE_LONG = b"0" * 4
_TOO_LONG = b"0" * (MAX_DIGITS // 3)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BRACES_AS_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))
_STRING = re.compile(rb'"[^"]*+"?')


def loads(body: bytes, *, limit_depth: bool = False) -> Any:
    """Return the JSON value in *body*; ValueError, without any of the text, if it is none.

    With *limit_depth* both readers refuse more than `MAX_DEPTH` levels; for bodies from anybody.
    """
    fast_loads = None if _may_hold_long_integer(body) else _fast_loads
    # The standard library's reader would overflow the stack of a small thread and end the process:
    # on Python 3.13.0 that of 1 MiB, on 3.11 that of 128 KiB. orjson's reader fits into 128 KiB.
    if (limit_depth or fast_loads is None) and _is_deep(body):
        raise ValueError(f"JSON nested over {MAX_DEPTH} levels")
    try:
        if fast_loads is not None:
            return fast_loads(body)
        text = body.decode()
        if _TOO_LONG in body[::3].translate(_DIGITS):
            _COUNTING_DECODER.decode(text)
        if b"\\u" not in body or not _SURROGATE.search(body):
            return _DECODER.decode(text)
        value = _WARY_DECODER.decode(text)
        _encode(value)
    except (ValueError, RecursionError):
        raise ValueError("not JSON" if body.strip() else "an empty body, not JSON") from None
    return value


def _may_hold_long_integer(body: bytes) -> bool:
    """Return whether there may be an integer of over 64 bits, of which orjson makes a float.

    Such an integer has 20 characters. Every fifth character is looked at first: four digits in a
    row. Few other texts pass a second look, at every third: six of 19 digits.
    """
    if _MAYBE_LONG not in body[::5].translate(_SIGNED_DIGITS):
        return False
    return _LONG in body[::3].translate(_DIGITS)


def _is_deep(body: bytes) -> bool:
    """Return whether JSON nests over `MAX_DEPTH` levels; of other text, whether it might."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = body.translate(_BRACES_AS_BRACKETS, _OTHERS)
    brackets = _STRING.sub(b"", brackets.replace(b'""', b""))
    for _ in range(MAX_DEPTH):
        if b"[]" not in brackets:
            break
        brackets = brackets.replace(b"[]", b"")
    return b"[]" in brackets or brackets.count(b"[") > MAX_DEPTH


def _refuse(word: str) -> Never:
    raise ValueError(f"{word} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse("infinity")


def _count(digits: str) -> None:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"an integer of over {MAX_DIGITS} digits")


def _encode(value: Any) -> None:
    """Raise ValueError if there is a lone surrogate in *value*."""
    json.dumps(value, ensure_ascii=False).encode()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        _encode(pairs)  # a value that a later key overwrites must be valid too
    return result


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
# A program can lift Python's own limit, and then a long integer takes for ever.
_COUNTING_DECODER = json.JSONDecoder(parse_int=_count)
_WARY_DECODER = json.JSONDecoder(
    parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_object
)


def dumps(value: Any) -> bytes:
    """Return plain JSON data as bytes; secrets in it are revealed here and not before."""
    return _ENCODER.encode(value).encode()


_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=Secret.reveal
)


def to_plain_json(field: str, value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return a user's value as plain JSON data, or raise `InputError` with the path of the fault.

    Mappings become dicts, sequences lists, aware datetimes epoch milliseconds, enum members their
    values.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return to_plain_json(field, value.value, depth)
    if isinstance(value, str):
        return _encodable(field, str.__str__(value))
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise InputError(field, "must have at most 4,300 digits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(field, "must be a finite number")
        return float(value)
    if isinstance(value, datetime):
        return to_ms(field, value)
    if depth == 0:
        raise InputError(field, f"must not be nested over {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {
            _key(field, key): to_plain_json(f"{field}.{key}", item, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [to_plain_json(f"{field}[{n}]", item, depth - 1) for n, item in enumerate(value)]
    raise InputError(field, "must be JSON data: text, number, bool, None, list or mapping")


def _key(field: str, key: object) -> str:
    if not isinstance(key, str):
        raise InputError(field, "must have texts as keys")
    return _encodable(f"{field} (a key)", key)


def _encodable(field: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(field, "must not hold lone surrogates") from None
    return text


def to_ms(field: str, moment: object) -> int:
    """Return an aware datetime as epoch milliseconds, or raise `InputError`."""
    if not isinstance(moment, datetime):
        raise InputError(field, "must be a datetime")
    if moment.utcoffset() is None:
        raise InputError(field, "must be aware of its time zone, such as datetime.now(UTC)")
    return round((moment - EPOCH) / MILLISECOND)
