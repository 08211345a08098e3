"""Client for the Drift API: awaited here, blocking in `drift_async.sync`.

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .client import Drift as Drift
    from .core.codec import (
        Frozen as Frozen,
    )
    from .core.codec import (
        Model as Model,
    )
    from .core.codec import (
        from_json as from_json,
    )
    from .core.codec import (
        to_json as to_json,
    )
    from .core.hooks import RequestInfo as RequestInfo
    from .core.hooks import ResponseInfo as ResponseInfo
    from .core.hooks import RetryInfo as RetryInfo
    from .core.inputs import UNSET as UNSET
    from .core.inputs import Unset as Unset
    from .core.pager import Page as Page
    from .core.pager import Pager as Pager
    from .core.rate import Rate as Rate
    from .core.rate import RateState as RateState
    from .core.retry import Retry as Retry
    from .core.secret import Secret as Secret
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
        WrongLoopError as WrongLoopError,
    )
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
        IdType as IdType,
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

# Where the public names live. The block above says the same to type checkers; a test compares.
MODULES = {
    "client": "Drift",
    "core.codec": "Frozen Model from_json to_json",
    "core.hooks": "RequestInfo ResponseInfo RetryInfo",
    "core.inputs": "UNSET Unset",
    "core.pager": "Page Pager",
    "core.rate": "Rate RateState",
    "core.retry": "Retry",
    "core.secret": "Secret",
    "errors": (
        "APIError AuthenticationError BadRequestError CallError ClosedError ConflictError "
        "ConnectError ConnectionLostError CredentialsError CursorError DeadlineError "
        "DecodeError DriftError ForkError InputError NotFoundError OutcomeUnknownError "
        "ProtocolError RateLimitError ResponseTooLargeError ScopeError ServerError "
        "WrongLoopError"
    ),
    "resources.accounts": "Account CustomProperty PropertyType",
    "resources.app": "TokenInfo",
    "resources.attributes": "AttributeDefinition AttributeType ContactAttributes",
    "resources.contacts": "Contact IdType TimelineEvent",
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
}
HOMES = {name: module for module, names in MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return ["__version__", *HOMES]
