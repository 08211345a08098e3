"""Webhook events: one class for each documented type.

https://devdocs.drift.com/docs/webhook-events-1
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, ClassVar, Final, cast

import attrs

from ..core.codec import Frozen, MisfitError, Model, Word, choose_class, model, structure, to_json
from ..resources.contacts import Contact
from ..resources.conversations import Conversation
from ..resources.messages import Message
from . import payloads

log = logging.getLogger("drift_async.webhooks")


class EventType(Word):
    """The type of a webhook event."""

    CONTACT_IDENTIFIED = "contact_identified"
    CONTACT_UPDATED = "contact_updated"
    NEW_MESSAGE = "new_message"
    NEW_COMMAND_MESSAGE = "new_command_message"
    NEW_CONVERSATION = "new_conversation"
    CONVERSATION_PARTICIPANT_ADDED = "conversation_participant_added"
    CONVERSATION_PARTICIPANT_REMOVED = "conversation_participant_removed"
    CONVERSATION_INACTIVE = "conversation_inactive"
    CONVERSATION_MANUAL_PUSH = "conversation_manual_push"
    CONVERSATION_PUSH = "conversation_push"
    CONVERSATION_STATUS_UPDATED = "conversation_status_updated"
    BUTTON_CLICKED = "button_clicked"
    BUTTON_ACTION = "button_action"
    PHONE_CAPTURED = "phone_captured"
    NEW_MEETING = "new_meeting"
    MEETING_UPDATED = "meeting_updated"
    PLAYBOOK_GOAL_MET = "playbook_goal_met"
    USER_AVAILABILITY_UPDATED = "user_availability_updated"
    USER_UNSUBSCRIBED = "user_unsubscribed"
    CHAT_TO_CALL = "chat_to_call"
    GDPR_DELETE_REQUESTED = "gdpr_delete_requested"
    APP_DISCONNECTED = "app_disconnected"


@model
class WebhookEvent(Model):
    """Base of all events; a handler of it gets every event.

    ``from_json(WebhookEvent, data)`` returns the class of the event's type, as `Webhooks.parse`
    does.
    """

    type: EventType | None = None
    org_id: int | None = None

    _when: ClassVar[str] = ""  # the field of `data` that holds the time of the event itself

    @property
    def occurred_at(self) -> datetime | None:
        """When the event happened; None if its payload holds no time."""
        when: datetime | None = getattr(getattr(self, "data", None), self._when, None)
        return when

    @property
    def key(self) -> str:
        """A hash of the whole event, the same each time the event is delivered.

        Use it as the key in a store of your own that several processes share.
        """
        text = json.dumps(to_json(self), sort_keys=True, separators=(",", ":"))
        return sha256(text.encode()).hexdigest()


@model
class UnknownEvent(WebhookEvent):
    """An event of a type, or with a payload, that this release does not know."""

    @property
    def raw(self) -> Frozen:
        """The payload as it came, without the verification token."""
        return Frozen(to_json(self))


@model
class ContactIdentifiedEvent(WebhookEvent):
    """A visitor gave an e-mail address in a chat."""

    type: EventType = EventType.CONTACT_IDENTIFIED
    data: Contact


@model
class ContactUpdatedEvent(WebhookEvent):
    """Attributes of a contact changed."""

    type: EventType = EventType.CONTACT_UPDATED
    data: payloads.ContactChanges
    _when = "timestamp"


@model
class NewMessageEvent(WebhookEvent):
    """Somebody wrote in a conversation: a contact, a user, or a bot such as yours."""

    type: EventType = EventType.NEW_MESSAGE
    data: Message
    _when = "created_at"


@model
class NewCommandMessageEvent(WebhookEvent):
    """Somebody wrote a message that begins with a slash."""

    type: EventType = EventType.NEW_COMMAND_MESSAGE
    data: Message
    _when = "created_at"


@model
class NewConversationEvent(WebhookEvent):
    """A visitor started a conversation."""

    type: EventType = EventType.NEW_CONVERSATION
    data: Conversation
    _when = "created_at"


@model
class ConversationParticipantAddedEvent(WebhookEvent):
    """Users joined a conversation."""

    type: EventType = EventType.CONVERSATION_PARTICIPANT_ADDED
    data: payloads.ParticipantsAdded
    _when = "changed_at"


@model
class ConversationParticipantRemovedEvent(WebhookEvent):
    """Users left a conversation."""

    type: EventType = EventType.CONVERSATION_PARTICIPANT_REMOVED
    data: payloads.ParticipantsRemoved
    _when = "changed_at"


@model
class ConversationInactiveEvent(WebhookEvent):
    """Nobody wrote in a conversation for the time set in the app."""

    type: EventType = EventType.CONVERSATION_INACTIVE
    data: payloads.ConversationInactivity


@model
class ConversationManualPushEvent(WebhookEvent):
    """A conversation was closed or synchronised by hand. The payload is not documented."""

    type: EventType = EventType.CONVERSATION_MANUAL_PUSH
    data: Frozen | None = None


@model
class ConversationPushEvent(WebhookEvent):
    """A conversation became inactive or was pushed by hand. The payload is not documented."""

    type: EventType = EventType.CONVERSATION_PUSH
    data: Frozen | None = None


@model
class ConversationStatusUpdatedEvent(WebhookEvent):
    """The status of a conversation changed. Drift has deprecated it."""

    type: EventType = EventType.CONVERSATION_STATUS_UPDATED
    data: payloads.StatusChange
    _when = "changed_at"


@model
class ButtonClickedEvent(WebhookEvent):
    """A contact clicked a button below a message."""

    type: EventType = EventType.BUTTON_CLICKED
    data: Message


@model
class ButtonActionEvent(WebhookEvent):
    """Somebody pressed a button of type ``action``; sent to older bots."""

    type: EventType = EventType.BUTTON_ACTION
    data: payloads.ButtonPress


@model
class PhoneCapturedEvent(WebhookEvent):
    """Somebody wrote a phone number in a conversation."""

    type: EventType = EventType.PHONE_CAPTURED
    data: payloads.CapturedPhone


@model
class NewMeetingEvent(WebhookEvent):
    """A meeting was booked."""

    type: EventType = EventType.NEW_MEETING
    data: payloads.MeetingBooking


@model
class MeetingUpdatedEvent(WebhookEvent):
    """A meeting was moved or canceled."""

    type: EventType = EventType.MEETING_UPDATED
    data: payloads.MeetingBooking


@model
class PlaybookGoalMetEvent(WebhookEvent):
    """A contact met a goal of a playbook."""

    type: EventType = EventType.PLAYBOOK_GOAL_MET
    data: payloads.GoalMet


@model
class UserAvailabilityUpdatedEvent(WebhookEvent):
    """A user became available or unavailable."""

    type: EventType = EventType.USER_AVAILABILITY_UPDATED
    data: payloads.AvailabilityChange
    _when = "updated_at"


@model
class UserUnsubscribedEvent(WebhookEvent):
    """A contact no longer wants e-mails."""

    type: EventType = EventType.USER_UNSUBSCRIBED
    data: Contact


@model
class ChatToCallEvent(WebhookEvent):
    """A chat went on as a call. The payload is not documented."""

    type: EventType = EventType.CHAT_TO_CALL
    data: Frozen | None = None


@model
class GdprDeleteRequestedEvent(WebhookEvent):
    """The data of a contact is to be erased. The payload is not documented."""

    type: EventType = EventType.GDPR_DELETE_REQUESTED
    data: Frozen | None = None


@model
class AppDisconnectedEvent(WebhookEvent):
    """Your app was uninstalled. The payload is not documented."""

    type: EventType = EventType.APP_DISCONNECTED
    data: Frozen | None = None


EVENTS: Final[Mapping[str, type[WebhookEvent]]] = {
    attrs.fields(cast(Any, kind)).type.default: kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, WebhookEvent) and hasattr(kind, "data")
}
"""The class of each documented type."""


def _class_of(payload: dict[str, Any]) -> type[WebhookEvent]:
    """Return the class of the payload's type, or `UnknownEvent` if there is none that fits."""
    name = payload.get("type")
    kind = EVENTS.get(name) if isinstance(name, str) else None
    if kind is None:
        return UnknownEvent
    try:
        structure(payload, kind)
    except MisfitError as misfit:
        log.warning("%s does not fit: %s at %s", kind.__name__, misfit.detail, misfit.path)
        return UnknownEvent
    return kind


choose_class(WebhookEvent, _class_of)


def read_event(payload: dict[str, Any]) -> WebhookEvent:
    """Return the event in a verified payload whose token has been removed."""
    kind = _class_of(payload)
    if kind is not UnknownEvent:
        event: WebhookEvent = structure(payload, kind)
        return event
    # All other fields stay in ``extra``, so that `to_json` writes the payload as it came.
    rest = dict(payload)
    known: dict[str, Any] = {}
    if isinstance(payload.get("type"), str):
        known["type"] = EventType(rest.pop("type"))
    if type(payload.get("orgId")) is int:
        known["org_id"] = rest.pop("orgId")
    return UnknownEvent(**known, extra=rest)
