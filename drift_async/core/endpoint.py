"""An operation as a row of data (`Endpoint`), and the base of the groups that call them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from datetime import datetime
from enum import Enum
from functools import partial
from itertools import repeat
from types import GenericAlias
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, Unpack, get_args, get_origin
from urllib.parse import quote

import attrs

from ..errors import DecodeError, InputError, describe_body
from .batch import Items
from .bulk import Bulk, BulkCaller, BulkOptions
from .codec import MisfitError, structure
from .discreet import discreet
from .download import Sink
from .inputs import MAX_ID, whole
from .pager import Pager, Style, read_position
from .process import DECODE_IN_THREAD_BYTES, run_in_decoder
from .secret import Secret
from .strict_json import dumps, loads, plain

T = TypeVar("T")
Item = TypeVar("Item")

Effect = Literal["safe", "idempotent", "once"]
Envelope = Literal["data", "bare", "ok", "text", "bytes", "none"]

_PLACEHOLDER = re.compile(r"\{(\w+)(?::(int))?\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@attrs.frozen(eq=False, repr=False)
class Endpoint(Generic[T]):
    """One thing the API offers.

    ``path`` is a template: ``{name}`` stands for a text, ``{name:int}`` for an id. ``returns`` is
    what a call gives, ``envelope`` how the reply wraps it, ``under`` the keys that lead to it.
    ``effect`` says whether a repeat may apply twice; only a GET is taken for ``safe`` unasked.
    ``settle`` names the read that tells whether a ``once`` operation was applied, ``content`` the
    type of its body.
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
    settle: str = attrs.field(default="read it back", kw_only=True)
    content: str = attrs.field(default="application/json", kw_only=True)

    template: str = attrs.field(init=False)
    name: str = attrs.field(init=False)
    headers: Mapping[str, str] = attrs.field(init=False)
    _pieces: Sequence[str | None] = attrs.field(init=False)
    _shape: Any = attrs.field(init=False)
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
        set_field(self, "headers", {"Content-Type": self.content})
        set_field(self, "_pieces", _PLACEHOLDER.split(self.path))
        set_field(self, "_shape", _strict(self.returns))
        set_field(self, "_is_json", self.envelope in ("data", "bare"))

    def target(self, values: dict[str, Any]) -> str:
        """Return path and query; what the template does not name goes into the query."""
        pieces = self._pieces
        if len(pieces) == 4 and len(values) == 1:  # the most frequent: one id, no query
            before, name, kind, after = pieces
            return f"{before}{segment(str(name), values[str(name)], kind)}{after}"
        target = pieces[0] or ""
        for n in range(1, len(pieces), 3):
            name, kind, literal = pieces[n : n + 3]
            assert name is not None
            target += segment(name, values.pop(name), kind) + (literal or "")
        return f"{target}?{query(values)}" if values else target

    def decode(self, reply: Reply) -> T:
        """Return what the reply holds, or raise `DecodeError`."""
        try:
            result: T = self._shaped(loads(reply.body)) if self._is_json else self._read(reply.body)
            return result
        except (MisfitError, ValueError) as fault:
            error = self._decode_error(fault, reply)
        raise error

    def decode_any(self, reply: Reply) -> Any:
        """Return the whole JSON value of a reply, None if it is empty, or raise `DecodeError`."""
        try:
            return loads(reply.body) if reply.body else None
        except ValueError as fault:
            error = self._decode_error(fault, reply)
        raise error

    def decode_page(self, reply: Reply) -> tuple[T, Any]:
        """Return the items of a page, and the whole JSON value, which says what follows."""
        try:
            value = loads(reply.body)
            return self._shaped(value), value
        except (MisfitError, ValueError) as fault:
            error = self._decode_error(fault, reply)
        raise error

    def _decode_error(self, fault: MisfitError | ValueError, reply: Reply) -> DecodeError:
        if isinstance(fault, MisfitError):
            detail, path = fault.detail, fault.path
        else:
            body = describe_body(reply.headers, reply.body)
            detail, path = f"{_plainly(fault)} ({body})", "$"
        return DecodeError(detail, operation=self.name, path=path, applied=True, **reply.told())

    def _read(self, body: bytes) -> Any:
        match self.envelope:
            case "ok":
                value = loads(body)
                if not isinstance(value, dict) or value.get("ok") is False:
                    raise MisfitError("$.ok", "expected true")
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
                raise MisfitError(path, "required field missing")
            value = value[self.under]
        try:
            result = structure(value, self._shape)
        except MisfitError as fault:
            raise MisfitError(path + fault.path.removeprefix("$"), fault.detail) from None
        return list(result) if type(result) is tuple else result


