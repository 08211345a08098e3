"""`Drift`: the client of the REST API, with its settings and the groups of operations."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack
from urllib.parse import urlsplit

import attrs

from .core.call import Caller, Live, Site
from .core.connection import Connection, Limits
from .core.endpoint import Effect, Endpoint, query, segment
from .core.inputs import number, text, whole
from .core.rate import Limiter, Rate, RateState
from .core.retry import Retry
from .core.secret import Secret, token_secret
from .core.strict_json import dumps, plain
from .errors import ClosedError, CredentialsError, InputError

if TYPE_CHECKING:
    from .resources.accounts import Accounts
    from .resources.app import App
    from .resources.contacts import Contacts
    from .resources.conversations import Conversations
    from .resources.gdpr import Gdpr
    from .resources.playbooks import Playbooks
    from .resources.reports import Reports
    from .resources.scim import Scim
    from .resources.teams import Teams
    from .resources.users import Users

BASE_URL = "https://driftapi.com"

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
GROUPS = (
    "contacts",
    "users",
    "conversations",
    "accounts",
    "playbooks",
    "teams",
    "app",
    "gdpr",
    "scim",
    "reports",
)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_EFFECTS = ("safe", "idempotent", "once")


@attrs.define(eq=False, repr=False, init=False)
class Drift:
    """The client of the Drift REST API: https://devdocs.drift.com/docs

    A client is only settings until it is opened, by ``async with`` or ``await drift.open()``; it
    can be opened again after `close`, also in another event loop. It serves any number of tasks of
    the loop it was opened in.

    ``token`` is the access token. ``timeout`` bounds a call in seconds, with waiting, all attempts
    and reading the reply (60). ``retry`` says how to try again (3 attempts), ``rate`` how fast to
    send. ``connect_timeout`` (10) and ``attempt_timeout`` (30) bound one attempt, in seconds;
    ``max_connections`` (100), ``max_pages`` of a walk (10,000) and ``max_body`` of a reply in bytes
    (32 MiB) bound the rest. ``proxy`` is the URL of an HTTP proxy, ``tls`` an `ssl.SSLContext` with
    certificates of your own. Bad settings raise `InputError`.

    >>> async with Drift("token") as drift:
    ...     contact = await drift.contacts.get(7)
    """

    contacts: Contacts
    users: Users
    conversations: Conversations
    accounts: Accounts
    playbooks: Playbooks
    teams: Teams
    app: App
    gdpr: Gdpr
    scim: Scim
    reports: Reports
    _settings: _Settings
    _caller: Caller
    _is_view: bool

    def __init__(
        self,
        token: str | None = None,
        *,
        base_url: str = BASE_URL,
        timeout: float = 60.0,
        retry: Retry | None = None,
        rate: Rate | None = None,
        connect_timeout: float = 10.0,
        attempt_timeout: float = 30.0,
        max_connections: int = 100,
        max_pages: int = 10_000,
        max_body: int = 32 * 1024 * 1024,
        proxy: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        for name, most in (
            ("max_connections", max_connections),
            ("max_pages", max_pages),
            ("max_body", max_body),
        ):
            whole(name, most, 1)
        limits = Limits(
            connect_timeout=number("connect_timeout", connect_timeout, above=0),
            max_connections=max_connections,
            max_body=max_body,
        )
        self._settings = _Settings(
            origin=_origin(base_url),
            token=None if token is None else token_secret("token", token),
            limits=limits,
            proxy=None if proxy is None else Secret(text("proxy", proxy)),
            tls=_checked(tls),
        )
        limiters = {
            "default": Limiter(rate or Rate()),
            "reports": Limiter(Rate(per_second=1.0)),  # documented: 60 a minute
        }
        self._caller = Caller(
            Site(limiters, self._settings.token),
            timeout=number("timeout", timeout, above=0),
            retry=retry or Retry(),
            attempt_timeout=number("attempt_timeout", attempt_timeout, above=0),
            max_pages=max_pages,
        )
        self._is_view = False

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **settings: Unpack[Settings]) -> Self:
        """Return a client set by environment variables; *settings* given here win.

        Reads ``DRIFT_TOKEN``, else the file named by ``DRIFT_TOKEN_FILE``, and ``DRIFT_BASE_URL``
        from *env* (the process's by default). Without a token, `open` raises `CredentialsError`.
        """
        env = os.environ if env is None else env
        token, why = _token_from(env)
        given: dict[str, Any] = {"base_url": env.get("DRIFT_BASE_URL") or BASE_URL, **settings}
        client = cls(token, **given)
        client._settings.without_token = why
        return client

    async def open(self) -> None:
        """Make the client usable in the running event loop; nothing is sent.

        Raises `CredentialsError` without a token, `WrongLoopError` while it is open in another
        loop. Opening an open client does nothing.
        """
        self._refuse_view()
        site = self._caller.site
        if site.live is not None:
            if not site.live.loop.is_closed():
                site.use()
                return
            self._abandon()  # its loop ended before it was closed
        site.live = Live(self._settings.connect())

    async def close(self) -> None:
        """Cancel what is under way and close the connections. Closing twice does nothing."""
        self._refuse_view()
        site = self._caller.site
        if site.live is not None:
            if site.live.loop.is_closed():
                self._abandon()
                return
            live = site.use()
            site.live = None
            await live.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def with_options(self, *, timeout: float | None = None, retry: Retry | None = None) -> Self:
        """Return a view of this client with other settings for its calls.

        It shares connections and rate limits, and is opened and closed with the client itself.
        """
        view = type(self).__new__(type(self))
        view._settings = self._settings
        view._is_view = True
        caller = self._caller
        view._caller = attrs.evolve(
            caller,
            timeout=caller.timeout if timeout is None else number("timeout", timeout, above=0),
            retry=retry or caller.retry,
        )
        return view

    if not TYPE_CHECKING:  # the groups are declared above; type checkers must not see more

        def __getattr__(self, name: str) -> Any:
            """Make a group when it is first used.

            Loading all of them with the client would make its import a sixth slower.
            """
            if name not in GROUPS:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            module = import_module(f".resources.{name}", __package__)
            group = getattr(module, name.capitalize())(self._caller)
            setattr(self, name, group)
            return group

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        effect: Effect | None = None,
    ) -> Any:
        """Call what this library does not wrap, and return the whole JSON value of the reply.

        *path* is plain text such as ``/contacts/7``; *params* become the query (lists repeat their
        key), *json* the body. *effect* says whether a repeat may apply twice: by default a GET is
        ``safe`` and all else ``once``, sent again only if nothing has left. An empty reply is None.
        """
        if not isinstance(method, str) or method not in _METHODS:
            raise InputError("method", f"must be one of {', '.join(_METHODS)}")
        if effect is not None and (not isinstance(effect, str) or effect not in _EFFECTS):
            raise InputError("effect", f"must be one of {', '.join(_EFFECTS)}")
        if not isinstance(path, str):
            raise InputError("path", "must be a text that begins with a slash")
        endpoint = _unwrapped(method, path, effect or ("safe" if method == "GET" else "once"))
        target = endpoint.path
        if params is not None:
            if not isinstance(params, Mapping):
                raise InputError("params", "must be a mapping")
            if params:
                target = f"{target}?{query(params)}"
        body = None if json is None else dumps(plain("json", json))
        reply = await self._caller.send(endpoint, target, body)
        return endpoint.decode_any(reply)

    @property
    def rate(self) -> RateState:
        """What pacing does now: rate, burst, waiting calls, seconds of a pause."""
        return self._caller.site.limiters["default"].state()

    def __repr__(self) -> str:
        state = "closed" if self._caller.site.live is None else "open"
        return f"<{type(self).__module__}.{type(self).__name__} {self._settings.origin} {state}>"

    def _refuse_view(self) -> None:
        if self._is_view:
            raise ClosedError("a view is opened and closed with the client it was made from")

    def _abandon(self) -> None:
        """Drop what is live without touching it: its loop is gone, or it is a parent process's."""
        site = self._caller.site
        if site.live is not None:
            site.live.connection.abandon()
            site.live = None


class Settings(TypedDict, total=False):
    """The keyword arguments of `Drift`."""

    base_url: str
    timeout: float
    retry: Retry | None
    rate: Rate | None
    connect_timeout: float
    attempt_timeout: float
    max_connections: int
    max_pages: int
    max_body: int
    proxy: str | None
    tls: ssl.SSLContext | None


@attrs.define(eq=False, repr=False)
class _Settings:
    """What a connection is made from."""

    origin: str
    token: Secret | None
    limits: Limits
    proxy: Secret | None
    tls: ssl.SSLContext | None
    without_token: str = "give a token, or set DRIFT_TOKEN"

    def connect(self) -> Connection:
        if self.token is None:
            raise CredentialsError(self.without_token)
        return Connection(self.origin, self.token, self.limits, tls=self.tls, proxy=self.proxy)


def _token_from(env: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the token, or why there is none."""
    if token := env.get("DRIFT_TOKEN"):
        return token, ""
    if file := env.get("DRIFT_TOKEN_FILE"):
        try:
            return Path(file).read_text("ascii").strip() or None, "DRIFT_TOKEN_FILE is empty"
        except (OSError, UnicodeError) as error:
            return None, f"DRIFT_TOKEN_FILE cannot be read ({type(error).__name__})"
    return None, "set DRIFT_TOKEN or DRIFT_TOKEN_FILE"


@lru_cache(maxsize=512)
def _unwrapped(method: str, path: str, effect: Effect) -> Endpoint[Any]:
    if not path.startswith("/"):
        raise InputError("path", "must be a text that begins with a slash")
    safe = "".join(f"/{segment('path', part)}" for part in path[1:].split("/"))
    any_json: type[Any] = object
    return Endpoint(method, safe, any_json, effect=effect, envelope="bare")


def _origin(base_url: str) -> str:
    """Return a base URL without its last slash, or raise `InputError`: https, but for loopback."""
    try:
        parts = urlsplit(text("base_url", base_url))
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InputError("base_url", "must be a URL") from None
    if parts.scheme not in ("https", "http") or not host:
        raise InputError("base_url", "must be a URL that begins with https://")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise InputError("base_url", "must be https; plain http is for loopback addresses only")
    if "@" in parts.netloc or any(sign in base_url for sign in "?#\\"):
        raise InputError("base_url", "must not hold credentials, query or fragment")
    if any(not "\x21" <= sign <= "\x7e" for sign in base_url):
        raise InputError("base_url", "must be visible ASCII")
    return base_url.rstrip("/")


def _checked(tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
    if tls is not None and (tls.verify_mode == ssl.CERT_NONE or not tls.check_hostname):
        raise InputError("tls", "must verify certificates and host names")
    return tls
