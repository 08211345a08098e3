"""Client for the Drift API: awaited here, blocking in `drift_async.sync`.

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .auth import OAuth as OAuth
    from .client import Drift as Drift
    from .core.bulk import Bulk as Bulk
    from .core.hooks import RequestInfo as RequestInfo
    from .core.hooks import ResponseInfo as ResponseInfo
    from .core.hooks import RetryInfo as RetryInfo
    from .core.models import (
        FrozenMap as FrozenMap,
    )
    from .core.models import (
        Model as Model,
    )
    from .core.models import (
        from_json as from_json,
    )
    from .core.models import (
        to_json as to_json,
    )
    from .core.outcome import BulkProgress as BulkProgress
    from .core.outcome import BulkReport as BulkReport
    from .core.outcome import Outcome as Outcome
    from .core.paging import Page as Page
    from .core.paging import Pager as Pager
    from .core.rate_limit import Rate as Rate
    from .core.rate_limit import RateState as RateState
    from .core.retry import Retry as Retry
    from .core.secret import Secret as Secret
    from .core.validate import UNSET as UNSET
    from .core.validate import Unset as Unset
    from .errors import (
        APIError as APIError,
    )
    from .errors import (
        AuthenticationError as AuthenticationError,
    )
    from .errors import (
        BadRequestError as BadRequestError,
    )
    from .errors import (
        CallError as CallError,
    )
    from .errors import (
        ClosedError as ClosedError,
    )
    from .errors import (
        ConflictError as ConflictError,
    )
    from .errors import (
        ConnectError as ConnectError,
    )
    from .errors import (
        ConnectionLostError as ConnectionLostError,
    )
    from .errors import (
        CredentialsError as CredentialsError,
    )
    from .errors import (
        CursorError as CursorError,
    )
    from .errors import (
        DeadlineError as DeadlineError,
    )
    from .errors import (
        DecodeError as DecodeError,
    )
    from .errors import (
        DriftError as DriftError,
    )
    from .errors import (
        ForkError as ForkError,
    )
    from .errors import (
        InputError as InputError,
    )
    from .errors import (
        NotFoundError as NotFoundError,
    )
    from .errors import (
        OutboxFullError as OutboxFullError,
    )
    from .errors import (
        OutboxLockedError as OutboxLockedError,
    )
    from .errors import (
        OutcomeUnknownError as OutcomeUnknownError,
    )
    from .errors import (
        ProtocolError as ProtocolError,
    )
    from .errors import (
        RateLimitError as RateLimitError,
    )
    from .errors import (
        ResponseTooLargeError as ResponseTooLargeError,
    )
    from .errors import (
        ScopeError as ScopeError,
    )
    from .errors import (
        ServerError as ServerError,
    )
    from .errors import (
        TokenNotSavedError as TokenNotSavedError,
    )
    from .errors import VerificationError as VerificationError
    from .errors import (
        WrongLoopError as WrongLoopError,
    )
    from .events.drift import DriftEvents as DriftEvents
    from .events.models import DeadEvent as DeadEvent
    from .events.models import EventStats as EventStats
    from .events.models import Hit as Hit
    from .events.models import Identify as Identify
    from .events.models import Loss as Loss
    from .events.models import Track as Track
    from .events.segmentstream import SegmentStream as SegmentStream
    from .identity import WeakKeyWarning as WeakKeyWarning
    from .identity import signed_identity as signed_identity
    from .resources.accounts import (
        Account as Account,
    )
    from .resources.accounts import (
        CustomProperty as CustomProperty,
    )
    from .resources.accounts import (
        PropertyType as PropertyType,
    )
    from .resources.app import TokenInfo as TokenInfo
    from .resources.attributes import (
        AttributeDefinition as AttributeDefinition,
    )
    from .resources.attributes import (
        AttributeType as AttributeType,
    )
    from .resources.attributes import (
        ContactAttributes as ContactAttributes,
    )
    from .resources.contacts import (
        Contact as Contact,
    )
    from .resources.contacts import (
        ContactUpdate as ContactUpdate,
    )
    from .resources.contacts import (
        IdType as IdType,
    )
    from .resources.contacts import (
        NewContact as NewContact,
    )
    from .resources.contacts import (
        TimelineEvent as TimelineEvent,
    )
    from .resources.conversations import (
        Conversation as Conversation,
    )
    from .resources.conversations import (
        ConversationStats as ConversationStats,
    )
    from .resources.conversations import (
        ConversationStatus as ConversationStatus,
    )
    from .resources.conversations import (
        ConversationTag as ConversationTag,
    )
    from .resources.gdpr import GdprDeletion as GdprDeletion
    from .resources.gdpr import GdprRetrieval as GdprRetrieval
    from .resources.messages import (
        Attachment as Attachment,
    )
    from .resources.messages import (
        Author as Author,
    )
    from .resources.messages import (
        AuthorType as AuthorType,
    )
    from .resources.messages import (
        Button as Button,
    )
    from .resources.messages import (
        ButtonStyle as ButtonStyle,
    )
    from .resources.messages import (
        ButtonType as ButtonType,
    )
    from .resources.messages import (
        EditType as EditType,
    )
    from .resources.messages import (
        Location as Location,
    )
    from .resources.messages import (
        Message as Message,
    )
    from .resources.messages import (
        MessageContext as MessageContext,
    )
    from .resources.messages import (
        MessageType as MessageType,
    )
    from .resources.messages import (
        Reaction as Reaction,
    )
    from .resources.messages import (
        ReactionType as ReactionType,
    )
    from .resources.messages import (
        Transcript as Transcript,
    )
    from .resources.playbooks import (
        LandingPage as LandingPage,
    )
    from .resources.playbooks import (
        Playbook as Playbook,
    )
    from .resources.playbooks import (
        PlaybookGoal as PlaybookGoal,
    )
    from .resources.playbooks import (
        ReportType as ReportType,
    )
    from .resources.reports import (
        Report as Report,
    )
    from .resources.reports import (
        ReportFilter as ReportFilter,
    )
    from .resources.reports import (
        ReportOperation as ReportOperation,
    )
    from .resources.reports import (
        ReportRow as ReportRow,
    )
    from .resources.scim import ScimName as ScimName
    from .resources.scim import ScimUser as ScimUser
    from .resources.scim import ScimValue as ScimValue
    from .resources.teams import (
        Team as Team,
    )
    from .resources.teams import (
        TeamAvailabilityMode as TeamAvailabilityMode,
    )
    from .resources.teams import (
        TeamStatus as TeamStatus,
    )
    from .resources.users import (
        Availability as Availability,
    )
    from .resources.users import (
        ConferenceDetails as ConferenceDetails,
    )
    from .resources.users import (
        ConferenceType as ConferenceType,
    )
    from .resources.users import (
        Meeting as Meeting,
    )
    from .resources.users import (
        MeetingSource as MeetingSource,
    )
    from .resources.users import (
        MeetingStatus as MeetingStatus,
    )
    from .resources.users import (
        MeetingType as MeetingType,
    )
    from .resources.users import (
        User as User,
    )
    from .resources.users import (
        UserRole as UserRole,
    )
    from .sandbox import Sandbox as Sandbox
    from .tokens import Token as Token
    from .webhooks.events import AppDisconnectedEvent as AppDisconnectedEvent
    from .webhooks.events import ButtonActionEvent as ButtonActionEvent
    from .webhooks.events import ButtonClickedEvent as ButtonClickedEvent
    from .webhooks.events import ChatToCallEvent as ChatToCallEvent
    from .webhooks.events import ContactIdentifiedEvent as ContactIdentifiedEvent
    from .webhooks.events import ContactUpdatedEvent as ContactUpdatedEvent
    from .webhooks.events import ConversationInactiveEvent as ConversationInactiveEvent
    from .webhooks.events import ConversationManualPushEvent as ConversationManualPushEvent
    from .webhooks.events import (
        ConversationParticipantAddedEvent as ConversationParticipantAddedEvent,
    )
    from .webhooks.events import (
        ConversationParticipantRemovedEvent as ConversationParticipantRemovedEvent,
    )
    from .webhooks.events import ConversationPushEvent as ConversationPushEvent
    from .webhooks.events import ConversationStatusUpdatedEvent as ConversationStatusUpdatedEvent
    from .webhooks.events import EventType as EventType
    from .webhooks.events import GdprDeleteRequestedEvent as GdprDeleteRequestedEvent
    from .webhooks.events import MeetingUpdatedEvent as MeetingUpdatedEvent
    from .webhooks.events import NewCommandMessageEvent as NewCommandMessageEvent
    from .webhooks.events import NewConversationEvent as NewConversationEvent
    from .webhooks.events import NewMeetingEvent as NewMeetingEvent
    from .webhooks.events import NewMessageEvent as NewMessageEvent
    from .webhooks.events import PhoneCapturedEvent as PhoneCapturedEvent
    from .webhooks.events import PlaybookGoalMetEvent as PlaybookGoalMetEvent
    from .webhooks.events import UnknownEvent as UnknownEvent
    from .webhooks.events import UserAvailabilityUpdatedEvent as UserAvailabilityUpdatedEvent
    from .webhooks.events import UserUnsubscribedEvent as UserUnsubscribedEvent
    from .webhooks.events import WebhookEvent as WebhookEvent
    from .webhooks.payloads import AttributeChange as AttributeChange
    from .webhooks.payloads import AvailabilityChange as AvailabilityChange
    from .webhooks.payloads import ButtonPress as ButtonPress
    from .webhooks.payloads import CapturedPhone as CapturedPhone
    from .webhooks.payloads import ContactChanges as ContactChanges
    from .webhooks.payloads import ConversationInactivity as ConversationInactivity
    from .webhooks.payloads import GoalMet as GoalMet
    from .webhooks.payloads import MeetingBooking as MeetingBooking
    from .webhooks.payloads import MeetingChange as MeetingChange
    from .webhooks.payloads import ParticipantsAdded as ParticipantsAdded
    from .webhooks.payloads import ParticipantsRemoved as ParticipantsRemoved
    from .webhooks.payloads import StatusChange as StatusChange
    from .webhooks.signing import RelayKey as RelayKey
    from .webhooks.webhooks import Webhooks as Webhooks

# Where the public names live. The block above says the same to type checkers; a test compares.
MODULES = {
    "auth": "OAuth",
    "client": "Drift",
    "core.bulk": "Bulk",
    "core.models": "FrozenMap Model from_json to_json",
    "core.hooks": "RequestInfo ResponseInfo RetryInfo",
    "core.validate": "UNSET Unset",
    "core.outcome": "BulkProgress BulkReport Outcome",
    "core.paging": "Page Pager",
    "core.rate_limit": "Rate RateState",
    "core.retry": "Retry",
    "core.secret": "Secret",
    "errors": (
        "APIError AuthenticationError BadRequestError CallError ClosedError ConflictError "
        "ConnectError ConnectionLostError CredentialsError CursorError DeadlineError "
        "DecodeError DriftError ForkError InputError NotFoundError OutboxFullError "
        "OutboxLockedError OutcomeUnknownError ProtocolError RateLimitError "
        "ResponseTooLargeError ScopeError ServerError TokenNotSavedError VerificationError "
        "WrongLoopError"
    ),
    "events.drift": "DriftEvents",
    "events.models": "DeadEvent EventStats Hit Identify Loss Track",
    "events.segmentstream": "SegmentStream",
    "identity": "WeakKeyWarning signed_identity",
    "resources.accounts": "Account CustomProperty PropertyType",
    "resources.app": "TokenInfo",
    "resources.attributes": "AttributeDefinition AttributeType ContactAttributes",
    "resources.contacts": "Contact ContactUpdate IdType NewContact TimelineEvent",
    "resources.conversations": "Conversation ConversationStats ConversationStatus ConversationTag",
    "resources.gdpr": "GdprDeletion GdprRetrieval",
    "resources.messages": (
        "Attachment Author AuthorType Button ButtonStyle ButtonType EditType Location Message "
        "MessageContext MessageType Reaction ReactionType Transcript"
    ),
    "resources.playbooks": "LandingPage Playbook PlaybookGoal ReportType",
    "resources.reports": "Report ReportFilter ReportOperation ReportRow",
    "resources.scim": "ScimName ScimUser ScimValue",
    "resources.teams": "Team TeamAvailabilityMode TeamStatus",
    "resources.users": (
        "Availability ConferenceDetails ConferenceType Meeting MeetingSource MeetingStatus "
        "MeetingType User UserRole"
    ),
    "sandbox": "Sandbox",
    "tokens": "Token",
    "webhooks.webhooks": "Webhooks",
    "webhooks.events": (
        "AppDisconnectedEvent ButtonActionEvent ButtonClickedEvent ChatToCallEvent "
        "ContactIdentifiedEvent ContactUpdatedEvent ConversationInactiveEvent "
        "ConversationManualPushEvent ConversationParticipantAddedEvent "
        "ConversationParticipantRemovedEvent ConversationPushEvent ConversationStatusUpdatedEvent "
        "EventType GdprDeleteRequestedEvent MeetingUpdatedEvent NewCommandMessageEvent "
        "NewConversationEvent NewMeetingEvent NewMessageEvent PhoneCapturedEvent "
        "PlaybookGoalMetEvent UnknownEvent UserAvailabilityUpdatedEvent UserUnsubscribedEvent "
        "WebhookEvent"
    ),
    "webhooks.payloads": (
        "AttributeChange AvailabilityChange ButtonPress CapturedPhone ContactChanges "
        "ConversationInactivity GoalMet MeetingBooking MeetingChange ParticipantsAdded "
        "ParticipantsRemoved StatusChange"
    ),
    "webhooks.signing": "RelayKey",
}
HOMES = {name: module for module, names in MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name == "__all__":  # here, since type checkers would take a list of it at its word
        return __dir__()
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return ["__version__", *HOMES]
