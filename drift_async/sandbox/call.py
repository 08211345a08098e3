"""What a handler gets (`Call`), gives back (`Reply`) and raises (`Refusal`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from .store import Store

Json = dict[str, Any]

MAX_BODY: Final = 1 << 20
ABSENT: Final = object()
SCIM_TYPE: Final = "application/scim+json"
SCIM_ERROR: Final = "urn:ietf:params:scim:api:messages:2.0:Error"

TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "authentication_error",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    429: "rate_limit",
}


encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""JSON text as the service writes it."""


@attrs.frozen
class Token:
    """An access token: its scopes, when it was made and when it ends (seconds, None = never).

    `grant` is the number of the user's agreement it comes from; 0 for one made by hand.
    """

    text: str
    scopes: frozenset[str]
    created: float
    expires: float | None
    grant: int = 0


@attrs.define
class Reply:
    """What goes back: a JSON value, or bytes when `content` is given."""

    value: Any = ABSENT
    status: int = 200
    headers: list[tuple[str, str]] = attrs.field(factory=list)
    content: bytes | None = None
    content_type: str = "application/json"

    def payload(self) -> bytes:
        """The body as bytes; empty when there is neither a value nor content."""
        if self.content is not None:
            return self.content
        if self.value is ABSENT:
            return b""
        return encode(self.value).encode()


class Refusal(Exception):
    """A reply that says no; the server turns it into the error body of the path.

    `error` is OAuth's name of it, which makes it one of OAuth's bodies.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        scim_type: str | None = None,
        error: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.scim_type = scim_type
        self.error = error
        self.headers = headers

    def reply(self, *, scim: bool) -> Reply:
        """The refusal as a reply, in SCIM's shape, OAuth's or Drift's."""
        headers = list(self.headers)
        if self.error:
            body: Json = {"error": self.error, "error_description": self.message}
            return Reply(body, self.status, headers)
        if scim:
            body = {"schemas": [SCIM_ERROR], "status": str(self.status)}
            if self.scim_type:
                body["scimType"] = self.scim_type
            body["detail"] = self.message
            return Reply(body, self.status, headers, content_type=SCIM_TYPE)
        rest = "internal_error" if self.status >= 500 else "validation_error"
        kind = TYPES.get(self.status, rest)
        return Reply({"error": {"type": kind, "message": self.message}}, self.status, headers)


def bad(field: str, why: str, *, scim_type: str = "invalidValue") -> Refusal:
    """A 400 that names the field; never the value, which may be private."""
    return Refusal(400, f"{field}: {why}", scim_type=scim_type)


def data(value: Any) -> Reply:
    """`value` in the `data` envelope."""
    return Reply({"data": value})


def ok(status: int = 200) -> Reply:
    """The fixed answer of calls that give nothing back."""
    return Reply({"result": "OK", "ok": True}, status)


def whole(value: Any, field: str) -> int:
    """`value` as an integer; decimal text counts, as older clients send ids that way."""
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
    """`value` if it is text, and more than blanks unless `blank`."""
    if not isinstance(value, str):
        raise bad(field, "must be text")
    if not blank and not value.strip():
        raise bad(field, "must not be empty")
    return value


def listed(value: Any, field: str) -> list[Any]:
    """`value` if it is a list."""
    if not isinstance(value, list):
        raise bad(field, "must be a list")
    return value


def mapped(value: Any, field: str) -> Json:
    """`value` if it is an object."""
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
    """The JSON value of a body, whatever its Content-Type says; 400 for anything else."""
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
    """One request, with the state it works on. `now` is epoch milliseconds, `clock` seconds."""

    method: str
    params: Sequence[str]
    query: Mapping[str, Sequence[str]]
    body: bytes
    header: Mapping[str, str]
    origin: str
    token: Token | None
    now: int
    clock: float
    store: Store

    def number(self, position: int = 0) -> int:
        """The placeholder of the path as an id."""
        return whole(self.params[position], "id")

    def one(self, key: str) -> str | None:
        """The first value of a query key."""
        values = self.query.get(key)
        return values[0] if values else None

    def need(self, key: str) -> str:
        """The first value of a query key that must be there."""
        value = self.one(key)
        if value is None or not value.strip():
            raise bad(key, "is required")
        return value

    def size(self, key: str, default: int, most: int) -> int:
        """A page size: cut to `most`, 400 below 1."""
        value = self.one(key)
        if value is None:
            return default
        number = whole(value, key)
        if number < 1:
            raise bad(key, "must be at least 1")
        return min(number, most)

    def object(self, required: Iterable[str] = ()) -> Json:
        """The body as an object that has the `required` keys with a value."""
        value = mapped(parse(self.body), "body")
        for key in required:
            if value.get(key) is None:
                raise bad(key, "is required")
        return value
