"""Events: every documented type, what is beside the documentation, and what does not fit."""

from __future__ import annotations

import logging
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from drift_async import EventType, InputError, UnknownEvent, WebhookEvent, from_json, to_json
from drift_async.core.codec import Frozen
from drift_async.webhooks.events import EVENTS, read_event
from tests.support.deliveries import PAYLOADS, envelope
from tests.support.models import unknown_fields

pytestmark = pytest.mark.smoke

DOCUMENTED = {
    "contact_identified": "ContactIdentifiedEvent",
    "contact_updated": "ContactUpdatedEvent",
    "new_message": "NewMessageEvent",
    "new_command_message": "NewCommandMessageEvent",
    "new_conversation": "NewConversationEvent",
    "conversation_participant_added": "ConversationParticipantAddedEvent",
    "conversation_participant_removed": "ConversationParticipantRemovedEvent",
    "conversation_inactive": "ConversationInactiveEvent",
    "conversation_manual_push": "ConversationManualPushEvent",
    "conversation_push": "ConversationPushEvent",
    "conversation_status_updated": "ConversationStatusUpdatedEvent",
    "button_clicked": "ButtonClickedEvent",
    "button_action": "ButtonActionEvent",
    "phone_captured": "PhoneCapturedEvent",
    "new_meeting": "NewMeetingEvent",
    "meeting_updated": "MeetingUpdatedEvent",
    "playbook_goal_met": "PlaybookGoalMetEvent",
    "user_availability_updated": "UserAvailabilityUpdatedEvent",
    "user_unsubscribed": "UserUnsubscribedEvent",
    "chat_to_call": "ChatToCallEvent",
    "gdpr_delete_requested": "GdprDeleteRequestedEvent",
    "app_disconnected": "AppDisconnectedEvent",
}
UNDOCUMENTED_DATA = {
    "conversation_manual_push",
    "conversation_push",
    "chat_to_call",
    "gdpr_delete_requested",
    "app_disconnected",
}
TIMED = {
    "contact_updated": datetime(2018, 10, 3, 18, 30, 50, 493000, UTC),
    **dict.fromkeys(
        (
            "new_message",
            "new_command_message",
            "new_conversation",
            "conversation_participant_added",
            "conversation_participant_removed",
            "conversation_status_updated",
            "user_availability_updated",
        ),
        datetime(2020, 1, 7, 9, 41, 23, tzinfo=UTC),
    ),
}


def test_every_documented_type_has_a_class_and_a_payload() -> None:
    assert {word: kind.__name__ for word, kind in EVENTS.items()} == DOCUMENTED
    assert set(EventType) == set(DOCUMENTED) == set(PAYLOADS)


@pytest.mark.parametrize("kind", DOCUMENTED)
def test_a_documented_payload_is_read_whole_and_written_back_as_it_came(kind: str) -> None:
    event = read_event(envelope(kind))
    assert type(event) is EVENTS[kind]
    assert event.type is EventType(kind)
    assert event.org_id == 1351205
    assert list(unknown_fields(event)) == []
    assert to_json(event) == envelope(kind)


@pytest.mark.parametrize("kind", DOCUMENTED)
def test_what_is_beside_the_documentation_is_kept(kind: str) -> None:
    value = {**envelope(kind, neverSeen={"deep": [None]}, gone=None), "deliveredBy": [1]}
    event = read_event(value)
    assert type(event) is EVENTS[kind]
    assert event.extra == {"deliveredBy": [1]}
    data = getattr(event, "data")  # noqa: B009  # the base has none
    kept = data if kind in UNDOCUMENTED_DATA else data.extra
    assert kept["neverSeen"] == {"deep": [None]}
    assert kept["gone"] is None
    assert to_json(event) == value


@pytest.mark.parametrize("kind", DOCUMENTED)
@pytest.mark.parametrize("data", [5, "text", [1], True])
def test_a_payload_that_does_not_fit_is_an_unknown_event(
    kind: str, data: Any, caplog: pytest.LogCaptureFixture
) -> None:
    value = {**envelope(kind), "data": data}
    event = read_event(value)
    assert type(event) is UnknownEvent
    assert event.type is EventType(kind)
    assert event.raw == to_json(event) == value
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{DOCUMENTED[kind]} does not fit: expected map")
    assert record.getMessage().endswith(" at $.data")


@pytest.mark.parametrize("kind", sorted(set(DOCUMENTED) - UNDOCUMENTED_DATA))
def test_missing_data_is_an_unknown_event(kind: str) -> None:
    assert type(read_event({"type": kind, "data": None})) is UnknownEvent
    assert type(read_event({"type": kind})) is UnknownEvent


