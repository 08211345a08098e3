"""`Call`: one request as its handler gets it, and checks of what it carries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from .state import State
from .store import Store
from .types import Json, Refusal, Reply, Token, encode

MAX_BODY: Final = 1 << 20


def bad(field: str, why: str, *, scim_type: str = "invalidValue") -> Refusal:
    """Return a 400 that names the field; never the value, which may be private."""
    return Refusal(400, f"{field}: {why}", scim_type=scim_type)


def data(value: Any) -> Reply:
    """Return `value` in the `data` envelope."""
    return Reply({"data": value})


def ok(status: int = 200) -> Reply:
    """Return the fixed answer of calls that have no result."""
    return Reply({"result": "OK", "ok": True}, status)


def whole(value: Any, field: str) -> int:
    """Return `value` as an integer; decimal text counts, as older clients send ids that way."""
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdecimal():
        if len(value) > 20:
            raise bad(field, "must fit in 64 bits")
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise bad(field, "must be an integer")
    if not -(2**63) <= value < 2**63:
        raise bad(field, "must fit in 64 bits")
    return value


def text(value: Any, field: str, *, blank: bool = False) -> str:
    """Return `value` if it is text, and more than blanks unless `blank`; else raise a 400."""
    if not isinstance(value, str):
        raise bad(field, "must be text")
    if not blank and not value.strip():
        raise bad(field, "must not be empty")
    return value


def listed(value: Any, field: str) -> list[Any]:
    """Return `value` if it is a list; else raise a 400."""
    if not isinstance(value, list):
        raise bad(field, "must be a list")
    return value


def mapped(value: Any, field: str) -> Json:
    """Return `value` if it is an object; else raise a 400."""
    if not isinstance(value, dict):
        raise bad(field, "must be an object")
    return value


def _finite(digits: str) -> float:
    number = float(digits)
    if number - number != 0:
        raise ValueError("number out of range")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_decode: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant).decode


def parse(body: bytes) -> Any:
    """Return the JSON value of a body, whatever its Content-Type; raise a 400 if it has none."""
    if not body.strip():
        raise bad("body", "is missing")
    try:
        value = _decode(body.decode())
        if b"\\u" in body:
            encode(value).encode()  # half a surrogate pair fails here
    except (ValueError, RecursionError):
        raise bad("body", "is not valid JSON", scim_type="invalidSyntax") from None
    return value


@attrs.define
class Call:
    """One request and the state. `now` is epoch milliseconds, `clock` monotonic seconds."""

    method: str
    params: Sequence[str]
    query: Mapping[str, Sequence[str]]
    body: bytes
    header: Mapping[str, str]
    origin: str
    token: Token | None
    now: int
    clock: float
    state: State

    @property
    def store(self) -> Store:
        """The rows."""
        return self.state.store

    def number(self, position: int = 0) -> int:
        """Return the placeholder of the path as an id."""
        return whole(self.params[position], "id")

    def one(self, key: str) -> str | None:
        """Return the first value of a query key, or None."""
        values = self.query.get(key)
        return values[0] if values else None

    def need(self, key: str) -> str:
        """Return the first value of a query key; raise a 400 if it is missing or blank."""
        value = self.one(key)
        if value is None or not value.strip():
            raise bad(key, "is required")
        return value

    def size(self, key: str, default: int, most: int) -> int:
        """Return a page size of at most `most`; raise a 400 below 1."""
        value = self.one(key)
        if value is None:
            return default
        number = whole(value, key)
        if number < 1:
            raise bad(key, "must be at least 1")
        return min(number, most)

    def object(self, required: Iterable[str] = ()) -> Json:
        """Return the body as an object; raise a 400 if one of the `required` keys has no value."""
        value = mapped(parse(self.body), "body")
        for key in required:
            if value.get(key) is None:
                raise bad(key, "is required")
        return value
