"""The exception tree, and the function that makes an error of a response that is no success.

Every error has ``applied``: False (nothing happened at the server), True (it did) or None (nobody
knows). With it a caller decides whether to try again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlsplit

import attrs

if TYPE_CHECKING:
    from .core.secret import Secret


class DriftError(Exception):
    """Base of all errors of this library.

    ``applied`` is False when nothing happened at the server, True when it did, None when nobody
    knows.
    """

    applied: bool | None = False

    # Exceptions with keyword-only arguments do not unpickle by themselves; task queues and process
    # pools pickle them.
    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[DriftError], args: tuple[Any, ...], state: dict[str, Any]) -> DriftError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InputError(DriftError, ValueError):
    """An argument was refused before any request left.

    ``field`` names it (with the path inside it, such as ``attributes.plan``), ``limit`` says what
    is allowed. The value itself is never shown.
    """

    def __init__(self, field: str, limit: str) -> None:
        super().__init__(f"{field}: {limit}")
        self.field = field
        self.limit = limit


class ClosedError(DriftError):
    """The client is not open."""


class WrongLoopError(DriftError):
    """The client was opened in another event loop."""


class ForkError(DriftError):
    """A blocking client that was opened by ``with`` is used in a forked child."""


class OutboxFullError(DriftError):
    """An event was not accepted: the outbox is full, or its disk takes nothing."""


class OutboxLockedError(DriftError):
    """The outbox file belongs to another process, or to another client of this one."""


class CredentialsError(DriftError):
    """There are no usable credentials."""


class VerificationError(DriftError):
    """A webhook was refused; nothing of it can be read.

    ``reason`` is ``token`` or ``signature`` (missing or wrong), ``time`` (too far from now),
    ``size`` (too large) or ``body`` (not a JSON object).
    """

    def __init__(self, detail: str, *, reason: str) -> None:
        super().__init__(detail)
        self.reason = reason


class TokenNotSavedError(DriftError):
    """``on_refresh`` failed, so the new token is not in use; the next call offers it again."""


@attrs.frozen(kw_only=True)
class CallInfo:
    """The fields that all errors of a call have; `CallError` describes them."""

    operation: str
    applied: bool | None = None
    attempts: int = 0
    elapsed: float = 0.0
    status: int | None = None
    request_id: str | None = None
    reason: str | None = None


class CallError(DriftError):
    """Base of the errors of a call that was under way.

    ``operation`` is the method and the path template, ``attempts`` the number of requests tried,
    ``elapsed`` the seconds it took, ``status`` the last HTTP status seen, ``request_id`` what the
    server called the request, ``reason`` why it was not tried again (``attempts``, ``deadline``,
    ``quota``, ``not_retryable`` or ``retry_after``).
    """

    def __init__(self, detail: str, info: CallInfo) -> None:
        super().__init__(f"{info.operation}: {detail}")
        self.operation = info.operation
        self.applied = info.applied
        self.attempts = info.attempts
        self.elapsed = info.elapsed
        self.status = info.status
        self.request_id = info.request_id
        self.reason = info.reason


class ConnectError(CallError):
    """No connection could be made; nothing was sent."""


class ConnectionLostError(CallError):
    """A request was sent, and no whole reply came back."""


class DeadlineError(CallError, TimeoutError):
    """The call's ``timeout`` was over."""


class ProtocolError(CallError):
    """The reply was not HTTP that can be read."""


class ResponseTooLargeError(CallError):
    """The reply's body was over the limit, before or after decompression."""


class DecodeError(CallError):
    """The reply's body was not what the documentation promises; ``path`` says where."""

    def __init__(self, detail: str, info: CallInfo, *, path: str = "$") -> None:
        super().__init__(f"{detail} at {path}", info)
        self.path = path


class CursorError(CallError):
    """A page position that cannot be used: malformed, repeated, or missing where more follows."""


class OutcomeUnknownError(CallError):
    """An operation that must not be repeated was sent, and its outcome is not known.

    ``settle`` names the method whose result shows whether the operation was applied, such as
    ``accounts.all`` (None if no call can); ``settle_hint`` says how in words. ``failure`` is how
    the last attempt failed: ``lost``, ``stalled``, ``protocol``, ``too_large`` or ``closed``.
    """

    def __init__(
        self, detail: str, info: CallInfo, *, failure: str, settle: str | None, settle_hint: str
    ) -> None:
        way = f"{settle} ({settle_hint})" if settle else settle_hint
        super().__init__(f"{detail}; to settle it: {way}", info)
        self.failure = failure
        self.settle = settle
        self.settle_hint = settle_hint


class APIError(CallError):
    """The server refused the request, or failed.

    ``type`` is Drift's own word (``not_found``, ``validation_error`` ...), ``message`` its text,
    which may repeat personal data but no secret of the request. If the reply has neither,
    ``message`` is the media type and the size of its body.
    """

    def __init__(self, info: CallInfo, *, type: str | None, message: str) -> None:
        detail = " ".join(filter(None, (str(info.status), type)))
        super().__init__(f"{detail} ({message})" if message else detail, info)
        self.type = type
        self.message = message


class BadRequestError(APIError):
    """The request was refused as wrong (400, 413, 422)."""


