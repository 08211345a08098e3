"""Teams: groups of users."""

from __future__ import annotations

from datetime import datetime

from ..core.models import Model, OpenEnum, model
from ..core.paging import Pager
from ..core.request import Endpoint
from ..core.resource import Resource


class TeamStatus(OpenEnum):
    """Whether a team is in use."""

    ENABLED = "ENABLED"
    ARCHIVED = "ARCHIVED"


class TeamAvailabilityMode(OpenEnum):
    """When a team is online."""

    ALWAYS_ONLINE = "ALWAYS_ONLINE"
    ALWAYS_OFFLINE = "ALWAYS_OFFLINE"
    CUSTOM_HOURS = "CUSTOM_HOURS"


@model
class Team(Model):
    """A group of users: https://devdocs.drift.com/docs/team-model

    ``members`` and ``owner`` are users.
    """

    id: int
    org_id: int | None = None
    workspace_id: str | None = None
    name: str | None = None
    updated_at: datetime | None = None
    members: tuple[int, ...] | None = None
    owner: int | None = None
    status: TeamStatus | None = None
    main: bool | None = None
    auto_offline: bool | None = None
    team_availability_mode: TeamAvailabilityMode | None = None
    response_timer_enabled: bool | None = None
    team_csat_enabled: bool | None = None


ALL = Endpoint("GET", "/teams/org", list[Team], scope="user_read")
OF_USER = Endpoint("GET", "/teams/users/{user_id:int}", list[Team], scope="user_read")


class Teams(Resource):
    """Groups of users: https://devdocs.drift.com/docs/team-model"""

    def all(self) -> Pager[Team]:
        """Return the teams of the organisation; one page holds them.

        https://devdocs.drift.com/docs/team-model
        """
        return self._pages(ALL)

    async def of_user(self, user_id: int) -> list[Team]:
        """Return the teams that a user is in; `NotFoundError` if there is no such user.

        https://devdocs.drift.com/docs/team-model
        """
        return await self._call(OF_USER, user_id=user_id)
