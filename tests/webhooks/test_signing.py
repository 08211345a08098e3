"""Signatures for users' own relays: what Standard Webhooks says, and a verdict on anything."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, strategies as st

from drift_async import InputError, RelayKey, Secret, VerificationError
from tests.support.deliveries import Clock
from tests.support.errors import told

# The example of the reference implementations.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
MOMENT = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {
    "webhook-id": ID,
    "webhook-timestamp": str(MOMENT),
    "webhook-signature": SIGNATURE,
}
OTHER = base64.b64encode(b"k" * 32).decode()


def key(*secrets: str | Secret, now: float = MOMENT, **settings: Any) -> RelayKey:
    return RelayKey(*(secrets or (SECRET,)), clock=Clock(now), **settings)


@pytest.mark.smoke
def test_the_example_of_the_standard_is_signed_and_verified() -> None:
    assert key().sign(BODY, delivery_id=ID) == HEADERS
    key().verify(BODY, HEADERS)
    key(SECRET.removeprefix("whsec_")).verify(BODY, HEADERS)
    key(Secret(SECRET)).verify(BODY, [(name.upper(), value) for name, value in HEADERS.items()])
    key().verify(BODY, [(name.encode(), value.encode()) for name, value in HEADERS.items()])


def test_secrets_can_be_changed_one_by_one() -> None:
    both = key(OTHER, SECRET).sign(BODY, delivery_id=ID)
    assert both["webhook-signature"].split(" ")[1] == SIGNATURE
    for verifier in (key(), key(OTHER), key(SECRET, OTHER)):
        verifier.verify(BODY, both)
    key(OTHER, SECRET).verify(BODY, HEADERS)
    key().verify(BODY, {**HEADERS, "webhook-signature": f"v1a,x v2,y v1,zz {SIGNATURE}"})
    with pytest.raises(VerificationError):
        key(OTHER).verify(BODY, HEADERS)


@pytest.mark.parametrize(
    ("now", "good"),
    [
        (300, True),
        (-300, True),
        (300.5, False),
        (-300.5, False),
        (1e12, False),
        (float("nan"), False),
    ],
)
def test_a_signature_is_good_for_five_minutes_both_ways(now: float, good: bool) -> None:
    if good:
        key(now=MOMENT + now).verify(BODY, HEADERS)
        return
    with pytest.raises(VerificationError) as caught:
        key(now=MOMENT + now).verify(BODY, HEADERS)
    assert caught.value.reason == "time"


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        (BODY + b" ", {}),
        (b"", {}),
        (BODY, {"webhook-id": ID + "x"}),
        (BODY, {"webhook-id": ""}),
        (BODY, {"webhook-id": f"{ID}.1"}),
        (BODY, {"webhook-id": "é"}),
        (BODY, {"webhook-timestamp": str(MOMENT + 1)}),
        (BODY, {"webhook-timestamp": f"{MOMENT}.0"}),
        (BODY, {"webhook-timestamp": f" {MOMENT}"}),
        (BODY, {"webhook-timestamp": "١٦١٤٢٦٥٣٣٠"}),
        (BODY, {"webhook-timestamp": "9" * 5000}),
        (BODY, {"webhook-timestamp": ""}),
        (BODY, {"webhook-signature": ""}),
        (BODY, {"webhook-signature": "v1"}),
        (BODY, {"webhook-signature": "v1,"}),
        (BODY, {"webhook-signature": "v1,é"}),
        (BODY, {"webhook-signature": "v1,\ud800"}),
        (BODY, {"webhook-signature": SIGNATURE[:-1]}),
        (BODY, {"webhook-signature": SIGNATURE.lower()}),
        (BODY, {"webhook-signature": SIGNATURE.replace("v1", "v2")}),
        (BODY, {"webhook-signature": SIGNATURE.replace("v1,", "")}),
        (BODY, {"webhook-signature": " ".join(["v1,x"] * 100 + [SIGNATURE])}),
        (BODY, {"Webhook-Signature": SIGNATURE}),  # there twice
    ],
)
def test_a_forgery_is_refused(body: bytes, changes: dict[str, str]) -> None:
    with pytest.raises(VerificationError) as caught:
        key().verify(body, {**HEADERS, **changes})
    assert caught.value.reason == "signature"


@pytest.mark.parametrize("name", HEADERS)
def test_a_missing_header_is_refused(name: str) -> None:
    with pytest.raises(VerificationError, match="there is no signature"):
        key().verify(BODY, {other: HEADERS[other] for other in HEADERS if other != name})


def test_one_signature_does_not_stand_for_another_body() -> None:
    """An id with a full stop would move the border between id, time and body."""
    signed = key().sign(f"{MOMENT}.evil".encode(), delivery_id="a")
    with pytest.raises(VerificationError):
        key().verify(b"evil", {**signed, "webhook-id": f"a.{MOMENT}"})
    with pytest.raises(InputError, match="without full stops"):
        key().sign(BODY, delivery_id=f"a.{MOMENT}")


@pytest.mark.parametrize("secret", ["", "whsec_", "no base64!", "é", "\ud800", None, b"x" * 32, 7])
def test_what_is_no_secret_is_bad_input(secret: Any) -> None:
    with pytest.raises(InputError, match="secrets: must be"):
        RelayKey(SECRET, secret)


def test_a_secret_has_at_least_24_bytes() -> None:
    RelayKey(base64.b64encode(b"k" * 24).decode()).sign(BODY, delivery_id=ID)
    with pytest.raises(InputError, match="at least 24 bytes"):
        RelayKey(base64.b64encode(b"k" * 23).decode())
    with pytest.raises(InputError, match="give at least one"):
        RelayKey()


@pytest.mark.parametrize("delivery_id", ["", "a b", "a\r\nb", "é", "a" * 257, None, 7])
def test_an_id_that_no_header_could_carry_is_bad_input(delivery_id: Any) -> None:
    with pytest.raises(InputError, match="delivery_id: must be"):
        key().sign(BODY, delivery_id=delivery_id)


@pytest.mark.parametrize("body", ["text", None, bytearray(BODY)])
def test_a_body_is_bytes(body: Any) -> None:
    for do in (lambda: key().sign(body, delivery_id=ID), lambda: key().verify(body, HEADERS)):
        with pytest.raises(InputError, match="body: must be"):
            do()


def test_the_secrets_show_nowhere() -> None:
    bare = SECRET.removeprefix("whsec_")
    ours = key(Secret(SECRET))
    with pytest.raises(VerificationError) as caught:
        ours.verify(b"x", HEADERS)
    said = f"{ours!r} {vars(ours)} {told(caught.value, with_locals=True)}"
    assert bare not in said
    assert repr(base64.b64decode(bare))[2:-1] not in said


@pytest.mark.parametrize(
    ("secrets", "settings"),
    [([f"{SECRET}*"], {}), ([SECRET, f"{SECRET}*"], {}), ([SECRET], {"tolerance": -1})],
)
def test_bad_settings_leave_no_secret_in_a_traceback(secrets: Any, settings: Any) -> None:
    with pytest.raises(InputError) as caught:
        RelayKey(*secrets, **settings)
    assert SECRET.removeprefix("whsec_") not in told(caught.value, with_locals=True)


TEXTS = st.text() | st.binary() | st.sampled_from([SIGNATURE, ID, str(MOMENT)])
NAMES = st.sampled_from(sorted(HEADERS)) | TEXTS


@given(
    body=st.binary() | st.just(BODY),
    headers=st.dictionaries(NAMES, TEXTS | st.none() | st.integers())
    | st.lists(st.tuples(NAMES, TEXTS))
    | st.builds(lambda more: {**HEADERS, **more}, st.dictionaries(NAMES, TEXTS)),
)
def test_anything_gets_a_verdict(body: bytes, headers: Any) -> None:
    try:
        key().verify(body, headers)
    except VerificationError:
        return
    assert body == BODY
    assert SIGNATURE in str(headers)


@given(body=st.binary(), secrets=st.lists(st.binary(min_size=24), min_size=1, max_size=3))
def test_what_is_signed_is_verified(body: bytes, secrets: list[bytes]) -> None:
    ours = key(*(base64.b64encode(secret).decode() for secret in secrets))
    ours.verify(body, ours.sign(body, delivery_id=ID))
