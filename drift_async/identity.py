"""Signed identities: a page can prove the identity of its visitor to Drift."""

from __future__ import annotations

import base64
import hmac
import math
import time
import warnings

from .core.secret import Secret, hide
from .core.strict_json import dumps
from .core.validate import number, text
from .errors import InputError

LEAST_KEY = 32


class WeakKeyWarning(UserWarning):
    """A secret is shorter than HS256 asks for."""


def signed_identity(user_id: str, secret: str | Secret, *, expires_in: float = 300.0) -> str:
    """Return a token (JWT, HS256) that identifies the visitor, for ``userJwt`` of the widget.

    *user_id* is the text that the page gives to ``drift.identify``, *secret* the one in the
    widget's security settings; the token is good for *expires_in* seconds from now. Bad input
    raises `InputError`; a secret under 32 bytes is a `WeakKeyWarning`.
    https://devdocs.drift.com/docs/securing-drift-on-your-site-using-signed-identities
    """
    secret = hide(secret)
    subject = text("user_id", user_id)
    lifetime = number("expires_in", expires_in, above=0)
    key = _checked(secret)
    size = len(key.reveal().encode())
    if size < LEAST_KEY:
        warnings.warn(
            f"the secret has {size} bytes; HS256 asks for at least {LEAST_KEY}",
            WeakKeyWarning,
            stacklevel=2,
        )
    return _token(subject, key, time.time(), lifetime)


def _token(subject: str, key: Secret, now: float, lifetime: float) -> str:
    claims = {"sub": subject, "iat": int(now), "exp": math.ceil(now + lifetime)}
    signed = _base64(dumps({"typ": "JWT", "alg": "HS256"})) + b"." + _base64(dumps(claims))
    digest = hmac.digest(key.reveal().encode(), signed, "sha256")
    return (signed + b"." + _base64(digest)).decode()


def _checked(secret: object) -> Secret:
    if not isinstance(secret, Secret):
        raise InputError("secret", "must be a text")
    try:
        text("secret", secret.reveal())
    except InputError as error:
        raise error.with_traceback(None) from None  # its frames hold the text
    return secret


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
