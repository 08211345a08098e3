"""`State`: everything that handlers and the control API read and change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from .faults import Faults
from .logs import EventLog, RequestLog
from .payloads import example
from .store import Store
from .types import Token
from .webhooks import Webhooks


def chosen_scopes(given: Iterable[str] | None, known: frozenset[str]) -> frozenset[str]:
    """Return the given scopes (None: all known ones); ValueError if one is not known."""
    chosen = known if given is None else frozenset(given)
    if unknown := chosen - known:
        raise ValueError(f"scopes: there is no {min(unknown)!r}")
    return chosen


@attrs.frozen
class Code:
    """A code that the consent page issued: where it was sent, and when it ends (milliseconds)."""

    redirect_uri: str
    expires: int


@attrs.define
class App:
    """The public app: its settings, and the codes and refresh tokens issued for it.

    A grant is one agreement of a user; its number ties tokens to the refresh token they came from.
    """

    client_id: str
    client_secret: str
    scopes: frozenset[str]
    lifetime: float
    rotate: bool
    approve: bool
    codes: dict[str, Code] = attrs.field(init=False, factory=dict)
    refresh: dict[str, tuple[int, frozenset[str]]] = attrs.field(init=False, factory=dict)
    issued: int = attrs.field(init=False, default=0)

    def known(self, client_id: str, client_secret: str) -> bool:
        """Return whether this is the app's id and secret."""
        return (client_id, client_secret) == (self.client_id, self.client_secret)

    def name(self, kind: str) -> str:
        """Return a new code or token."""
        self.issued += 1
        return f"sandbox-{kind}-{self.issued}"

    def drop(self, grants: Iterable[int]) -> None:
        """End the refresh tokens of these grants."""
        gone = [token for token, (grant, _) in self.refresh.items() if grant in grants]
        for token in gone:
            del self.refresh[token]


@attrs.define
class State:
    """The rows, the app and its tokens, the logs, the faults, and the settings of handlers."""

    store: Store
    app: App
    webhooks: Webhooks
    requests: RequestLog
    events: EventLog
    faults: Faults
    scopes: frozenset[str]
    """All scopes that exist."""
    streams: set[str]
    """The tokens of SegmentStream."""
    now: Callable[[], float]
    strict: bool
    links_host: str | None
    erase_delay: float
    today: int
    tokens: dict[str, Token] = attrs.field(init=False, factory=dict)
    erasures: list[tuple[float, str]] = attrs.field(init=False, factory=list)

    def add_token(
        self, token: str, scopes: Iterable[str] | None = None, *, expires: float | None = None
    ) -> None:
        """Accept a token with these scopes (None: all) for *expires* seconds (None: for ever)."""
        now = self.now()
        end = None if expires is None else now + expires
        self.tokens[token] = Token(token, chosen_scopes(scopes, self.scopes), now, end)

    def expire(self, token: str) -> None:
        """End the lifetime of an access token now; ValueError if there is no such token."""
        if token not in self.tokens:
            raise ValueError("token: there is no such access token")
        self.tokens[token] = attrs.evolve(self.tokens[token], expires=self.now())

    def revoke(self, token: str) -> None:
        """Forget an access token, a refresh token or one of SegmentStream."""
        self.tokens.pop(token, None)
        self.app.refresh.pop(token, None)
        self.streams.discard(token)

    def forget(self) -> None:
        """Clear the logs of requests and events; their counts go on."""
        self.requests.forget()
        self.events.forget()

    def send_webhook(self, kind: str, data: Any, changes: Mapping[str, Any]) -> None:
        """Queue a webhook with *data* (None: an example of its type), with *changes* of its keys.

        ValueError if there is neither an example nor data.
        """
        if data is None:
            data = example(kind, self.store.seed, int(self.now() * 1000))
        self.webhooks.send(kind, {**data, **changes} if changes else data)

    def erase_due(self, clock: float) -> None:
        """Carry out the erasures whose time has come."""
        due = [email for when, email in self.erasures if when <= clock]
        self.erasures = [item for item in self.erasures if item[0] > clock]
        for email in due:
            self.store.erase(email)
