"""The exception tree, and the one function that turns a refusing reply into an error.

Every error has ``applied``: False (nothing happened at the server), True (it did) or None (nobody
knows). It answers what a caller has to ask after a failure: may I simply try again?
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

EXCERPT_BYTES = 512


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


class CallError(DriftError):
    """Base of the errors of a call that was under way.

    ``operation`` is the method and the path template, ``attempts`` the number of requests tried,
    ``elapsed`` the seconds it took, ``status`` the last HTTP status seen, ``request_id`` what the
    server called the request, ``reason`` why it was not tried again (``attempts``, ``deadline``,
    ``quota``, ``not_retryable`` or ``retry_after``).
    """

    def __init__(
        self,
        detail: str,
        *,
        operation: str,
        applied: bool | None = None,
        attempts: int = 0,
        elapsed: float = 0.0,
        status: int | None = None,
        request_id: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(f"{operation}: {detail}")
        self.operation = operation
        self.applied = applied
        self.attempts = attempts
        self.elapsed = elapsed
        self.status = status
        self.request_id = request_id
        self.reason = reason


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

    def __init__(self, detail: str, *, operation: str, path: str = "$", **call: Any) -> None:
        super().__init__(f"{detail} at {path}", operation=operation, **call)
        self.path = path


class CursorError(CallError):
    """A page position that cannot be used: malformed, repeated, or missing where more follows."""


class OutcomeUnknownError(CallError):
    """An operation that must not be repeated was sent, and what became of it is not known.

    ``reason`` is the name of the error this one stands for, ``settle`` the read that tells
    whether it was applied.
    """

    def __init__(self, detail: str, *, settle: str, **call: Any) -> None:
        super().__init__(f"{detail}; to settle it: {settle}", **call)
        self.settle = settle


class APIError(CallError):
    """The server said no.

    ``type`` is Drift's own word (``not_found``, ``validation_error`` ...), ``message`` its text.
    """

    def __init__(
        self, *, status: int, type: str | None, message: str, operation: str, **call: Any
    ) -> None:
        said = " ".join(filter(None, (str(status), type)))
        super().__init__(
            f"{said} ({message})" if message else said, operation=operation, status=status, **call
        )
        self.type = type
        self.message = message


class BadRequestError(APIError):
    """The request was refused as wrong (400, 413, 422)."""


class AuthenticationError(APIError):
    """The token was refused (401, 403)."""


class ScopeError(AuthenticationError):
    """The token lacks a scope; ``scope`` names it."""

    def __init__(self, *, scope: str, **call: Any) -> None:
        super().__init__(**call)
        self.scope = scope


class NotFoundError(APIError):
    """There is no such thing (404)."""


class ConflictError(APIError):
    """It exists already (409)."""


class RateLimitError(APIError):
    """Too many requests (429); ``retry_after`` is the wait asked for in seconds, if given."""

    def __init__(self, *, retry_after: float | None = None, **call: Any) -> None:
        super().__init__(**call)
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
    429: RateLimitError,
}

_WORD = re.compile(r"[^\s<>\"']+")
_TOKEN = re.compile(r"[A-Za-z0-9_\-.~+/]{24,}=*")
_PHONE = re.compile(r"(?<![\d-])\+?\(?(?!\d{4}-\d\d-\d\d)\d(?:[-. ()/]{0,2}\d){6,14}")
_JSON_TEXT = re.compile(r"""("(?:[^"\\]|\\.)*(?:"|\\?$)|'(?:[^'\\]|\\.)*(?:'|\\?$))(\s*:)?""")
_KEY = re.compile(r"[\w $-]{1,40}")
_STRANGE = re.compile(r"[^\x20-\x7e]+")
_BLANKS = re.compile(" +")
_LOOKED_AT = 4096


def excerpt(text: str) -> str:
    """Return the start of *text* fit for an error: on one line, without what may be personal.

    Addresses, telephone numbers and what looks like a token are masked, and all texts in JSON.
    """
    # UTF-16 read as UTF-8 has a NUL in each letter, which would part the words.
    line = _STRANGE.sub(_printable, text[:_LOOKED_AT].replace("\0", ""))
    if len(text) > _LOOKED_AT:
        line = line.rpartition(" ")[0] or line  # half an address would not be known for one
    if line.lstrip("\ufffd ").startswith(("{", "[", '"')):
        line = _JSON_TEXT.sub(_mask_text, line)
    masked = _PHONE.sub(_mask_number, _WORD.sub(_mask_word, line))
    return masked.encode()[:EXCERPT_BYTES].decode(errors="ignore").strip()


def _printable(strange: re.Match[str]) -> str:
    """Leave nothing that ends a line or turns its direction."""
    signs = "".join(sign if sign.isprintable() else " " for sign in strange[0])
    return _BLANKS.sub(" ", signs)


def _mask_text(text: re.Match[str]) -> str:
    if text[2] and _KEY.fullmatch(text[1][1:-1]):
        return text[0]
    return f'"***"{text[2] or ""}'


def _mask_word(word: re.Match[str]) -> str:
    if "@" in word[0] or "%40" in word[0]:
        return "***"
    return _TOKEN.sub("***", word[0])


def _mask_number(number: re.Match[str]) -> str:
    return number[0] if number[0].isdecimal() else "***"  # an id has no signs in it


def reply_applied(status: int) -> bool | None:
    """Return what a reply with this status says about the request that it answers."""
    if 200 <= status < 300:
        return True
    return False if status == 503 or (400 <= status < 500 and status != 408) else None


def merged(one: bool | None, other: bool | None) -> bool | None:
    """Return what two attempts together say: True if one was applied, None if one may have been."""
    if one or other:
        return True
    return None if one is None or other is None else False


def reply_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    operation: str,
    scope: str | None = None,
    retry_after: float | None = None,
    **call: Any,
) -> APIError:
    """Return the error that a reply with a status other than 2xx stands for."""
    kind, message = _said(body)
    if 300 <= status < 400:
        message = f"redirect to {_origin(headers.get('Location', ''))}, not followed"
    given: dict[str, Any] = {
        "status": status,
        "type": kind,
        "message": message,
        "operation": operation,
        **call,
    }
    if status == 403 and scope and scope in message:
        return ScopeError(scope=scope, **given)
    if status == 429:
        return RateLimitError(retry_after=retry_after, **given)
    return _BY_STATUS.get(status, ServerError if status >= 500 else APIError)(**given)


def _said(body: bytes) -> tuple[str | None, str]:
    """Return type and message out of what Drift, or a gateway before it, sends."""
    text = body[: 64 * 1024].decode(errors="replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None, excerpt(text)
    match value:
        case {"error": {} as error}:
            return _word(error.get("type")), _text(error.get("message"))
        case {"errors": [{} as error, *_]}:
            return _word(error.get("type")), _text(error.get("message"))
        case {"errors": [str(message), *_]}:
            return None, _text(message)
        case {"error": str(kind), "error_description": str(message)}:
            return _word(kind), _text(message)
        case {"error": str(message)} | {"message": str(message)} | str(message):
            return None, _text(message)
        case {"detail": str(message)}:
            return _word(value.get("scimType")), _text(message)
    return None, excerpt(text)


def _word(value: object) -> str | None:
    return excerpt(value)[:64] if isinstance(value, str) else None


def _text(value: object) -> str:
    return excerpt(value) if isinstance(value, str) else ""


def _origin(location: str) -> str:
    try:
        parts = urlsplit(location)
        if not parts.netloc:
            return f"{excerpt(parts.scheme)}:" if parts.scheme else "the same origin"
        return excerpt(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
    except ValueError:
        return "a malformed address"