class AuthenticationError(APIError):
    """The token was refused (401, 403)."""


class ScopeError(AuthenticationError):
    """The token lacks a scope; ``scope`` names it."""

    def __init__(self, info: CallInfo, *, type: str | None, message: str, scope: str) -> None:
        super().__init__(info, type=type, message=message)
        self.scope = scope


class NotFoundError(APIError):
    """The resource does not exist (404)."""


class ConflictError(APIError):
    """The resource exists already (409)."""


class RateLimitError(APIError):
    """Too many requests (429); ``retry_after`` is the wait asked for in seconds, if given."""

    def __init__(
        self, info: CallInfo, *, type: str | None, message: str, retry_after: float | None
    ) -> None:
        super().__init__(info, type=type, message=message)
        self.retry_after = retry_after


class ServerError(APIError):
    """The server failed (5xx)."""


_BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: AuthenticationError,
    404: NotFoundError,
    409: ConflictError,
    413: BadRequestError,
    422: BadRequestError,
}

_MEDIA_TYPE = re.compile(r"[a-z]{1,20}/[a-z0-9.+-]{1,80}(?=\s*(?:;|$))", re.IGNORECASE | re.ASCII)
_LARGEST_JSON = 64 * 1024
_MOST_BRACKETS = 64
_MESSAGE_BYTES = 512
_TYPE_BYTES = 64


def applied_by_status(status: int) -> bool | None:
    """Return whether a request was applied that was answered with this status; None: unknown."""
    if 200 <= status < 300:
        return True
    return False if status == 503 or (400 <= status < 500 and status != 408) else None


def merge_applied(one: bool | None, other: bool | None) -> bool | None:
    """Return True if one of two attempts was applied, None if one may have been, else False."""
    if one or other:
        return True
    return None if one is None or other is None else False


def error_from_response(
    info: CallInfo,
    headers: Mapping[str, str],
    body: bytes,
    *,
    scope: str | None = None,
    retry_after: float | None = None,
    secrets: Iterable[Secret] = (),
) -> APIError:
    """Return the error for a response with ``info.status``, which is not 2xx.

    A server may repeat the request in its reply, so *secrets* are masked.
    """
    status = info.status or 0
    kind, message = _type_and_message(body)
    missing_scope = scope if status == 403 and scope and scope in message else None
    if 300 <= status < 400:
        message = f"redirect to {_origin(headers.get('Location', ''))}, not followed"
    elif body and not (kind or message):
        message = describe_body(headers, body)
    known = [secret.reveal() for secret in secrets]
    kind = None if kind is None else _one_line(kind, _TYPE_BYTES, known)
    message = _one_line(message, _MESSAGE_BYTES, known)
    if missing_scope is not None:
        return ScopeError(info, type=kind, message=message, scope=missing_scope)
    if status == 429:
        return RateLimitError(info, type=kind, message=message, retry_after=retry_after)
    error = _BY_STATUS.get(status, ServerError if status >= 500 else APIError)
    return error(info, type=kind, message=message)


def describe_body(headers: Mapping[str, str], body: bytes) -> str:
    """Return media type and size of a body: an excerpt could show secrets or personal data."""
    size = f"{len(body):,} bytes"
    media_type = _MEDIA_TYPE.match(headers.get("Content-Type", ""))
    return f"{media_type[0]}, {size}" if media_type else size


def _type_and_message(body: bytes) -> tuple[str | None, str]:
    """Return both out of the JSON that Drift, or a gateway before it, sends."""
    # Too many brackets: were they nested, the reader would overflow the stack of a small thread.
    if len(body) > _LARGEST_JSON or body.count(b"[") + body.count(b"{") > _MOST_BRACKETS:
        return None, ""
    try:
        value = json.loads(body.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None, ""
    match value:
        case {"error": {} as error} | {"errors": [{} as error, *_]}:
            return _text(error.get("type")), _text(error.get("message")) or ""
        case {"error": str(kind), "error_description": str(message)}:
            return kind, message
        case {"errors": [str(message), *_]} | {"error": str(message)} | {"message": str(message)}:
            return None, message
        case {"detail": str(message)}:
            return _text(value.get("scimType")), message
    return None, ""


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _spellings(secret: str) -> tuple[str, ...]:
    """Return a secret as it stands, in a URL, in a form, and in JSON."""
    form = quote_plus(secret, errors="replace")
    return secret, form, form.replace("+", "%20"), json.dumps(secret)[1:-1]


def _one_line(text: str, most: int, secrets: Iterable[str]) -> str:
    """Return the first *most* bytes of *text*, printable, on one line, with masked secrets."""
    # Masked before the cut: half of a secret would not be found.
    spellings = [form for secret in filter(None, secrets) for form in _spellings(secret)]
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, "***")
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(printable.split()).encode()[:most].decode(errors="ignore")


def _origin(location: str) -> str:
    try:
        parts = urlsplit(location)
    except ValueError:
        return "a malformed address"
    # Not `parts.scheme`, in lower case: a secret would not be found in it.
    scheme = location.partition(":")[0] if parts.scheme else ""
    if parts.netloc:
        return f"{scheme}://{parts.netloc.rpartition('@')[2]}"
    return f"{scheme}:" if scheme else "the same origin"
