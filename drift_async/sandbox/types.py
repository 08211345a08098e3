"""Types that all parts of the sandbox share, and that import none of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

Json = dict[str, Any]

ABSENT: Final = object()
SCIM_TYPE: Final = "application/scim+json"
SCIM_ERROR: Final = "urn:ietf:params:scim:api:messages:2.0:Error"

TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "authentication_error",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    429: "rate_limit",
}

encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""JSON text as the service writes it."""


@attrs.frozen
class Token:
    """An access token: its scopes, when it was made and when it ends (seconds, None = never).

    `grant` is the number of the user's agreement it comes from; 0 for one made by hand.
    """

    text: str
    scopes: frozenset[str]
    created: float
    expires: float | None
    grant: int = 0


@attrs.define
class Reply:
    """The reply to a request: a JSON value, or bytes when `content` is given."""

    value: Any = ABSENT
    status: int = 200
    headers: list[tuple[str, str]] = attrs.field(factory=list)
    content: bytes | None = None
    content_type: str = "application/json"

    def payload(self) -> bytes:
        """Return the body as bytes; empty when there is neither a value nor content."""
        if self.content is not None:
            return self.content
        if self.value is ABSENT:
            return b""
        return encode(self.value).encode()


class Refusal(Exception):
    """A refused request; the server turns it into the error body of the path.

    With `error`, OAuth's name of the refusal, the body has OAuth's form.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        scim_type: str | None = None,
        error: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.scim_type = scim_type
        self.error = error
        self.headers = headers

    def reply(self, *, scim: bool) -> Reply:
        """Return the refusal as a reply, in SCIM's form, OAuth's or Drift's."""
        headers = list(self.headers)
        if self.error:
            body: Json = {"error": self.error, "error_description": self.message}
            return Reply(body, self.status, headers)
        if scim:
            body = {"schemas": [SCIM_ERROR], "status": str(self.status)}
            if self.scim_type:
                body["scimType"] = self.scim_type
            body["detail"] = self.message
            return Reply(body, self.status, headers, content_type=SCIM_TYPE)
        rest = "internal_error" if self.status >= 500 else "validation_error"
        kind = TYPES.get(self.status, rest)
        return Reply({"error": {"type": kind, "message": self.message}}, self.status, headers)
