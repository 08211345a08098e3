"""Example payloads: one for each type of webhook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from .seed import CONTACT_ID, CONVERSATION_ID, PLAYBOOK_ID, USER_ID, Seed
from .types import Json

CONVERSATION: Final = (
    *("id", "orgId", "participants", "status"),
    *("contactId", "createdAt", "updatedAt", "inboxId"),
)
MEETING: Final = (
    *("agentId", "orgId", "schedulerId", "eventId", "slug"),
    *("slotStart", "slotEnd", "scheduledAt", "conversationId"),
)
HERE: Final = {"conversationId": CONVERSATION_ID}
Payload = Callable[[Seed, int], Json]


def _contact(seed: Seed, now: int) -> Json:
    return seed.contact(0)


def _contact_updated(seed: Seed, now: int) -> Json:
    diff = [{"name": "attributes.plan", "previous": None, "updated": "größer"}]
    return contact_updated(seed.org_id, CONTACT_ID, now, diff)


def contact_updated(org_id: int, contact_id: int, now: int, diff: list[Json]) -> Json:
    """Return the payload of `contact_updated`."""
    return {"endUserId": contact_id, "timestamp": now, "orgId": org_id, "diff": diff}


def _message(seed: Seed, now: int) -> Json:
    return seed.message(0, 1)


def _command(seed: Seed, now: int) -> Json:
    return {**seed.message(0, 1), "body": "/help größer"}


def _conversation(seed: Seed, now: int) -> Json:
    row = seed.conversation(0)
    return {key: row[key] for key in CONVERSATION}


def _participants(key: str) -> Payload:
    return lambda seed, now: {**HERE, key: [USER_ID + 1], "changedAt": now}


def _here(seed: Seed, now: int) -> Json:
    return dict(HERE)


def _meeting(seed: Seed, now: int) -> Json:
    row = seed.meeting(1, now)
    return {key: row[key] for key in MEETING}


def _goal(seed: Seed, now: int) -> Json:
    playbook = seed.playbook(0)
    return {
        **HERE,
        "playbookId": PLAYBOOK_ID,
        "contactId": CONTACT_ID,
        "goalId": playbook["goals"][0]["id"],
        "goalName": playbook["goals"][0]["message"],
        "playbookName": playbook["name"],
        "contactEmail": seed.contact(0)["attributes"]["email"],
    }


def _button(seed: Seed, now: int) -> Json:
    return {
        **HERE,
        "author": {"type": "user", "id": USER_ID + 1},
        "sourceMessageId": seed.message_id(0, 0),
        "button": {
            "label": "Translate away!",
            "value": "babel-on",
            "type": "action",
            "style": "primary",
            "reaction": {"type": "replace", "message": "You got it."},
        },
    }


PAYLOADS: Final[Mapping[str, Payload]] = {
    "contact_identified": _contact,
    "contact_updated": _contact_updated,
    "new_message": _message,
    "new_command_message": _command,
    "new_conversation": _conversation,
    "conversation_participant_added": _participants("addedParticipants"),
    "conversation_participant_removed": _participants("removedParticipants"),
    "conversation_inactive": lambda seed, now: {**HERE, "lastUpdated": seed.updated(0)},
    "conversation_manual_push": _here,
    "conversation_push": _here,
    "button_clicked": _message,
    "phone_captured": lambda seed, now: {
        **HERE,
        "authorId": CONTACT_ID,
        "authorType": "contact",
        "phoneNumber": "555-010-0001",
    },
    "new_meeting": _meeting,
    "meeting_updated": lambda seed, now: {**_meeting(seed, now), "eventType": "rescheduled"},
    "playbook_goal_met": _goal,
    "user_availability_updated": lambda seed, now: {
        "userId": USER_ID + 1,
        "updatedAt": now,
        "availability": "ONLINE",
    },
    "user_unsubscribed": _contact,
    "chat_to_call": _here,
    "gdpr_delete_requested": lambda seed, now: {"email": seed.contact(0)["attributes"]["email"]},
    "app_disconnected": lambda seed, now: {},
    "conversation_status_updated": lambda seed, now: {
        "orgId": seed.org_id,
        **HERE,
        "status": "closed",
        "changedAt": now,
    },
    "button_action": _button,
}
"""For each documented type, the function that makes its payload from seed and milliseconds."""


def example(kind: str, seed: Seed, now: int) -> Json:
    """Return the payload of a documented type; ValueError for another type."""
    if kind not in PAYLOADS:
        raise ValueError(f"type: there is no {kind!r}, so it needs data")
    return PAYLOADS[kind](seed, now)
