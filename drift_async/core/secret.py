"""Credentials that no output shows."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Never


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


def hide(value: Any) -> Any:
    """Return a secret that holds the value, whatever it is; None and secrets as they are.

    A function that is given a credential binds its parameter to this at once, so that no traceback
    with local variables shows the text.
    """
    return value if value is None or isinstance(value, Secret) else Secret(value)


def is_visible(text: str) -> bool:
    """Return whether a header can carry *text*."""
    return text != "" and all("\x21" <= sign <= "\x7e" for sign in text)


def bearer(token: Secret) -> Secret:
    """Return the value of the Authorization header for *token*."""
    return Secret(f"Bearer {token.reveal()}")


def env_value(env: Mapping[str, str] | None, name: str) -> str | None:
    """Return a variable of *env*, by default of the process's environment."""
    # Callers do not bind that environment to a local variable, which a traceback could show.
    return (os.environ if env is None else env).get(name)


def secret_from(env: Mapping[str, str] | None, name: str) -> tuple[Secret | None, str]:
    """Return the variable *name*, or what the file in *name*_FILE holds; or why there is none."""
    if (secret := hide(env_value(env, name) or None)) is not None:
        return secret, ""
    if file := env_value(env, f"{name}_FILE"):
        try:
            secret = Secret(Path(file).read_text("ascii").strip())
        except (OSError, UnicodeError) as error:
            return None, f"{name}_FILE cannot be read ({type(error).__name__})"
        return (secret, "") if secret.reveal() else (None, f"{name}_FILE is empty")
    return None, f"set {name} or {name}_FILE"
