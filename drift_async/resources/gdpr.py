"""Data privacy: retrieval and erasure of the data of a person."""

from __future__ import annotations

from ..core import validate
from ..core.models import Model, model
from ..core.request import Endpoint
from ..core.resource import Resource


@model
class GdprRetrieval(Model):
    """A retrieval that was taken on; the result is mailed to ``sent_to_email``."""

    message: str | None = None
    sent_to_email: str | None = None


@model
class GdprDeletion(Model):
    """An erasure that was taken on."""

    message: str | None = None


RETRIEVE = Endpoint(
    "POST",
    "/gdpr/retrieve",
    GdprRetrieval,
    effect="once",
    scope="gdpr_read",
    settle_hint="ask the owner of the organisation whether the mail has come",
)
DELETE = Endpoint("POST", "/gdpr/delete", GdprDeletion, effect="idempotent", scope="gdpr_write")


class Gdpr(Resource):
    """Contacts and users of an e-mail address; only for apps of the organisation itself.

    https://devdocs.drift.com/docs/automating-gdpr-retrieval-and-deletion
    """

    async def retrieve(self, email: str) -> GdprRetrieval:
        """Have all that is stored of a person mailed to the owner of the organisation.

        Each call sends a mail; a lost reply raises `OutcomeUnknownError`.
        https://devdocs.drift.com/docs/automating-gdpr-retrieval-and-deletion
        """
        return await self._call(RETRIEVE, {"email": validate.email("email", email)})

    async def delete(self, email: str) -> GdprDeletion:
        """Have all that is stored of a person erased, for good; this happens after the reply.

        https://devdocs.drift.com/docs/gdpr-deletion
        """
        return await self._call(DELETE, {"email": validate.email("email", email)})
