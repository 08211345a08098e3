"""Conversations: with their messages, transcripts and attachments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from os import PathLike
from typing import Any, ClassVar, Final, cast

import attrs

from ..core import validate
from ..core.download import Buffer, FileBuffer
from ..core.models import FrozenMap, Model, OpenEnum, model
from ..core.paging import Pager
from ..core.request import Endpoint
from ..core.resource import Resource
from ..errors import InputError
from .messages import Button, Message, Posting, Transcript, new_message

MIB: Final = 1024 * 1024


class ConversationStatus(OpenEnum):
    """How a conversation stands; ``bulk_sent``: a playbook wrote and nobody has answered."""

    OPEN = "open"
    CLOSED = "closed"
    PENDING = "pending"
    BULK_SENT = "bulk_sent"


_STATUS_IDS: Final[Mapping[str, int]] = {"open": 1, "closed": 2, "pending": 3}


@model
class ConversationTag(Model):
    """A tag; ``color`` is hexadecimal without the number sign."""

    name: str | None = None
    color: str | None = None


@model
class Conversation(Model):
    """A conversation: https://devdocs.drift.com/docs/conversation-model

    ``participants`` are users. Lists give less of a conversation than `Conversations.get`.
    """

    id: int
    org_id: int | None = None
    status: ConversationStatus | None = None
    contact_id: int | None = None
    inbox_id: int | None = None
    participants: tuple[int, ...] | None = None
    conversation_tags: tuple[ConversationTag, ...] | None = None
    related_playbook_id: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def app_url(self) -> str | None:
        """The conversation's page in the Drift app; None when the inbox is not known."""
        if self.inbox_id is None:
            return None
        return f"https://app.drift.com/inboxes/{self.inbox_id}/conversations/{self.id}"


@model
class ConversationStats(Model):
    """How many conversations there are: ``counts`` by status, in the API's own upper case."""

    counts: Mapping[str, int] = attrs.field(converter=FrozenMap)

    wire: ClassVar[Mapping[str, str]] = {"counts": "conversationCount"}

    @property
    def open(self) -> int:
        """The number of open conversations."""
        return self.counts.get("OPEN", 0)

    @property
    def closed(self) -> int:
        """The number of closed conversations."""
        return self.counts.get("CLOSED", 0)

    @property
    def pending(self) -> int:
        """The number of pending conversations."""
        return self.counts.get("PENDING", 0)


CREATE = Endpoint(
    "POST",
    "/conversations/new",
    Conversation,
    effect="once",
    envelope="bare",
    scope="conversation_write",
    settle="conversations.all",
    settle_hint="look for the contact",
)
GET = Endpoint(
    "GET", "/conversations/{conversation_id:int}", Conversation, scope="conversation_read"
)
ALL = Endpoint(
    "GET", "/conversations/list", list[Conversation], pages="links", scope="conversation_read"
)
STATS = Endpoint(
    "GET", "/conversations/stats", ConversationStats, envelope="bare", scope="conversation_read"
)
MESSAGES = Endpoint(
    "GET",
    "/conversations/{conversation_id:int}/messages",
    list[Message],
    under="messages",
    pages="pagination",
    scope="conversation_read",
)
CREATE_MESSAGE = Posting(
    "POST",
    "/conversations/{conversation_id:int}/messages",
    Message,
    effect="once",
    scope="conversation_write",
    settle="conversations.messages",
    settle_hint="look for the body",
)
TRANSCRIPT = Endpoint(
    "GET",
    "/conversations/{conversation_id:int}/transcript",
    str,
    envelope="text",
    scope="conversation_read",
)
JSON_TRANSCRIPT = Endpoint(
    "GET",
    "/conversations/{conversation_id:int}/json_transcript",
    cast("type[Any]", Any),
    scope="conversation_read",
)
ATTACHMENT = Endpoint(
    "GET",
    "/attachments/{document_id:int}/data",
    bytes,
    envelope="bytes",
    scope="conversation_read",
)


