"""Users: the members of the organisation, its bots, and their meetings."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import ClassVar

from ..core import validate
from ..core.bulk import batched
from ..core.models import Model, OpenEnum, model
from ..core.paging import Pager
from ..core.request import Endpoint
from ..core.resource import Resource
from ..core.strict_json import to_ms
from ..core.validate import UNSET, Unset
from ..errors import CallInfo, CursorError, InputError

IDS_PER_REQUEST = 20
MEETINGS_PER_REQUEST = 1000

_PHONE = re.compile(r"[0-9]{3}-[0-9]{3}-[0-9]{4}")


class Availability(OpenEnum):
    """Whether a user takes conversations."""

    AVAILABLE = "AVAILABLE"
    OFFLINE = "OFFLINE"
    ON_CALL = "ON_CALL"


class UserRole(OpenEnum):
    """The rights of a user."""

    MEMBER = "member"
    ADMIN = "admin"
    AGENT = "agent"


@model
class User(Model):
    """A member of the organisation, or a bot: https://devdocs.drift.com/docs/user-model"""

    id: int
    org_id: int | None = None
    name: str | None = None
    alias: str | None = None
    email: str | None = None
    phone: str | None = None
    locale: str | None = None
    availability: Availability | None = None
    role: UserRole | None = None
    time_zone: str | None = None
    avatar_url: str | None = None
    verified: bool | None = None
    bot: bool | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class MeetingStatus(OpenEnum):
    """Whether a meeting takes place."""

    ACTIVE = "ACTIVE"
    CANCELED = "CANCELED"


class MeetingSource(OpenEnum):
    """Where a meeting was booked."""

    EMAIL_DROP = "EMAIL_DROP"
    WIDGET = "WIDGET"


class MeetingType(OpenEnum):
    """The kind of a meeting."""

    NEW_MEETING = "New Meeting"
    FOLLOW_UP = "Follow Up"


class ConferenceType(OpenEnum):
    """Where a meeting is held."""

    ZOOM = "ZOOM"
    GOOGLE_MEET = "GOOGLE_MEET"


@model
class ConferenceDetails(Model):
    """How to join a meeting."""

    join_url: str | None = None

    wire: ClassVar[Mapping[str, str]] = {"join_url": "join_url"}


@model
class Meeting(Model):
    """A booked meeting: https://devdocs.drift.com/docs/meeting-model

    ``slug`` is the meeting's id, ``agent_id`` and ``booked_by`` are users, ``scheduler_id`` is the
    contact.
    """

    slug: str | None = None
    event_id: str | None = None
    agent_id: int | None = None
    org_id: int | None = None
    scheduler_id: int | None = None
    conversation_id: int | None = None
    booked_by: int | None = None
    status: MeetingStatus | None = None
    meeting_source: MeetingSource | None = None
    meeting_type: MeetingType | None = None
    meeting_notes: str | None = None
    end_user_time_zone: str | None = None
    slot_start: datetime | None = None
    slot_end: datetime | None = None
    scheduled_at: datetime | None = None
    updated_at: datetime | None = None
    conference_type: ConferenceType | None = None
    conference_details: ConferenceDetails | None = None
    is_recurring: bool | None = None
    is_private: bool | None = None


GET = Endpoint("GET", "/users/{user_id:int}", User, scope="user_read")
GET_MANY = Endpoint("GET", "/users", dict[str, User], scope="user_read")
ALL = Endpoint("GET", "/users/list", list[User], scope="user_read")
UPDATE = Endpoint("PATCH", "/users/update", User, effect="idempotent", scope="user_write")
MEETINGS = Endpoint("GET", "/users/meetings/org", list[Meeting], scope="user_read")


