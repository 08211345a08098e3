"""The table of operations, and the search for the row of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from . import accounts, contacts, conversations, events, messages, oauth, org, people, reports, scim
from .call import Call
from .types import Reply

Handler = Callable[[Call], Reply]
Query = Mapping[str, Sequence[str]]
When = Callable[[Query, bytes], bool]


@attrs.frozen
class Operation:
    """One row: dotted name, method, path template, needed scope (None: any token).

    `budget` is the rate limit it counts against. `when` looks at query and body to tell
    two rows of one path apart. `open` rows are answered without a bearer token.
    """

    name: str
    method: str
    path: str
    scope: str | None
    handle: Handler = attrs.field(repr=False)
    budget: str
    when: When | None = attrs.field(repr=False)
    open: bool = attrs.field(repr=False)


# Name, method, path, scope (- for none), and the handler where it is not called like the row.
_TABLE: Final = """
contacts.create              POST   /contacts contact_write
contacts.find_by_external_id GET    /contacts contact_read
contacts.find_by_email       GET    /contacts contact_read
contacts.update_by_external_id PATCH  /contacts/normalize contact_write
contacts.add_timeline_event  POST   /contacts/timeline contact_write
contacts.attributes          GET    /contacts/attributes all_contact_read
contacts.get                 GET    /contacts/{id} contact_read
contacts.update              PATCH  /contacts/{id} contact_write
contacts.delete              DELETE /contacts/{id} contact_write
contacts.add_tags            POST   /contacts/{id}/tags -
contacts.remove_tag          DELETE /contacts/{id}/tags/{name} -
contacts.remove_tags         POST   /contacts/{id}/tags/delete/_bulk -
contacts.unsubscribe         POST   /emails/unsubscribe contact_write
users.get_many               GET    /users user_read people.get_many
users.all                    GET    /users/list user_read people.all
users.update                 PATCH  /users/update user_write people.update
users.meetings               GET    /users/meetings/org user_read people.meetings
users.get                    GET    /users/{id} user_read people.get
conversations.all            GET    /conversations/list conversation_read
conversations.create         POST   /conversations/new conversation_write
conversations.stats          GET    /conversations/stats conversation_read
conversations.get            GET    /conversations/{id} conversation_read
conversations.transcript     GET    /conversations/{id}/transcript conversation_read
conversations.json_transcript GET    /conversations/{id}/json_transcript conversation_read
conversations.create_message POST   /conversations/{id}/messages conversation_write messages.create
conversations.messages GET /conversations/{id}/messages conversation_read messages.list_page
conversations.attachment     GET    /attachments/{id}/data conversation_read messages.attachment
reports.conversations        POST   /reports/conversations conversation_read
reports.conversation_summary POST   /reports/conversation-summary -
accounts.create              POST   /accounts/create account_write
accounts.update              PATCH  /accounts/update account_write
accounts.all                 GET    /accounts account_read
accounts.get                 GET    /accounts/{id} account_read
accounts.delete              DELETE /accounts/{id} account_write
playbooks.all                GET    /playbooks/list playbook_read org.playbooks
playbooks.landing_pages      GET    /playbooks/clp playbook_read org.landing_pages
teams.all                    GET    /teams/org user_read people.teams
teams.of_user                GET    /teams/users/{id} user_read people.teams_of_user
app.token_info               POST   /app/token_info - org.token_info
app.uninstall                POST   /app/uninstall - org.uninstall
gdpr.retrieve                POST   /gdpr/retrieve gdpr_read org.retrieve
gdpr.delete                  POST   /gdpr/delete gdpr_write org.erase
scim.all                     GET    /scim/Users -
scim.create                  POST   /scim/Users -
scim.get                     GET    /scim/Users/{id} -
scim.replace                 PUT    /scim/Users/{id} -
scim.update                  PATCH  /scim/Users/{id} -
scim.delete                  DELETE /scim/Users/{id} -
events.identify              POST   /identify -
events.identify_many         POST   /identify/multi -
events.track                 POST   /track -
events.track_many            POST   /track/multi -
segmentstream.track          POST   /segmentstream/track - events.hit
oauth.authorize_url          GET    /authorize - oauth.authorize
oauth.refresh                POST   /oauth2/token - oauth.token
oauth.exchange               POST   /oauth2/token - oauth.token
"""
_MODULES: Final = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(accounts, contacts, conversations, events, messages),
        *(oauth, org, people, reports, scim),
    )
}
_WHEN: Final[Mapping[str, When]] = {
    "contacts.find_by_external_id": lambda query, _: "idType" in query,
    "users.get_many": lambda query, _: "userId" in query,
    "oauth.refresh": lambda _, body: b"refresh_token" in body,
}
_BUDGETS: Final = ("reports", "events", "segmentstream")
_OPEN: Final = ("events", "oauth", "segmentstream")


def _operation(line: str) -> Operation:
    name, method, path, scope, *handler = line.split()
    group = name.partition(".")[0]
    module, _, function = (handler or [name])[0].partition(".")
    return Operation(
        name,
        method,
        path,
        None if scope == "-" else scope,
        getattr(_MODULES[module], function),
        group if group in _BUDGETS else "default",
        _WHEN.get(name),
        group in _OPEN or name == "app.token_info",
    )


OPERATIONS: Final = tuple(_operation(line) for line in _TABLE.strip().splitlines())
NAMES: Final = {row.name: row for row in OPERATIONS}
SCOPES: Final = frozenset(row.scope for row in OPERATIONS if row.scope)

# Older forms that some client still uses: method, path, operation that answers.
ALIASES: Final = (
    ("GET", "/users", "users.all"),
    ("GET", "/conversations", "conversations.all"),
    ("POST", "/contacts/{id}", "contacts.delete"),
    ("PUT", "/scim/Users", "scim.replace"),
    ("DELETE", "/scim/Users", "scim.delete"),
)


@attrs.define
class _Node:
    """One segment of the paths: the segments that may follow, and the methods of its own path."""

    names: dict[str, _Node] = attrs.field(factory=dict)
    any: _Node | None = None
    methods: dict[str, list[Operation]] = attrs.field(factory=dict)

    def add(self, method: str, path: str, row: Operation) -> None:
        node = self
        for segment in path.strip("/").split("/"):
            if segment.startswith("{"):
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.names.setdefault(segment, _Node())
        node.methods.setdefault(method, []).append(row)

    def find(self, segments: Sequence[str], depth: int = 0) -> Iterator[tuple[_Node, list[str]]]:
        """Yield the nodes of these segments and the values of placeholders, literal names first."""
        if depth == len(segments):
            if self.methods:
                yield self, []
            return
        segment = segments[depth]
        if segment in self.names:
            yield from self.names[segment].find(segments, depth + 1)
        if self.any is not None and segment:
            for node, values in self.any.find(segments, depth + 1):
                yield node, [segment, *values]


_ROOT: Final = _Node()
for _row in OPERATIONS:
    _ROOT.add(_row.method, _row.path, _row)
for _method, _path, _name in ALIASES:
    _ROOT.add(_method, _path, NAMES[_name])


@attrs.frozen
class Match:
    """The row of a request (None with `allowed` for a wrong method) and its path values."""

    operation: Operation | None = None
    params: Sequence[str] = ()
    allowed: Sequence[str] = ()


def match(method: str, segments: Sequence[str], query: Query, body: bytes) -> Match:
    """Find the row of a request; `segments` are decoded, and end without an empty one."""
    if segments[:1] == ["v1"]:  # older clients put it in front of every path
        segments = segments[1:]
    for node, params in _ROOT.find(segments):
        for row in node.methods.get(method, ()):
            if row.when is None or row.when(query, body):
                return Match(row, params)
        return Match(allowed=sorted(node.methods))
    return Match()
