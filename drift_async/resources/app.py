"""The app itself: its token, and its installation in an organisation."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import NoneType
from typing import ClassVar

from ..core import validate
from ..core.models import Model, model
from ..core.request import Endpoint
from ..core.resource import Resource
from ..core.secret import Secret, hide
from ..core.validate import token_secret


@model
class TokenInfo(Model):
    """The details of an access token. Refuses pickling; only `to_json` reveals the token.

    ``expires_in`` is kept as it comes, in milliseconds by the documentation; 0 means that the token
    is valid until it is revoked. ``authenticated_userid`` names the organisation,
    ``credential_id`` the app.
    """

    access_token: Secret
    expires_in: int
    id: str | None = None
    token_type: str | None = None
    authenticated_userid: str | None = None
    credential_id: str | None = None
    created_at: datetime | None = None
    scope: str | None = None

    wire: ClassVar[Mapping[str, str]] = {
        "access_token": "access_token",
        "expires_in": "expires_in",
        "token_type": "token_type",
        "authenticated_userid": "authenticated_userid",
        "credential_id": "credential_id",
        "created_at": "created_at",
    }

    @property
    def never_expires(self) -> bool:
        """Whether the token is valid until it is revoked."""
        return self.expires_in == 0

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that the token was granted with."""
        return frozenset((self.scope or "").split())


TOKEN_INFO = Endpoint("POST", "/app/token_info", TokenInfo, effect="safe", envelope="bare")
UNINSTALL = Endpoint("POST", "/app/uninstall", NoneType, effect="idempotent", envelope="ok")


class App(Resource):
    """The app that the client speaks for."""

    async def token_info(self, token: str | Secret | None = None) -> TokenInfo:
        """Return the details of *token*, or of the client's own; `NotFoundError` if it is unknown.

        https://devdocs.drift.com/docs/get-token-information
        """
        token = hide(token)
        secret = self._caller.token() if token is None else token_secret("token", token)
        return await self._call(TOKEN_INFO, {"access_token": secret})

    async def uninstall(self, client_id: str, client_secret: str | Secret) -> None:
        """Remove the app from the organisation of the client's token, which ends with it.

        A repeat raises `AuthenticationError`. https://devdocs.drift.com/docs/app-uninstall
        """
        client_secret = hide(client_secret)
        await self._call(
            UNINSTALL,
            clientId=validate.text("client_id", client_id),
            clientSecret=token_secret("client_secret", client_secret),
        )