class Users(Resource):
    """The members of the organisation: https://devdocs.drift.com/docs/user-model"""

    async def get(self, user_id: int) -> User:
        """Return a user; `NotFoundError` if there is none.

        https://devdocs.drift.com/docs/retrieving-user
        """
        return await self._call(GET, user_id=user_id)

    async def get_many(self, user_ids: Collection[int]) -> dict[int, User]:
        """Return users by their ids, in the order asked; unknown ones are left out.

        Takes one request for each 20 ids, under one ``timeout``.
        https://devdocs.drift.com/docs/retrieving-user
        """
        ids = validate.items("user_ids", user_ids, validate.identity)
        users = self._with_deadline()
        found: dict[int, User] = {}
        for batch in batched(dict.fromkeys(ids), IDS_PER_REQUEST):
            came = await users._call(GET_MANY, userId=batch)
            found.update((one, came[str(one)]) for one in batch if str(one) in came)
        return found

    def all(self) -> Pager[User]:
        """Return all users, bots too; one page holds them.

        https://devdocs.drift.com/docs/listing-users
        """
        return self._pages(ALL)

    async def update(
        self,
        user_id: int,
        *,
        name: str | Unset | None = UNSET,
        alias: str | Unset | None = UNSET,
        email: str | Unset | None = UNSET,
        phone: str | Unset | None = UNSET,
        locale: str | Unset | None = UNSET,
        avatar_url: str | Unset | None = UNSET,
        availability: str | Unset | None = UNSET,
    ) -> User:
        """Change the given fields, and return the user. None is sent as null.

        *phone* looks like ``617-555-0100``, *availability* is ``AVAILABLE`` or ``OFFLINE``.
        https://devdocs.drift.com/docs/updating-users
        """
        body = validate.without_unset(
            name=validate.optional(validate.text, "name", name),
            alias=validate.optional(validate.text, "alias", alias),
            email=validate.optional(validate.email, "email", email),
            phone=validate.optional(_phone, "phone", phone),
            locale=validate.optional(validate.text, "locale", locale),
            avatarUrl=validate.optional(validate.text, "avatar_url", avatar_url),
            availability=validate.optional(_availability, "availability", availability),
        )
        return await self._call(UPDATE, body, userId=validate.identity("user_id", user_id))

    async def meetings(self, start: datetime, end: datetime) -> list[Meeting]:
        """Return the meetings that begin from *start* to *end*; the API looks 30 days back at most.

        A reply holds 1,000: a window with more is halved and asked again, under one ``timeout``.
        More than that within one millisecond raises `CursorError`.
        https://devdocs.drift.com/docs/get-booked-meetings
        """
        windows = [(to_ms("start", start), to_ms("end", end))]
        if windows[0][1] < windows[0][0]:
            raise InputError("end", "must not be before start")
        users = self._with_deadline()
        found: dict[object, Meeting] = {}
        while windows:
            low, high = windows.pop()
            came = await users._call(
                MEETINGS, min_start_time=low, max_start_time=high, limit=MEETINGS_PER_REQUEST
            )
            if len(came) >= MEETINGS_PER_REQUEST:
                windows += _halves(low, high)
            else:
                found.update((_mark(meeting), meeting) for meeting in came)
        return list(found.values())


def _phone(field: str, value: object) -> str:
    number = validate.text(field, value)
    if not _PHONE.fullmatch(number):
        raise InputError(field, "must look like 617-555-0100")
    return number


def _availability(field: str, value: object) -> str:
    settable = (Availability.AVAILABLE, Availability.OFFLINE)
    return validate.choice(field, value, Availability, settable)


def _halves(low: int, high: int) -> list[tuple[int, int]]:
    """Return the later half and the earlier; both hold the middle: the API's ends are not known."""
    if high - low <= 1:
        info = CallInfo(operation=MEETINGS.name, applied=True)
        raise CursorError("over 1,000 meetings begin within a millisecond", info)
    middle = (low + high) // 2
    return [(middle, high), (low, middle)]


def _mark(meeting: Meeting) -> object:
    """Return the key that distinguishes a meeting from others."""
    return meeting.slug or (
        meeting.event_id,
        meeting.agent_id,
        meeting.scheduler_id,
        meeting.slot_start,
    )