def _strict(kind: Any) -> Any:
    """Return the type to structure for *kind*: a list is read as a tuple, which is strict."""
    if get_origin(kind) is list:
        return GenericAlias(tuple, (*get_args(kind), ...))
    return kind


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
        return str(whole(field, value, 1))
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
    given = plain(key, value)
    if isinstance(given, bool):
        return "true" if given else "false"
    return _quoted(key, str(given))


def _quoted(field: str, text: str) -> str:
    try:
        return quote(text.encode(), safe="")
    except UnicodeEncodeError:
        raise InputError(field, "must not hold lone surrogates") from None


@attrs.define(eq=False, repr=False)
class Reply:
    """What came back: status, headers, whole body; how many attempts it took, and since when."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    attempts: int = 1
    began: float = 0.0

    def told(self) -> dict[str, Any]:
        """Return what an error about this reply carries."""
        return {
            "attempts": self.attempts,
            "elapsed": time.monotonic() - self.began,
            "status": self.status,
            "request_id": self.headers.get("X-Request-Id"),
            "reason": "not_retryable",
        }


class Caller(Protocol):
    """What a group needs of `drift_async.core.call.Caller`; that one loads the HTTP library."""

    max_pages: int

    async def send(
        self,
        endpoint: Endpoint[Any],
        target: str,
        body: bytes | None = None,
        *,
        sink: Sink | None = None,
        secrets: Sequence[Secret] = (),
    ) -> Reply: ...
    def token(self) -> Secret: ...
    def started(self) -> Self: ...
    def for_bulk(self) -> ItemCaller: ...
    def spawn(
        self, work: Coroutine[Any, Any, T], context: Context | None = None
    ) -> asyncio.Task[T]: ...


class ItemCaller(Caller, BulkCaller, Protocol):
    """What the items of a bulk call with: `drift_async.core.admission.BulkCaller`."""


@attrs.define(eq=False, repr=False)
class Resource:
    """A group of operations that share a caller."""

    _caller: Caller

    def __init_subclass__(cls) -> None:
        discreet(cls)

    async def _send(self, endpoint: Endpoint[T], body: object = None, /, **values: Any) -> T:
        secrets = [
            value
            for fields in (values, body)
            if isinstance(fields, dict)
            for value in fields.values()
            if isinstance(value, Secret)
        ]
        # Query and body may hold a secret, so neither is kept where a traceback would show it.
        reply = await self._caller.send(
            endpoint,
            endpoint.target(values),
            None if body is None else dumps(body),
            secrets=secrets,
        )
        if len(reply.body) > DECODE_IN_THREAD_BYTES:
            return await run_in_decoder(endpoint.decode, reply)
        return endpoint.decode(reply)

    def _pages(
        self, endpoint: Endpoint[list[T]], resume: str | None = None, /, **values: Any
    ) -> Pager[T]:
        # Refuses bad input here rather than at the first step.
        path = endpoint.target(dict(values)).partition("?")[0]
        start = {} if resume is None else read_position(endpoint, path, resume)
        return Pager(self._caller, endpoint, values, path, start)

    def _bulk(
        self,
        method: Callable[[Self, Item], Coroutine[Any, Any, T]],
        items: Items[Item],
        **options: Unpack[BulkOptions],
    ) -> Bulk[Item, T]:
        """Return a bulk that calls *method* for each item, all at one place in the queue."""
        caller = self._caller.for_bulk()
        call = partial(method, type(self)(caller))
        return Bulk(caller, items, lambda batch: repeat(call), **options)

    def _started(self) -> Self:
        """Return this group with the call's ``timeout`` running: one for all that follows."""
        return type(self)(self._caller.started())