class Conversations(Resource):
    """Conversations of contacts with users and bots.

    https://devdocs.drift.com/docs/conversation-model

    >>> async for conversation in drift.conversations.all(status="open"):
    ...     print(await drift.conversations.transcript(conversation.id))
    """

    async def create(
        self,
        email: str,
        body: str,
        *,
        integration_source: str | None = None,
        auto_assignee_id: int | None = None,
    ) -> Conversation:
        """Start a conversation with a first message of the bot, *body* in HTML, and return it.

        The contact is the oldest one with this *email*, or a new one. *integration_source* heads
        the thread, the user *auto_assignee_id* joins it. A lost reply raises
        `OutcomeUnknownError`. https://devdocs.drift.com/docs/creating-a-conversation
        """
        attributes = validate.without_none(
            integrationSource=validate.optional(
                validate.text, "integration_source", integration_source
            ),
            autoAssigneeId=validate.optional(
                validate.identity, "auto_assignee_id", auto_assignee_id
            ),
        )
        message = validate.without_none(
            body=validate.text("body", body), attributes=attributes or None
        )
        return await self._call(
            CREATE, {"email": validate.email("email", email), "message": message}
        )

    async def get(self, conversation_id: int) -> Conversation:
        """Return a conversation; `NotFoundError` if the organisation has none with this id.

        https://devdocs.drift.com/docs/retrieve-a-conversation
        """
        return await self._call(GET, conversation_id=conversation_id)

    def all(
        self,
        *,
        status: str | Sequence[str] | None = None,
        page_size: int = 100,
        resume: str | None = None,
    ) -> Pager[Conversation]:
        """Return the conversations, the last changed first, *page_size* (at most 100) to a request.

        *status* is one or several of ``open``, ``closed`` and ``pending``. A conversation that
        changes during the walk moves to the front and may be missed.
        https://devdocs.drift.com/docs/list-conversations
        """
        size = validate.integer("page_size", page_size, 1, 100)
        return self._pages(ALL, resume, limit=size, statusId=_status_ids(status))

    async def stats(self) -> ConversationStats:
        """Return how many conversations there are of each status.

        https://devdocs.drift.com/docs/bulk-conversation-statuses
        """
        return await self._call(STATS)

    def messages(self, conversation_id: int, *, resume: str | None = None) -> Pager[Message]:
        """Return the messages of a conversation, the oldest first, 50 to a request.

        https://devdocs.drift.com/docs/message-model
        """
        return self._pages(MESSAGES, resume, conversation_id=conversation_id)

    async def create_message(
        self,
        conversation_id: int,
        body: str | None = None,
        *,
        type: str = "chat",
        buttons: Sequence[Button] | None = None,
        user_id: int | None = None,
    ) -> Message:
        """Write a message into a conversation, and return it.

        *body* is HTML; it may be left out when there are *buttons*. *type* is ``chat``, which takes
        ``reply`` buttons only, or ``private_note``, which the contact does not see. Without
        *user_id* the bot writes. A lost reply raises `OutcomeUnknownError`; nothing is written
        twice. https://devdocs.drift.com/docs/creating-a-message
        """
        message = new_message(body, type, buttons, user_id)
        return await self._call(CREATE_MESSAGE, message, conversation_id=conversation_id)

    async def transcript(self, conversation_id: int) -> str:
        """Return a conversation as plain text, a line for each message.

        https://devdocs.drift.com/docs/conversation-model
        """
        return await self._call(TRANSCRIPT, conversation_id=conversation_id)

    async def json_transcript(self, conversation_id: int) -> Transcript:
        """Return a conversation as JSON, whose shape is not documented.

        https://devdocs.drift.com/docs/conversation-model
        """
        return Transcript(await self._call(JSON_TRANSCRIPT, conversation_id=conversation_id))

    async def attachment(self, document_id: int, *, max_bytes: int = 32 * MIB) -> bytes:
        """Return the content of an attachment.

        Over *max_bytes* it raises `ResponseTooLargeError`.
        https://devdocs.drift.com/docs/message-model
        """
        buffer = Buffer(validate.integer("max_bytes", max_bytes))
        request = ATTACHMENT.request({"document_id": document_id}, sink=buffer)
        await self._caller.send(request)
        return buffer.whole()

    async def download_attachment(
        self, document_id: int, path: str | PathLike[str], *, max_bytes: int = 1024 * MIB
    ) -> int:
        """Write the content of an attachment to a file, and return the number of bytes.

        The file appears when it is whole, and replaces an older one. Over *max_bytes* it raises
        `ResponseTooLargeError`, and a fault of the disk `OSError`.
        https://devdocs.drift.com/docs/message-model
        """
        values = {"document_id": document_id}
        async with FileBuffer(path, validate.integer("max_bytes", max_bytes)) as file:
            await self._caller.send(ATTACHMENT.request(values, sink=file))
            await file.commit()
        return file.size


def _status_ids(status: str | Sequence[str] | None) -> list[int] | None:
    """Return the numbers that the API has for these words; None means no filter."""
    if status is None:
        return None
    if isinstance(status, str):
        return [_status_id("status", status)]
    numbers = validate.items("status", status, _status_id)
    if not numbers:
        raise InputError("status", "must name at least one status")
    return list(dict.fromkeys(numbers))


def _status_id(field: str, word: object) -> int:
    found = _STATUS_IDS.get(word.lower()) if isinstance(word, str) else None
    if found is None:
        raise InputError(field, f"must be one of {', '.join(_STATUS_IDS)}")
    return found