@pytest.mark.parametrize("kind", sorted(UNDOCUMENTED_DATA))
def test_data_that_is_not_documented_is_a_map_or_nothing(kind: str) -> None:
    assert getattr(read_event(envelope(kind)), "data") == PAYLOADS[kind]  # noqa: B009
    assert getattr(read_event({"type": kind}), "data") is None  # noqa: B009
    assert to_json(read_event({"type": kind, "data": None})) == {"type": kind, "data": None}


@pytest.mark.parametrize(
    "value",
    [
        {"type": "never_seen", "orgId": 1, "data": {"a": None}},
        {"type": "never_seen", "orgId": "1"},
        {"type": "new_message", "orgId": "1", "data": {"id": 1}},
        {"type": "new_message", "orgId": True, "data": {"id": 1}},
        {"type": ["new_message"], "data": {}},
        {"type": {}, "orgId": None},
        {"type": None},
        {"orgId": 1},
        {},
    ],
)
def test_an_unknown_event_keeps_all_of_it(value: dict[str, Any]) -> None:
    event = read_event(dict(value))
    assert type(event) is UnknownEvent
    assert event.type == (value.get("type") if isinstance(value.get("type"), str) else None)
    assert event.org_id == (1 if type(value.get("orgId")) is int else None)
    assert to_json(event) == value
    read = {"type"} if event.type is not None else set()
    assert event.extra.keys() == value.keys() - read - ({"orgId"} if event.org_id else set())
    assert isinstance(event.raw, Frozen)
    assert event.raw == value


@pytest.mark.parametrize("kind", DOCUMENTED)
def test_the_time_of_an_event_is_that_of_the_event_itself(kind: str) -> None:
    assert read_event(envelope(kind)).occurred_at == TIMED.get(kind)


@pytest.mark.parametrize("kind", [*DOCUMENTED, "never_seen"])
def test_the_key_tells_deliveries_apart_and_repeats_not(kind: str) -> None:
    value: dict[str, Any] = {"type": kind, "orgId": 1, "data": {"a": 1}}
    value |= envelope(kind) if kind in DOCUMENTED else {}
    turned = {key: value[key] for key in reversed(value)}
    key = read_event(value).key
    assert key == read_event(turned).key == pickle.loads(pickle.dumps(read_event(value))).key
    assert len(key) == 64
    others = [
        {**value, "orgId": 7},
        {**value, "new": None},
        {**value, "data": {**value["data"], "new": 1}},
        {**value, "data": {**value["data"], "new": "1"}},
    ]
    assert len({key, *(read_event(other).key for other in others)}) == 5


@pytest.mark.parametrize("kind", [*DOCUMENTED, "never_seen"])
def test_an_event_pickles_and_shows_little(kind: str) -> None:
    value = {**envelope(kind), "x": None} if kind in DOCUMENTED else {"type": kind, "data": "a@b.c"}
    event = read_event(value)
    again = pickle.loads(pickle.dumps(event))
    assert again == event
    assert to_json(again) == value
    assert repr(event) == f"{type(event).__name__}()"
    with pytest.raises(TypeError):
        hash(event)


def test_an_event_can_be_made_for_a_test_of_a_handler() -> None:
    event = EVENTS["app_disconnected"]()
    assert event.type is EventType.APP_DISCONNECTED
    assert isinstance(event, WebhookEvent)


@pytest.mark.parametrize("kind", DOCUMENTED)
def test_an_event_from_json_is_of_the_class_of_its_type(kind: str) -> None:
    event = read_event(envelope(kind))
    again = from_json(WebhookEvent, to_json(event))
    assert type(again) is EVENTS[kind]
    assert again == event
    assert from_json(tuple[WebhookEvent, ...], [to_json(event)] * 2) == (event, event)
    assert from_json(EVENTS[kind], to_json(event)) == event


@pytest.mark.parametrize(
    "value",
    [{}, {"type": "new", "orgId": 7}, {"type": "new_message", "data": {"id": "x"}, "x": None}],
    ids=repr,
)
def test_json_that_fits_no_class_is_an_unknown_event(value: Any) -> None:
    event = from_json(WebhookEvent, value)
    assert type(event) is UnknownEvent
    assert to_json(event) == value
    assert from_json(WebhookEvent, to_json(event)) == event


@pytest.mark.parametrize("value", [None, 7, "new_message", [], [{}]])
def test_an_event_is_read_of_a_map_only(value: Any) -> None:
    with pytest.raises(InputError, match=r"\$: expected map"):
        from_json(WebhookEvent, value)
