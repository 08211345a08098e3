"""Standard Webhooks signatures, for deliveries that users pass on to their own services."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable

from ..core.secret import Secret, hide
from ..core.validate import number
from ..errors import InputError, VerificationError
from .verify import Headers, header_values

MIN_KEY_BYTES = 24
MAX_SIGNATURES = 16

_SECONDS = re.compile(r"[0-9]{1,12}")
_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,256}")


class RelayKey:
    """Signs and verifies bodies: https://github.com/standard-webhooks/standard-webhooks

    *secrets* are base64 of at least 24 bytes, with or without ``whsec_``. With several, each signs
    and any is accepted, so that they can be changed one by one. A signature is valid for
    *tolerance* seconds before and after *clock*, which gives epoch seconds.

    >>> headers = RelayKey(secret).sign(body, delivery_id=event.key)
    """

    def __init__(
        self,
        *secrets: str | Secret,
        tolerance: float = 300.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        secrets = tuple(map(hide, secrets))
        if not secrets:
            raise InputError("secrets", "give at least one")
        self._keys = [_checked(secret) for secret in secrets]
        self._tolerance = number("tolerance", tolerance, above=0)
        self._clock = clock

    def sign(self, body: bytes, *, delivery_id: str) -> dict[str, str]:
        """Return the headers to send with *body*.

        *delivery_id* is 1 to 256 characters of visible ASCII without full stops, the same for
        every repeat. Raises `InputError` if an argument is not as described.
        """
        if not isinstance(body, bytes):
            raise InputError("body", "must be bytes")
        if not isinstance(delivery_id, str) or not _ID.fullmatch(delivery_id):
            raise InputError(
                "delivery_id", "must be 1 to 256 visible ASCII characters without full stops"
            )
        seconds = str(int(self._clock()))
        return {
            "webhook-id": delivery_id,
            "webhook-timestamp": seconds,
            "webhook-signature": " ".join(self._signatures(delivery_id, seconds, body)),
        }

    def verify(self, body: bytes, headers: Headers) -> None:
        """Check that *body* was signed with one of the secrets, just now.

        Raises `VerificationError` if it was not, whatever the headers hold.
        """
        if not isinstance(body, bytes):
            raise InputError("body", "must be the bytes that came")
        sent = [
            header_values(headers, name)
            for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
        ]
        if [len(values) for values in sent] != [1, 1, 1]:
            raise VerificationError("there is no signature, or more than one", reason="signature")
        (delivery_id,), (seconds,), (signatures,) = sent
        # A full stop in the id would let one signature stand for several bodies.
        if not _ID.fullmatch(delivery_id) or not _SECONDS.fullmatch(seconds):
            raise VerificationError("the signature's headers are malformed", reason="signature")
        if not abs(self._clock() - int(seconds)) <= self._tolerance:
            raise VerificationError("the signature is too far from now", reason="time")
        if not self._is_signed(delivery_id, seconds, body, signatures):
            raise VerificationError("the signature is wrong", reason="signature")

    def _is_signed(self, delivery_id: str, seconds: str, body: bytes, signatures: str) -> bool:
        matches = False
        accepted = self._signatures(delivery_id, seconds, body)
        for given in signatures.split(" ")[:MAX_SIGNATURES]:
            for ours in accepted:  # all of them: the time must not reveal which one matched
                matches |= hmac.compare_digest(given.encode(errors="surrogatepass"), ours.encode())
        return matches

    def _signatures(self, delivery_id: str, seconds: str, body: bytes) -> list[str]:
        signed = f"{delivery_id}.{seconds}.".encode() + body
        digests = [hmac.digest(_decoded(key), signed, "sha256") for key in self._keys]
        return [f"v1,{base64.b64encode(digest).decode()}" for digest in digests]


def _checked(secret: object) -> Secret:
    if not isinstance(secret, Secret) or not isinstance(secret.reveal(), str):
        raise InputError("secrets", "must be texts")
    if len(_decoded(secret)) < MIN_KEY_BYTES:
        raise InputError("secrets", f"must be base64 of at least {MIN_KEY_BYTES} bytes")
    return secret


def _decoded(secret: Secret) -> bytes:
    """Return the bytes of a secret; none if it is not base64."""
    try:
        text = secret.reveal().removeprefix("whsec_").encode("ascii", "replace")
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
