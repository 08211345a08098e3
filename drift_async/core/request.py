"""An operation as a row of data (`Endpoint`), a request of it, and its `Response` or `Failure`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from urllib.parse import quote

import attrs

from ..errors import CallInfo, DecodeError, InputError, describe_body
from .converter import StructureError, structure
from .secret import Secret
from .strict_json import dumps, loads, to_plain_json
from .validate import MAX_ID, integer

if TYPE_CHECKING:
    from .download import Sink

T = TypeVar("T")

Effect = Literal["safe", "idempotent", "once"]
Style = Literal["links", "pagination", "next_url", "link_header", "scim"]
Envelope = Literal["data", "bare", "ok", "text", "bytes", "none"]
FailureKind = Literal[
    "connect", "certificate", "lost", "stalled", "protocol", "too_large", "closed"
]

_PLACEHOLDER = re.compile(r"\{(\w+)(?::(int))?\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@attrs.frozen(eq=False, repr=False)
class Endpoint(Generic[T]):
    """One operation of the API.

    ``path`` is a template: ``{name}`` stands for a text, ``{name:int}`` for an id. ``returns`` is
    the type of a call's result, ``envelope`` how the reply wraps it, ``under`` the key that holds
    it. ``effect`` says whether a repeat may apply twice; only a GET is ``safe`` by default.
    ``settle`` names the method whose result shows whether a ``once`` operation was applied, and
    ``settle_hint`` says how; ``content`` is the type of the body.
    """

    method: str
    path: str
    returns: type[T]
    effect: Effect = attrs.field(kw_only=True)
    envelope: Envelope = attrs.field(default="data", kw_only=True)
    under: str | None = attrs.field(default=None, kw_only=True)
    pages: Style | None = attrs.field(default=None, kw_only=True)
    key: str = attrs.field(default="id", kw_only=True)
    scope: str | None = attrs.field(default=None, kw_only=True)
    budget: str = attrs.field(default="default", kw_only=True)
    settle: str | None = attrs.field(default=None, kw_only=True)
    settle_hint: str = attrs.field(default="read it back", kw_only=True)
    content: str = attrs.field(default="application/json", kw_only=True)

    template: str = attrs.field(init=False)
    name: str = attrs.field(init=False)
    _pieces: Sequence[str | None] = attrs.field(init=False)
    _is_json: bool = attrs.field(init=False)

    @effect.default
    def _effect(self) -> Effect:
        if self.method != "GET":
            raise TypeError(f"{self.method} {self.path} must say its effect")
        return "safe"

    def __attrs_post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "template", _PLACEHOLDER.sub(r"{\1}", self.path))
        set_field(self, "name", f"{self.method} {self.template}")
        set_field(self, "_pieces", _PLACEHOLDER.split(self.path))
        set_field(self, "_is_json", self.envelope in ("data", "bare"))

    def request(
        self, values: dict[str, Any], body: object = None, *, sink: Sink | None = None
    ) -> Request:
        """Return a request, or raise `InputError`.

        *values* that the template does not name go into the query; *body* is sent as JSON.
        """
        secrets = [
            value
            for fields in (values, body)
            if isinstance(fields, dict)
            for value in fields.values()
            if isinstance(value, Secret)
        ]
        return Request(
            self, self.target(values), None if body is None else dumps(body), secrets, sink
        )

    def target(self, values: dict[str, Any]) -> str:
        """Return path and query; what the template does not name goes into the query."""
        pieces = self._pieces
        values = dict(values)
        target = pieces[0] or ""
        for n in range(1, len(pieces), 3):
            name, kind, literal = pieces[n : n + 3]
            assert name is not None
            target += segment(name, values.pop(name), kind) + (literal or "")
        return f"{target}?{query(values)}" if values else target

    def parse(self, response: Response) -> T:
        """Return the value that the response holds, or raise `DecodeError`."""
        try:
            shaped: T
            if self._is_json:
                shaped = self._shaped(loads(response.body))
            else:
                shaped = self._read(response.body)
            return shaped
        except (StructureError, ValueError) as fault:
            error = self._decode_error(fault, response)
        raise error

    def parse_any(self, response: Response) -> Any:
        """Return the whole JSON value, None for an empty body, or raise `DecodeError`."""
        try:
            return loads(response.body) if response.body else None
        except ValueError as fault:
            error = self._decode_error(fault, response)
        raise error

    def parse_page(self, response: Response) -> tuple[T, Any]:
        """Return the items of a page, and the whole JSON value, which says what follows."""
        try:
            value = loads(response.body)
            return self._shaped(value), value
        except (StructureError, ValueError) as fault:
            error = self._decode_error(fault, response)
        raise error

    def _decode_error(self, fault: StructureError | ValueError, response: Response) -> DecodeError:
        if isinstance(fault, StructureError):
            detail, path = fault.detail, fault.path
        else:
            body = describe_body(response.headers, response.body)
            detail, path = f"{_plainly(fault)} ({body})", "$"
        return DecodeError(detail, response.call_info(self.name), path=path)

    def _read(self, body: bytes) -> Any:
        match self.envelope:
            case "ok":
                value = loads(body)
                if not isinstance(value, dict) or value.get("ok") is False:
                    raise StructureError("$.ok", "expected true")
                return None
            case "text":
                return _text(body)
            case "bytes":
                return body
        return None

    def _shaped(self, value: Any) -> Any:
        """Return the part of the reply that the row names, as ``returns``."""
        path = "$"
        if self.envelope == "data" and type(value) is dict and "data" in value:
            value, path = value["data"], "$.data"
        if self.under is not None:
            path = f"{path}.{self.under}"
            if type(value) is not dict or self.under not in value:
                raise StructureError(path, "required field missing")
            value = value[self.under]
        try:
            result = structure(value, self.returns)
        except StructureError as fault:
            raise StructureError(path + fault.path.removeprefix("$"), fault.detail) from None
        return result


def _plainly(fault: ValueError) -> str:
    # Unicode errors carry the body in their text.
    return "not UTF-8" if isinstance(fault, UnicodeError) else str(fault)


def _text(body: bytes) -> str:
    """Return a plain text, also out of the wrapping that one client reports."""
    text = body.decode()
    if text.startswith("{"):
        try:
            value = loads(body)
        except ValueError:
            return text
        if isinstance(value, dict) and isinstance(value.get("data"), str):
            return str(value["data"])
    return text


def segment(field: str, value: object, kind: str | None = None) -> str:
    """Return *value* as one path segment, or raise `InputError`.

    Everything but unreserved characters is percent-encoded; what a URL library would swallow or
    walk up on is refused.
    """
    if kind == "int":
        if type(value) is int and 0 < value <= MAX_ID:
            return str(value)
        return str(integer(field, value, 1))
    if not isinstance(value, str) or not value:
        raise InputError(field, "must be a text that is not empty")
    if value in (".", "..") or _CONTROL.search(value):
        raise InputError(field, "must not be a dot segment nor hold control characters")
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise InputError(field, "must not hold lone surrogates") from None
    if len(encoded) > 1024:
        raise InputError(field, "must have at most 1024 bytes")
    return quote(encoded, safe="")


def query(values: Mapping[str, Any]) -> str:
    """Return the query string: lists repeat their key, None is left out."""
    pairs: list[str] = []
    for key, value in values.items():
        if not isinstance(key, str):
            raise InputError("params", "must have texts as keys")
        items = value if isinstance(value, list | tuple) else (value,)
        name = _quoted("params", key)
        pairs += [f"{name}={_query_text(key, item)}" for item in items if item is not None]
    return "&".join(pairs)


def _query_text(key: str, value: object) -> str:
    if isinstance(value, Secret):
        value = value.reveal()
    if not isinstance(value, str | int | float | datetime | Enum):
        raise InputError(key, "must be text, number, bool or datetime")
    given = to_plain_json(key, value)
    if isinstance(given, bool):
        return "true" if given else "false"
    return _quoted(key, str(given))


def _quoted(field: str, text: str) -> str:
    try:
        return quote(text.encode(), safe="")
    except UnicodeEncodeError:
        raise InputError(field, "must not hold lone surrogates") from None


@attrs.frozen(eq=False, repr=False)
class Request:
    """One request of an operation, ready to be sent. Its repr shows the template only.

    ``target`` is path and query, ``secrets`` are those in target and body, and ``sink`` takes the
    body of a 2xx response.
    """

    endpoint: Endpoint[Any]
    target: str = attrs.field(repr=False)
    body: bytes | None = attrs.field(default=None, repr=False)
    secrets: Sequence[Secret] = attrs.field(default=(), repr=False)
    sink: Sink | None = attrs.field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"<{self.endpoint.name}>"


@attrs.define(eq=False, repr=False)
class Response:
    """A whole response; ``attempts`` and ``began`` are those of the call that it ends."""

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    attempts: int = 1
    began: float = 0.0

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def seen(self) -> tuple[int | None, FailureKind | None]:
        """The status, and no kind of failure, as hooks report them."""
        return self.status, None

    def call_info(self, operation: str) -> CallInfo:
        """Return the fields of an error about the contents of this response."""
        return CallInfo(
            operation=operation,
            applied=True,
            attempts=self.attempts,
            elapsed=time.monotonic() - self.began,
            status=self.status,
            request_id=self.headers.get("X-Request-Id"),
            reason="not_retryable",
        )

    def __repr__(self) -> str:
        return f"<{self.status}, {len(self.body)} bytes>"


@attrs.frozen
class Failure:
    """An attempt without a whole response.

    ``sent`` says whether anything may have left; ``status_read`` is the 2xx status that was read
    before the body failed.
    """

    kind: FailureKind
    detail: str
    sent: bool
    status_read: int | None = None

    @property
    def applied(self) -> bool | None:
        """What this attempt proves about the operation: applied, not applied, or unknown."""
        return True if self.status_read is not None else None if self.sent else False

    @property
    def seen(self) -> tuple[int | None, FailureKind | None]:
        """The status that was read, and the kind of failure, as hooks report them."""
        return self.status_read, self.kind
