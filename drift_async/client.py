"""`Drift`: the client of the REST API, with its settings and the groups of operations."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Self, Unpack

from .core.bulk import Bulk, Items, Method
from .core.caller import Auth
from .core.client import BaseClient, CommonSettings
from .core.hooks import RequestInfo, ResponseInfo, RetryInfo
from .core.outcome import BulkProgress, Item, Value
from .core.process import decode
from .core.rate_limit import Rate
from .core.request import Effect, Endpoint, Request, query, segment
from .core.resource import Resource
from .core.retry import Retry
from .core.secret import Secret, bearer, env_value, hide, secret_from
from .core.strict_json import dumps, to_plain_json
from .core.validate import token_secret
from .errors import CredentialsError, InputError
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

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

BASE_URL = "https://driftapi.com"

GROUPS: dict[str, type[Resource]] = {
    "contacts": Contacts,
    "users": Users,
    "conversations": Conversations,
    "accounts": Accounts,
    "playbooks": Playbooks,
    "teams": Teams,
    "app": App,
    "gdpr": Gdpr,
    "scim": Scim,
    "reports": Reports,
}
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_EFFECTS = ("safe", "idempotent", "once")


class Drift(BaseClient):
    """The client of the Drift REST API: https://devdocs.drift.com/docs

    A client is only settings until it is opened, by ``async with`` or ``await drift.open()``; after
    `close` it can be opened again. On the awaited face it serves any number of tasks of the event
    loop it was opened in, which may be another one each time. On the blocking face it serves any
    number of threads, and its first call opens it as well.

    ``token`` is the access token; in its place ``auth``, which `OAuth.auth` makes, brings one that
    is renewed. ``timeout`` bounds a call in seconds, with waiting, all attempts and reading the
    reply (60). ``retry`` says how to try again (3 attempts), ``rate`` how fast to
    send. ``connect_timeout`` (10) and ``attempt_timeout`` (30) bound one attempt, in seconds
    (a second or more may end a tenth of a second late);
    ``max_connections`` (100), ``max_pages`` of a walk (10,000) and ``max_body`` of a reply in bytes
    (32 MiB) bound the rest. ``proxy`` is the URL of an HTTP proxy, ``tls`` an `ssl.SSLContext` with
    certificates of your own; it has to verify what it is shown, unless
    ``dangerously_accept_any_certificate`` is set. Bad settings raise `InputError`.

    ``on_request``, ``on_response`` and ``on_retry`` are plain callables that get one record of
    each attempt; they run on the client's event loop and must not block. The logger
    ``drift_async`` reports retries at INFO, and each attempt at DEBUG if that level is set when
    the client is opened. With a ``tracer_provider`` of OpenTelemetry (extra ``otel``) each call
    is a client span, and its retries are events in it.

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

    def __init__(
        self,
        token: str | Secret | None = None,
        *,
        auth: Auth | None = None,
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
        dangerously_accept_any_certificate: bool = False,
        on_request: Callable[[RequestInfo], object] | None = None,
        on_response: Callable[[ResponseInfo], object] | None = None,
        on_retry: Callable[[RetryInfo], object] | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        token = hide(token)
        if auth is not None and token is not None:
            raise InputError("auth", "give a token or auth, not both")
        self._set_up(
            base_url=base_url,
            timeout=timeout,
            retry=retry,
            rate=rate,
            connect_timeout=connect_timeout,
            attempt_timeout=attempt_timeout,
            max_connections=max_connections,
            max_body=max_body,
            proxy=proxy,
            tls=tls,
            dangerously_accept_any_certificate=dangerously_accept_any_certificate,
            on_request=on_request,
            on_response=on_response,
            on_retry=on_retry,
            tracer_provider=tracer_provider,
            token=None if token is None else token_secret("token", token),
            auth=auth,
            budgets={"reports": Rate(per_second=1.0)},  # documented: 60 a minute
            max_pages=max_pages,
        )
        self._without_token = "give a token or auth, or set DRIFT_TOKEN"
        self._make_groups()

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **settings: Unpack[Settings]) -> Self:
        """Return a client set by environment variables; *settings* given here win.

        Reads ``DRIFT_TOKEN``, else the file named by ``DRIFT_TOKEN_FILE``, and ``DRIFT_BASE_URL``
        from *env* (the process's by default). Without a token, `open` raises `CredentialsError`.
        """
        token, why = (None, "") if settings.get("auth") else secret_from(env, "DRIFT_TOKEN")
        given: dict[str, Any] = {
            "base_url": env_value(env, "DRIFT_BASE_URL") or BASE_URL,
            **settings,
        }
        client = cls(token, **given)
        client._without_token = why
        return client

    def with_options(self, *, timeout: float | None = None, retry: Retry | None = None) -> Self:
        """Return a view of this client with other settings for its calls.

        It shares connections and rate limits, and is opened and closed with the client itself.
        """
        view = self._view(timeout=timeout, retry=retry)
        view._make_groups()
        return view

    def _authorization(self) -> Secret:
        state = self._caller.state
        if state.auth is not None:
            state.token = state.auth.secret
        if state.token is None:
            raise CredentialsError(self._without_token)
        return bearer(state.token)

    def _make_groups(self) -> None:
        for name, kind in GROUPS.items():
            setattr(self, name, kind(self._caller))

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
        endpoint = _unwrapped(method, path, effect)
        target = endpoint.path
        if params is not None:
            if not isinstance(params, Mapping):
                raise InputError("params", "must be a mapping")
            if params:
                target = f"{target}?{query(params)}"
        body = None if json is None else dumps(to_plain_json("json", json))
        response = await self._caller.send(Request(endpoint, target, body))
        return await decode(endpoint.parse_any, response)

    def bulk(
        self,
        method: Method[Item, Value],
        items: Items[Item],
        *,
        window: int = 64,
        stop_on_error: bool = False,
        progress: Callable[[BulkProgress], object] | None = None,
    ) -> Bulk[Item, Value]:
        """Call a method of one of this client's groups for each item, with an outcome for each.

        *method* takes the item as its only argument; ``functools.partial`` can give it others by
        name. *items* is any iterable, also without end. At most *window* calls are under way, and
        16 times as many outcomes wait behind one that is not finished. All calls share one place
        in the queue of the rate limit. Each has its own ``timeout``, which starts when the limit
        lets it through, and stands still while it waits for the limit again. With *stop_on_error*
        nothing is started after the first error. *progress* gets a `BulkProgress` about ten times
        a second, and once at the end. Bad arguments raise `InputError`.

        >>> async for done in drift.bulk(drift.conversations.transcript, ids):
        ...     print(done.index, done.error or len(done.value))
        """
        bound: Any = method.func if isinstance(method, partial) else method
        group: Any = getattr(bound, "__self__", None)
        if not (isinstance(group, Resource) and iscoroutinefunction(bound)):
            raise InputError("method", "must be a coroutine method of a group of the client")
        caller: Any = group._caller
        if caller.state is not self._caller.state:
            raise InputError("method", "must be of this client, or of a view of it")
        call = bound.__func__
        if isinstance(method, partial):
            if method.args:
                raise InputError("method", "must be given its other arguments by name")
            call = partial(call, **method.keywords)
        return group._bulk(
            call, items, window=window, stop_on_error=stop_on_error, progress=progress
        )


class Settings(CommonSettings, total=False):
    """The keyword arguments of `Drift`."""

    auth: Auth | None
    max_pages: int
    tracer_provider: TracerProvider | None


def _unwrapped(method: str, path: str, effect: Effect | None) -> Endpoint[Any]:
    if method not in _METHODS:
        raise InputError("method", f"must be one of {', '.join(_METHODS)}")
    if effect not in (None, *_EFFECTS):
        raise InputError("effect", f"must be one of {', '.join(_EFFECTS)}")
    if not isinstance(path, str) or not path.startswith("/"):
        raise InputError("path", "must be a text that begins with a slash")
    safe = "".join(f"/{segment('path', part)}" for part in path[1:].split("/"))
    any_json: type[Any] = object
    unsaid: Effect = "safe" if method == "GET" else "once"
    return Endpoint(method, safe, any_json, effect=effect or unsaid, envelope="bare")
