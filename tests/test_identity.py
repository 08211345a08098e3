"""Signed identities: two other libraries take them, and what is wrong is refused when making."""

from __future__ import annotations

import base64
import hmac
import json
import time
import traceback
from decimal import Decimal
from typing import Any

import joserfc.jwk
import joserfc.jwt
import jwt
import pytest
from hypothesis import given, strategies as st

import drift_async.sync
from drift_async import InputError, Secret, WeakKeyWarning, signed_identity
from drift_async.identity import _token

SECRET = "a-secret-of-the-widget-0123456789"
NOW = 1_700_000_000.25


def both(token: str, secret: str = SECRET) -> dict[str, Any]:
    """Return the claims as both libraries verify them."""
    ours: dict[str, Any] = jwt.decode(
        token, secret, algorithms=["HS256"], options={"require": ["sub", "exp", "iat"]}
    )
    key = joserfc.jwk.OctKey.import_key(secret)
    theirs = joserfc.jwt.decode(token, key, algorithms=["HS256"])
    joserfc.jwt.JWTClaimsRegistry(
        sub={"essential": True}, exp={"essential": True}, iat={"essential": True}
    ).validate(theirs.claims)
    assert theirs.claims == ours
    assert theirs.header == {"typ": "JWT", "alg": "HS256"}
    return ours


@pytest.mark.smoke
def test_a_token_says_who_until_when() -> None:
    before = time.time()
    claims = both(signed_identity("12345", SECRET))
    assert claims.keys() == {"sub", "iat", "exp"}
    assert claims["sub"] == "12345"
    assert int(before) <= claims["iat"] <= time.time()
    assert 300 <= claims["exp"] - claims["iat"] <= 301
    hour = both(signed_identity("12345", Secret(SECRET), expires_in=3600))
    assert 3600 <= hour["exp"] - hour["iat"] <= 3601


def test_the_token_is_made_of_three_parts_signed_with_the_secret() -> None:
    token = _token("ü", Secret(SECRET), NOW, 0.1)
    head, claims, signature = (
        base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")
    )
    assert json.loads(head) == {"typ": "JWT", "alg": "HS256"}
    # Not past already, however short it is meant to be.
    assert json.loads(claims) == {"sub": "ü", "iat": 1_700_000_000, "exp": 1_700_000_001}
    signed = token.rpartition(".")[0].encode()
    assert signature == hmac.digest(SECRET.encode(), signed, "sha256")
    assert "=" not in token


def check(count: int) -> None:
    for number in range(count):
        user = f"user-{number}-é😀"[: 5 + number % 20]
        secret = f"{number:032d}{'x' * (number % 40)}"
        assert both(signed_identity(user, secret, expires_in=60 + number), secret)["sub"] == user


def test_two_libraries_verify_the_tokens() -> None:
    check(200)


@pytest.mark.slow
def test_two_libraries_verify_ten_thousand_tokens() -> None:
    check(10_000)


@given(user=st.text(), secret=st.text(min_size=32))
def test_any_text_gives_a_good_token_or_is_bad_input(user: str, secret: str) -> None:
    try:
        token = signed_identity(user, secret)
    except InputError:
        return
    assert both(token, secret)["sub"] == user


def test_a_token_with_another_secret_or_another_user_is_refused() -> None:
    token = signed_identity("12345", SECRET)
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, SECRET + "x", algorithms=["HS256"])
    head, _, signature = token.split(".")
    other = signed_identity("67890", SECRET).split(".")[1]
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(f"{head}.{other}.{signature}", SECRET, algorithms=["HS256"])


def test_an_expired_token_is_refused() -> None:
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(_token("1", Secret(SECRET), NOW, 300), SECRET, algorithms=["HS256"])


def test_there_is_no_other_algorithm() -> None:
    unasked: Any = signed_identity
    for word in ("alg", "algorithm", "headers"):
        with pytest.raises(TypeError):
            unasked("12345", SECRET, **{word: "none"})


@pytest.mark.parametrize("user", [12345, 12345.0, True, None, b"12345", ["12345"], "", " "])
def test_the_user_is_a_text(user: Any) -> None:
    with pytest.raises(InputError) as caught:
        signed_identity(user, SECRET)
    assert caught.value.field == "user_id"


@pytest.mark.parametrize(
    "seconds",
    [float("nan"), float("inf"), -float("inf"), 0, -1, 1e300, None, "300", True, Decimal(300)],
)
def test_a_token_always_ends(seconds: Any) -> None:
    with pytest.raises(InputError) as caught:
        signed_identity("12345", SECRET, expires_in=seconds)
    assert caught.value.field == "expires_in"


@pytest.mark.parametrize("secret", ["", " ", None, b"x" * 32, 7, "\ud800" * 32])
def test_the_secret_is_a_text(secret: Any) -> None:
    with pytest.raises(InputError) as caught:
        signed_identity("12345", secret)
    assert caught.value.field == "secret"


def test_a_secret_under_32_bytes_is_warned_of_where_it_is_given() -> None:
    with pytest.warns(WeakKeyWarning, match="has 31 bytes; HS256 asks for at least 32") as caught:
        token = signed_identity("12345", "x" * 31)
    assert caught[0].filename == __file__
    assert token.count(".") == 2
    assert both(signed_identity("12345", "é" * 16), "é" * 16)  # bytes count, not characters


def test_neither_warning_nor_error_tells_the_secret() -> None:
    short = Secret("short-secret")
    with pytest.raises(WeakKeyWarning) as warned:  # warnings are errors here
        signed_identity("12345", short)
    with pytest.raises(InputError) as refused:
        signed_identity("", short)
    for error in (warned.value, refused.value):
        trace = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert "short-secret" not in "".join(trace.format())


@pytest.mark.parametrize(
    ("user", "secret", "seconds"),
    [
        (7, "planted-secret-of-the-widget-0123", 300),
        ("7", "planted-secret-of-the-widget-0123", 0),
        ("7", "planted-secret\ud800", 300),
        ("7", "planted-secret", 300),
    ],
)
def test_nor_does_one_about_a_secret_given_as_text(user: Any, secret: str, seconds: float) -> None:
    arguments = [user, secret]
    with pytest.raises((InputError, WeakKeyWarning)) as caught:
        signed_identity(*arguments, expires_in=seconds)
    del secret
    arguments.clear()
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "planted-secret" not in "".join(trace.format())


def test_both_faces_have_the_same() -> None:
    assert drift_async.sync.signed_identity is signed_identity
