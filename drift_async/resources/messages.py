"""Messages of conversations: the models, and the body and reply of a new message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import attrs

from ..core import validate
from ..core.models import FrozenMap, Model, OpenEnum, body_of, from_json, model
from ..core.request import Endpoint
from ..errors import InputError


class MessageType(OpenEnum):
    """The kind of a message, which decides who sees it; older bots sent the last three."""

    CHAT = "chat"
    PRIVATE_NOTE = "private_note"
    PRIVATE_PROMPT = "private_prompt"
    SUGGESTION = "suggestion"
    EDIT = "edit"


class EditType(OpenEnum):
    """The effect of an older bot's edit on a message."""

    DELETE = "delete"
    REPLACE = "replace"
    REPLACE_BODY = "replace_body"
    REPLACE_BUTTONS = "replace_buttons"


class AuthorType(OpenEnum):
    """The kind of the author of a message."""

    CONTACT = "contact"
    USER = "user"


@model
class Author(Model):
    """The author of a message; ``id`` is the id of a contact or a user."""

    type: AuthorType | None = None
    id: int | None = None
    bot: bool | None = None


class ButtonType(OpenEnum):
    """The effect of a button: only ``reply`` is for contacts, the others are for agents."""

    REPLY = "reply"
    COMPOSE = "compose"
    ACTION = "action"
    NOOP = "noop"


class ButtonStyle(OpenEnum):
    """How a button looks."""

    PRIMARY = "primary"
    DANGER = "danger"


class ReactionType(OpenEnum):
    """The change of a message when its button is clicked."""

    REPLACE = "replace"
    DELETE = "delete"


@model
class Reaction(Model):
    """The change of a message when its button is clicked; ``message`` replaces its text."""

    type: ReactionType | None = None
    message: str | None = None


@model
class Button(Model):
    """A button below a message.

    Sent without ``value`` and ``type`` it is a ``reply`` whose value is its label.
    https://devdocs.drift.com/docs/message-model
    """

    label: str | None = None
    value: str | None = None
    type: ButtonType | None = None
    style: ButtonStyle | None = None
    reaction: Reaction | None = None


@model
class Location(Model):
    """Where a message came from; latitude and longitude in degrees."""

    city: str | None = None
    region: str | None = None
    country: str | None = None
    country_name: str | None = None
    postal_code: str | None = None
    latitude: float | None = None
    longitude: float | None = None


@model
class MessageContext(Model):
    """The browser and the page a message came from."""

    ip: str | None = None
    user_agent: str | None = None
    title: str | None = None
    referrer: str | None = None
    timezone: str | None = None
    locale: str | None = None
    location: Location | None = None


@model
class Attachment(Model):
    """A file sent with a message; `drift.conversations.attachment` reads it by its ``id``."""

    id: int
    file_name: str | None = None
    mime_type: str | None = None
    url: str | None = None


@model
class Message(Model):
    """A message: https://devdocs.drift.com/docs/message-model

    ``body`` is HTML. ``attachment`` is another name some replies have for the attachments, kept as
    it comes.
    """

    id: int
    conversation_id: int | None = None
    org_id: int | None = None
    type: MessageType | None = None
    body: str | None = None
    author: Author | None = None
    created_at: datetime | None = None
    buttons: tuple[Button, ...] | None = None
    context: MessageContext | None = None
    attributes: FrozenMap | None = None
    attachments: tuple[Attachment, ...] | None = None
    attachment: Any = None
    edited_message_id: int | None = None
    edit_type: EditType | None = None


@attrs.frozen(unsafe_hash=False, repr=False)
class Transcript:
    """A transcript as JSON. Its shape is not documented: ``value`` is the JSON as it came."""

    value: Any

    __hash__ = None  # type: ignore[assignment]  # it holds lists and maps

    @property
    def messages(self) -> list[Message]:
        """The messages, as far as there are any and they read as such."""
        rows = self.value.get("messages") if isinstance(self.value, dict) else self.value
        found = []
        for row in rows if isinstance(rows, list) else ():
            try:
                found.append(from_json(Message, row))
            except InputError:
                continue
        return found

    def __repr__(self) -> str:
        return "Transcript()"

    def __rich_repr__(self) -> Iterator[Any]:
        return iter(())


@attrs.frozen(eq=False, repr=False)
class Posting(Endpoint[Message]):
    """The reply holds the message; the documentation shows a list that ends with it."""

    def _shaped(self, value: Any) -> Any:
        match value:
            case {"data": {"messages": [*_, last]}}:
                value = {"data": last}
        return super()._shaped(value)


def new_message(
    body: str | None, kind: str, buttons: Sequence[Button] | None, user_id: int | None
) -> dict[str, Any]:
    """Return the JSON of a message to send, or raise `InputError`."""
    word = validate.choice("type", kind, MessageType, (MessageType.CHAT, MessageType.PRIVATE_NOTE))
    if body is None and not buttons:
        raise InputError("body", "give a body, or buttons")
    return validate.without_none(
        type=word,
        body=validate.optional(validate.text, "body", body),
        buttons=_buttons(buttons, word) or None,
        userId=validate.optional(validate.identity, "user_id", user_id),
    )


def _buttons(buttons: Sequence[Button] | None, kind: str) -> list[dict[str, Any]]:
    if buttons is None:
        return []
    return validate.items("buttons", buttons, lambda field, one: _button(field, one, kind))


def _button(field: str, button: Button, kind: str) -> dict[str, Any]:
    data = body_of(field, button, Button)
    label = validate.text(f"{field}.label", button.label)
    button_type = validate.choice(f"{field}.type", button.type or ButtonType.REPLY, ButtonType)
    if kind == MessageType.CHAT and button_type != ButtonType.REPLY:
        raise InputError(f"{field}.type", "must be reply in a chat message")
    validate.optional(_style, f"{field}.style", button.style)
    if button.reaction is not None:
        _check_reaction(f"{field}.reaction", button.reaction)
    return {**data, "value": label if button.value is None else button.value, "type": button_type}


def _style(field: str, style: object) -> str:
    return validate.choice(field, style, ButtonStyle)


def _check_reaction(field: str, reaction: Reaction) -> None:
    kind = validate.choice(f"{field}.type", reaction.type, ReactionType)
    if kind == ReactionType.REPLACE:
        validate.text(f"{field}.message", reaction.message)
