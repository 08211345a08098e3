"""Playbooks: the scripted conversations of the organisation."""

from __future__ import annotations

from datetime import datetime

from ..core.models import FrozenMap, Model, OpenEnum, model
from ..core.paging import Pager
from ..core.request import Endpoint
from ..core.resource import Resource


class ReportType(OpenEnum):
    """The measure by which a playbook is reported."""

    BOOK_MORE_MEETINGS = "BOOK_MORE_MEETINGS"


@model
class PlaybookGoal(Model):
    """A goal of a playbook, and the bot's message when the goal is reached."""

    id: str
    message: str | None = None


@model
class Playbook(Model):
    """A playbook: https://devdocs.drift.com/docs/playbook-model-1

    ``created_author_id`` and ``updated_author_id`` are users.
    """

    id: int
    name: str | None = None
    org_id: int | None = None
    meta: FrozenMap | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_author_id: int | None = None
    updated_author_id: int | None = None
    interaction_id: int | None = None
    report_type: ReportType | None = None
    goals: tuple[PlaybookGoal, ...] | None = None


@model
class LandingPage(Model):
    """A conversational landing page, and the playbook that runs there."""

    playbook_id: int
    playbook_name: str | None = None
    landing_page_url: str | None = None


ALL = Endpoint("GET", "/playbooks/list", list[Playbook], envelope="bare", scope="playbook_read")
LANDING_PAGES = Endpoint(
    "GET", "/playbooks/clp", list[LandingPage], envelope="bare", scope="playbook_read"
)


class Playbooks(Resource):
    """Scripted conversations: https://devdocs.drift.com/docs/playbook-model-1"""

    def all(self) -> Pager[Playbook]:
        """Return the playbooks that are enabled and active; one page holds them.

        The service may answer with data that is 10 minutes old.
        https://devdocs.drift.com/docs/get-playbooks
        """
        return self._pages(ALL)

    async def landing_pages(self) -> list[LandingPage]:
        """Return the conversational landing pages.

        https://devdocs.drift.com/docs/playbook-model-1
        """
        return await self._call(LANDING_PAGES)
