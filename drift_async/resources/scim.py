"""Provisioning of users by SCIM 2.0 (RFC 7643, RFC 7644); for paid plans."""

from __future__ import annotations

from types import NoneType
from typing import Any

import attrs

from ..core import validate
from ..core.models import Model, body_of, model
from ..core.paging import Pager
from ..core.request import Endpoint
from ..core.resource import Resource
from ..errors import InputError


@model
class ScimName(Model):
    """The parts of a user's name."""

    formatted: str | None = None
    family_name: str | None = None
    given_name: str | None = None


@model
class ScimValue(Model):
    """One of a user's e-mail addresses, phone numbers, photos or roles.

    Of a role, ``value`` is ``MEMBER``, ``ADMIN`` or ``OWNER``, or ``role-ids=[1]`` where access is
    role-based.
    """

    value: str | None = None
    display: str | None = None
    type: str | None = None
    primary: bool | None = None


@model
class ScimUser(Model):
    """A user as SCIM has it: https://devdocs.drift.com/docs/user-schema

    In an update, ``is_active=False`` deletes the user.
    """

    id: str | None = None
    schemas: tuple[str, ...] | None = None
    user_name: str | None = None
    name: ScimName | None = None
    display_name: str | None = None
    active: bool | None = None
    is_active: bool | None = None
    locale: str | None = None
    emails: tuple[ScimValue, ...] | None = None
    phone_numbers: tuple[ScimValue, ...] | None = None
    photos: tuple[ScimValue, ...] | None = None
    roles: tuple[ScimValue, ...] | None = None


@attrs.frozen(eq=False, repr=False)
class _Search(Endpoint[list[ScimUser]]):
    """A search without results may leave ``Resources`` out (RFC 7644, 3.4.2)."""

    def _shaped(self, value: Any) -> Any:
        match value:
            case {"totalResults": 0} if "Resources" not in value:
                return []
        return super()._shaped(value)


ALL = _Search(
    "GET", "/scim/Users", list[ScimUser], envelope="bare", under="Resources", pages="scim"
)
GET = Endpoint("GET", "/scim/Users/{user_id}", ScimUser, envelope="bare")
CREATE = Endpoint(
    "POST",
    "/scim/Users",
    ScimUser,
    effect="once",
    envelope="bare",
    settle="scim.all",
    settle_hint="filter='userName eq \"...\"'",
)
REPLACE = Endpoint("PUT", "/scim/Users/{user_id}", ScimUser, effect="idempotent", envelope="bare")
UPDATE = Endpoint("PATCH", "/scim/Users/{user_id}", ScimUser, effect="idempotent", envelope="bare")
DELETE = Endpoint("DELETE", "/scim/Users/{user_id}", NoneType, effect="idempotent", envelope="none")


class Scim(Resource):
    """Users, to be created and deleted: https://devdocs.drift.com/docs/user-schema

    >>> user = ScimUser(user_name="ada@example.com", display_name="Ada Lovelace")
    >>> await drift.scim.create(user)
    """

    def all(
        self, *, filter: str | None = None, page_size: int = 100, resume: str | None = None
    ) -> Pager[ScimUser]:
        """Return the users, *page_size* (at most 200) to a request.

        *filter* is an expression such as ``userName eq "ada@example.com"``.
        https://devdocs.drift.com/docs/searching
        """
        condition = validate.optional(validate.text, "filter", filter)
        size = validate.integer("page_size", page_size, 1, 200)
        return self._pages(ALL, resume, filter=condition, count=size)

    async def get(self, user_id: str) -> ScimUser:
        """Return a user; `NotFoundError` if there is none.

        https://devdocs.drift.com/docs/searching
        """
        return await self._call(GET, user_id=user_id)

    async def create(self, user: ScimUser) -> ScimUser:
        """Create a user, and return it; ``user_name`` and ``display_name`` are needed.

        A ``user_name`` that exists, or was deleted, raises `ConflictError`. A lost reply raises
        `OutcomeUnknownError`. https://devdocs.drift.com/docs/user-schema
        """
        return await self._call(CREATE, _whole(user))

    async def replace(self, user_id: str, user: ScimUser) -> ScimUser:
        """Replace the stored user with *user*, and return the result.

        ``user_name`` and ``display_name`` are needed. https://devdocs.drift.com/docs/updating
        """
        return await self._call(REPLACE, _whole(user), user_id=user_id)

    async def update(self, user_id: str, changes: ScimUser) -> ScimUser:
        """Change the fields that *changes* sets, and return the user.

        https://devdocs.drift.com/docs/updating
        """
        body = body_of("changes", changes, ScimUser)
        if not body:
            raise InputError("changes", "give at least one field to change")
        return await self._call(UPDATE, body, user_id=user_id)

    async def delete(self, user_id: str) -> None:
        """Delete a user; the same user cannot be created again.

        https://devdocs.drift.com/docs/deprovisioning
        """
        await self._call(DELETE, user_id=user_id)


def _whole(user: ScimUser) -> dict[str, Any]:
    body = body_of("user", user, ScimUser)
    validate.text("user.user_name", user.user_name)
    validate.text("user.display_name", user.display_name)
    return body
