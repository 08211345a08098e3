"""The public names that are the same objects on both faces."""

from .core.hooks import (
    RequestInfo as RequestInfo,
    ResponseInfo as ResponseInfo,
    RetryInfo as RetryInfo,
)
from .core.models import (
    FrozenMap as FrozenMap,
    Model as Model,
    from_json as from_json,
    to_json as to_json,
)
from .core.outcome import (
    BulkProgress as BulkProgress,
    BulkReport as BulkReport,
    Outcome as Outcome,
)
from .core.paging import Page as Page
from .core.rate_limit import Rate as Rate, RateState as RateState
from .core.retry import Retry as Retry
from .core.secret import Secret as Secret
from .core.validate import UNSET as UNSET, Unset as Unset
from .errors import (
    APIError as APIError,
    AuthenticationError as AuthenticationError,
    BadRequestError as BadRequestError,
    CallError as CallError,
    ClosedError as ClosedError,
    ConflictError as ConflictError,
    ConnectError as ConnectError,
    ConnectionLostError as ConnectionLostError,
    CredentialsError as CredentialsError,
    CursorError as CursorError,
    DeadlineError as DeadlineError,
    DecodeError as DecodeError,
    DriftError as DriftError,
    ForkError as ForkError,
    InputError as InputError,
    NotFoundError as NotFoundError,
    OutboxFullError as OutboxFullError,
    OutboxLockedError as OutboxLockedError,
    OutcomeUnknownError as OutcomeUnknownError,
    ProtocolError as ProtocolError,
    RateLimitError as RateLimitError,
    ResponseTooLargeError as ResponseTooLargeError,
    ScopeError as ScopeError,
    ServerError as ServerError,
    TokenNotSavedError as TokenNotSavedError,
    VerificationError as VerificationError,
    WrongLoopError as WrongLoopError,
)
from .events.models import (
    DeadEvent as DeadEvent,
    EventStats as EventStats,
    Hit as Hit,
    Identify as Identify,
    Loss as Loss,
    Track as Track,
)
from .identity import WeakKeyWarning as WeakKeyWarning, signed_identity as signed_identity
from .resources.accounts import (
    Account as Account,
    CustomProperty as CustomProperty,
    PropertyType as PropertyType,
)
from .resources.app import TokenInfo as TokenInfo
from .resources.attributes import (
    AttributeDefinition as AttributeDefinition,
    AttributeType as AttributeType,
    ContactAttributes as ContactAttributes,
)
from .resources.contacts import (
    Contact as Contact,
    ContactUpdate as ContactUpdate,
    IdType as IdType,
    NewContact as NewContact,
    TimelineEvent as TimelineEvent,
)
from .resources.conversations import (
    Conversation as Conversation,
    ConversationStats as ConversationStats,
    ConversationStatus as ConversationStatus,
    ConversationTag as ConversationTag,
)
from .resources.gdpr import GdprDeletion as GdprDeletion, GdprRetrieval as GdprRetrieval
from .resources.messages import (
    Attachment as Attachment,
    Author as Author,
    AuthorType as AuthorType,
    Button as Button,
    ButtonStyle as ButtonStyle,
    ButtonType as ButtonType,
    EditType as EditType,
    Location as Location,
    Message as Message,
    MessageContext as MessageContext,
    MessageType as MessageType,
    Reaction as Reaction,
    ReactionType as ReactionType,
    Transcript as Transcript,
)
from .resources.playbooks import (
    LandingPage as LandingPage,
    Playbook as Playbook,
    PlaybookGoal as PlaybookGoal,
    ReportType as ReportType,
)
from .resources.reports import (
    Report as Report,
    ReportFilter as ReportFilter,
    ReportOperation as ReportOperation,
    ReportRow as ReportRow,
)
from .resources.scim import ScimName as ScimName, ScimUser as ScimUser, ScimValue as ScimValue
from .resources.teams import (
    Team as Team,
    TeamAvailabilityMode as TeamAvailabilityMode,
    TeamStatus as TeamStatus,
)
from .resources.users import (
    Availability as Availability,
    ConferenceDetails as ConferenceDetails,
    ConferenceType as ConferenceType,
    Meeting as Meeting,
    MeetingSource as MeetingSource,
    MeetingStatus as MeetingStatus,
    MeetingType as MeetingType,
    User as User,
    UserRole as UserRole,
)
from .tokens import Token as Token
from .webhooks.events import (
    AppDisconnectedEvent as AppDisconnectedEvent,
    ButtonActionEvent as ButtonActionEvent,
    ButtonClickedEvent as ButtonClickedEvent,
    ChatToCallEvent as ChatToCallEvent,
    ContactIdentifiedEvent as ContactIdentifiedEvent,
    ContactUpdatedEvent as ContactUpdatedEvent,
    ConversationInactiveEvent as ConversationInactiveEvent,
    ConversationManualPushEvent as ConversationManualPushEvent,
    ConversationParticipantAddedEvent as ConversationParticipantAddedEvent,
    ConversationParticipantRemovedEvent as ConversationParticipantRemovedEvent,
    ConversationPushEvent as ConversationPushEvent,
    ConversationStatusUpdatedEvent as ConversationStatusUpdatedEvent,
    EventType as EventType,
    GdprDeleteRequestedEvent as GdprDeleteRequestedEvent,
    MeetingUpdatedEvent as MeetingUpdatedEvent,
    NewCommandMessageEvent as NewCommandMessageEvent,
    NewConversationEvent as NewConversationEvent,
    NewMeetingEvent as NewMeetingEvent,
    NewMessageEvent as NewMessageEvent,
    PhoneCapturedEvent as PhoneCapturedEvent,
    PlaybookGoalMetEvent as PlaybookGoalMetEvent,
    UnknownEvent as UnknownEvent,
    UserAvailabilityUpdatedEvent as UserAvailabilityUpdatedEvent,
    UserUnsubscribedEvent as UserUnsubscribedEvent,
    WebhookEvent as WebhookEvent,
)
from .webhooks.payloads import (
    AttributeChange as AttributeChange,
    AvailabilityChange as AvailabilityChange,
    ButtonPress as ButtonPress,
    CapturedPhone as CapturedPhone,
    ContactChanges as ContactChanges,
    ConversationInactivity as ConversationInactivity,
    GoalMet as GoalMet,
    MeetingBooking as MeetingBooking,
    MeetingChange as MeetingChange,
    ParticipantsAdded as ParticipantsAdded,
    ParticipantsRemoved as ParticipantsRemoved,
    StatusChange as StatusChange,
)
from .webhooks.signing import RelayKey as RelayKey
