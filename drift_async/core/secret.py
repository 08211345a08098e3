"""Credentials that no output shows."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Never

from ..errors import InputError


class Secret:
    """A credential: masked however it is printed, compared in constant time, never pickled."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """Return the text itself."""
        text: str = object.__getattribute__(self, "_text")
        return text

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self.reveal().encode(errors="surrogatepass"),
            other.reveal().encode(errors="surrogatepass"),
        )

    __hash__ = None  # type: ignore[assignment]  # a hash would show which secrets are equal

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError("a secret does not change")

    def __reduce__(self) -> Never:
        raise TypeError("a secret is not pickled; reveal() it where it has to travel")


def token_secret(field: str, value: str | Secret) -> Secret:
    """Return *value* as a secret; `InputError` if no header could carry it."""
    text = value.reveal() if isinstance(value, Secret) else value
    if not isinstance(text, str) or not text:
        raise InputError(field, "must be a text that is not empty")
    if not is_visible(text):
        raise InputError(field, "must be visible ASCII without blanks or line ends")
    return Secret(text)


def is_visible(text: str) -> bool:
    """Return whether a header can carry *text*."""
    return text != "" and all("\x21" <= sign <= "\x7e" for sign in text)


def bearer(token: Secret) -> Secret:
    """Return the value of the Authorization header for *token*."""
    return Secret(f"Bearer {token.reveal()}")


def secret_from(env: Mapping[str, str], name: str) -> tuple[str | None, str]:
    """Return the text of *env* under *name*, or of the file named by *name*_FILE, and an error.

    The text is None if there is none; then the error says why.
    """
    if text := env.get(name):
        return text, ""
    if file := env.get(f"{name}_FILE"):
        try:
            text = Path(file).read_text("ascii").strip()
        except (OSError, UnicodeError) as error:
            return None, f"{name}_FILE cannot be read ({type(error).__name__})"
        return (text, "") if text else (None, f"{name}_FILE is empty")
    return None, f"set {name} or {name}_FILE"
