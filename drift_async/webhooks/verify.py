"""Verification of deliveries. Drift signs nothing: it sends a static token in header and body."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ..core.secret import Secret, hide
from ..core.strict_json import loads
from ..core.validate import integer, number, token_secret
from ..errors import InputError, VerificationError
from .events import WebhookEvent, read_event

TOKEN_HEADER = "x-verification-token"
MIB = 1024 * 1024

Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]
"""Headers as any web framework has them: a mapping, or pairs of name and value."""


class Verifier:
    """Reads the event of a body that carries one of the tokens, and refuses all other bodies.

    *tolerance* is how many seconds the time in an event may be away from *clock*, epoch seconds.
    """

    def __init__(
        self,
        tokens: tuple[str | Secret, ...] | None,
        *,
        tolerance: float | None,
        max_body: int,
        clock: Callable[[], float],
    ) -> None:
        if not tokens:
            raise InputError("verification_token", "must be a text, or several")
        self._tokens = [token_secret("verification_token", token) for token in tokens]
        self._tolerance = None if tolerance is None else number("tolerance", tolerance, above=0)
        self.max_body = integer("max_body", max_body, 1)
        self._clock = clock

    def verify(self, body: bytes, headers: Headers) -> WebhookEvent:
        """Return the event, or raise `VerificationError`; `InputError` for a wrong type."""
        if not isinstance(body, bytes | bytearray | memoryview):
            raise InputError("body", "must be the bytes that came")
        sent = header_values(headers, TOKEN_HEADER)
        if not all(map(self._accepts, sent)):
            raise VerificationError("the verification token is wrong", reason="token")
        if len(body) > self.max_body:
            raise VerificationError(f"the body is over {self.max_body} bytes", reason="size")
        try:
            payload = loads(bytes(body), limit_depth=True)
        except ValueError:
            payload = None
        if type(payload) is not dict:
            raise VerificationError("the body is not a JSON object", reason="body")
        if "token" in payload:
            if not self._accepts(payload.pop("token")):
                raise VerificationError("the verification token is wrong", reason="token")
        elif not sent:
            raise VerificationError("there is no verification token", reason="token")
        event = read_event(payload)
        if self._is_stale(event):
            raise VerificationError(
                f"the event is more than {self._tolerance:g} s away from now", reason="time"
            )
        return event

    def _accepts(self, token: object) -> bool:
        given = Secret(token if isinstance(token, str) else "")
        accepted = False
        for secret in self._tokens:  # all of them: the time must not reveal which one matched
            accepted |= secret == given
        return accepted

    def _is_stale(self, event: WebhookEvent) -> bool:
        when = event.occurred_at
        if self._tolerance is None or when is None:
            return False
        return abs(when.timestamp() - self._clock()) > self._tolerance


def hide_all(tokens: str | Secret | Collection[str | Secret]) -> tuple[str | Secret, ...] | None:
    """Return the tokens as secrets, for the caller to bind at once; None if they are no texts."""
    given: object = (tokens,) if isinstance(tokens, str | Secret) else tokens
    if not isinstance(given, Collection) or isinstance(given, bytes | Mapping):
        return None
    return tuple(hide(token) for token in given)


def header_values(headers: Headers, name: str) -> list[str]:
    """Return all values of the header *name* (in lower case), as "" where a value is not text."""
    items = getattr(headers, "items", None)
    try:
        pairs: Iterable[Any] = items() if callable(items) else headers
        return [_text(value) for key, value in pairs if _text(key).lower() == name]
    except (TypeError, ValueError):
        pass  # raised below: as its context, this error would keep the headers
    raise InputError("headers", "must be a mapping, or pairs of name and value")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""
