"""Payloads of webhook events, except contacts, conversations and messages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..core.codec import Model, Word, model
from ..resources.conversations import ConversationStatus
from ..resources.messages import Author, AuthorType, Button
from ..resources.users import Availability


@model
class AttributeChange(Model):
    """One change of a contact; ``name`` is a path such as ``attributes.alias``."""

    name: str | None = None
    previous: Any = None
    updated: Any = None


@model
class ContactChanges(Model):
    """Changes of a contact: https://devdocs.drift.com/docs/contact-update-subscriptions

    ``end_user_id`` is the contact.
    """

    end_user_id: int
    timestamp: datetime | None = None
    org_id: int | None = None
    diff: tuple[AttributeChange, ...] | None = None


@model
class ParticipantsAdded(Model):
    """Users who joined a conversation."""

    conversation_id: int
    added_participants: tuple[int, ...] | None = None
    changed_at: datetime | None = None


@model
class ParticipantsRemoved(Model):
    """Users who left a conversation."""

    conversation_id: int
    removed_participants: tuple[int, ...] | None = None
    changed_at: datetime | None = None


@model
class ConversationInactivity(Model):
    """A conversation in which nobody has written since ``last_updated``."""

    conversation_id: int
    last_updated: datetime | None = None


@model
class StatusChange(Model):
    """The new status of a conversation."""

    conversation_id: int
    org_id: int | None = None
    status: ConversationStatus | None = None
    changed_at: datetime | None = None


@model
class CapturedPhone(Model):
    """A phone number that somebody wrote in a conversation."""

    conversation_id: int
    author_id: int | None = None
    author_type: AuthorType | None = None
    phone_number: str | None = None


class MeetingChange(Word):
    """How a meeting was changed."""

    CANCELED = "canceled"
    RESCHEDULED = "rescheduled"


@model
class MeetingBooking(Model):
    """A meeting booked in a conversation.

    ``agent_id`` is the user; ``event_type`` is set when the meeting was changed.
    """

    conversation_id: int | None = None
    agent_id: int | None = None
    org_id: int | None = None
    scheduler_id: int | None = None
    event_id: str | None = None
    slug: str | None = None
    slot_start: datetime | None = None
    slot_end: datetime | None = None
    scheduled_at: datetime | None = None
    event_type: MeetingChange | None = None


@model
class GoalMet(Model):
    """A goal of a playbook that a contact met in a conversation."""

    conversation_id: int | None = None
    playbook_id: int | None = None
    playbook_name: str | None = None
    goal_id: str | None = None
    goal_name: str | None = None
    contact_id: int | None = None
    contact_email: str | None = None


@model
class AvailabilityChange(Model):
    """Whether a user takes conversations now."""

    user_id: int
    updated_at: datetime | None = None
    availability: Availability | None = None


@model
class ButtonPress(Model):
    """A button that somebody pressed below a message."""

    conversation_id: int
    author: Author | None = None
    source_message_id: int | None = None
    button: Button | None = None
