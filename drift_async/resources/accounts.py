"""Accounts: the companies known to Drift."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import NoneType
from typing import Any

from ..core import validate
from ..core.models import Model, OpenEnum, body_of, model
from ..core.paging import Pager
from ..core.request import Endpoint
from ..core.resource import Resource
from ..core.validate import UNSET, Unset


class PropertyType(OpenEnum):
    """The type of a custom property."""

    STRING = "STRING"
    EMAIL = "EMAIL"
    NUMBER = "NUMBER"
    TEAMMEMBER = "TEAMMEMBER"
    ENUM = "ENUM"
    ENUMARRAY = "ENUMARRAY"
    DATE = "DATE"
    DATETIME = "DATETIME"
    LATLON = "LATLON"
    LAT = "LAT"
    LON = "LON"
    PHONE = "PHONE"
    URL = "URL"


@model
class CustomProperty(Model):
    """A property of an account that the organisation has defined; ``value`` is any JSON value."""

    label: str | None = None
    name: str | None = None
    value: Any = None
    type: PropertyType | None = None


@model
class Account(Model):
    """A company: https://devdocs.drift.com/docs/account-model"""

    account_id: str
    owner_id: int | None = None
    name: str | None = None
    domain: str | None = None
    custom_properties: tuple[CustomProperty, ...] | None = None
    deleted: bool | None = None
    targeted: bool | None = None
    create_date_time: datetime | None = None
    update_date_time: datetime | None = None


CREATE = Endpoint(
    "POST",
    "/accounts/create",
    Account,
    effect="once",
    scope="account_write",
    settle="accounts.all",
    settle_hint="look for the domain",
)
GET = Endpoint("GET", "/accounts/{account_id}", Account, scope="account_read")
ALL = Endpoint(
    "GET",
    "/accounts",
    list[Account],
    under="accounts",
    pages="next_url",
    key="account_id",
    scope="account_read",
)
UPDATE = Endpoint("PATCH", "/accounts/update", Account, effect="idempotent", scope="account_write")
DELETE = Endpoint(
    "DELETE",
    "/accounts/{account_id}",
    NoneType,
    effect="idempotent",
    envelope="ok",
    scope="account_write",
)


class Accounts(Resource):
    """Companies known to Drift: https://devdocs.drift.com/docs/account-model"""

    async def create(
        self,
        owner_id: int,
        *,
        name: str | None = None,
        domain: str | None = None,
        custom_properties: Sequence[CustomProperty] | None = None,
        targeted: bool | None = None,
    ) -> Account:
        """Create an account that belongs to the user *owner_id*, and return it.

        A *domain* that another account has raises `ConflictError`. A lost reply raises
        `OutcomeUnknownError`; nothing is created twice.
        https://devdocs.drift.com/docs/creating-an-account
        """
        body = validate.without_none(
            ownerId=validate.identity("owner_id", owner_id),
            **_fields(name, domain, custom_properties, targeted),
        )
        return await self._call(CREATE, body)

    async def get(self, account_id: str) -> Account:
        """Return an account, also a deleted one (``deleted`` is True).

        https://devdocs.drift.com/docs/account-model
        """
        return await self._call(GET, account_id=account_id)

    def all(self, *, page_size: int = 65, resume: str | None = None) -> Pager[Account]:
        """Return all accounts but the deleted, *page_size* (at most 65) to a request.

        https://devdocs.drift.com/docs/account-model
        """
        size = validate.integer("page_size", page_size, 1, 65)
        return self._pages(ALL, resume, index=0, size=size)

    async def update(
        self,
        account_id: str,
        owner_id: int,
        *,
        name: str | Unset | None = UNSET,
        domain: str | Unset | None = UNSET,
        custom_properties: Sequence[CustomProperty] | Unset | None = UNSET,
        targeted: bool | Unset | None = UNSET,
    ) -> Account:
        """Change the given fields, and return the account; the API requires the owner each time.

        *custom_properties* replace the old ones as a whole. None is sent as null.
        https://devdocs.drift.com/docs/updating-accounts
        """
        changes = _fields(name, domain, custom_properties, targeted)
        body = {
            "accountId": validate.text("account_id", account_id),
            "ownerId": validate.identity("owner_id", owner_id),
            **{field: value for field, value in changes.items() if value is not UNSET},
        }
        return await self._call(UPDATE, body)

    async def delete(self, account_id: str) -> None:
        """Hide an account from lists; it stays readable by its id.

        https://devdocs.drift.com/docs/account-model
        """
        await self._call(DELETE, account_id=account_id)


def _fields(
    name: str | Unset | None,
    domain: str | Unset | None,
    properties: Sequence[CustomProperty] | Unset | None,
    targeted: bool | Unset | None,
) -> dict[str, Any]:
    """Return the fields that may be set, under the API's names."""
    return {
        "name": validate.optional(validate.text, "name", name),
        "domain": validate.optional(validate.text, "domain", domain),
        "customProperties": validate.optional(_properties, "custom_properties", properties),
        "targeted": validate.optional(validate.boolean, "targeted", targeted),
    }


def _properties(field: str, value: Sequence[CustomProperty]) -> list[dict[str, Any]]:
    return validate.items(field, value, lambda name, one: body_of(name, one, CustomProperty))
