"""What all clients share: settings of connections, and the life from `open` to `close`."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypedDict
from urllib.parse import urlsplit

import attrs

from ..errors import ClosedError, InputError
from .call import Auth, Caller, Live, Site
from .connection import Connection, Limits
from .discreet import discreet
from .hooks import Hooks, RequestInfo, ResponseInfo, RetryInfo, Spans
from .rate_limit import Limiter, Rate, RateState
from .resolver import Resolver
from .retry import Retry
from .secret import Secret
from .validate import boolean, integer, number, text

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class CommonSettings(TypedDict, total=False):
    """The keyword arguments that all clients take."""

    base_url: str
    timeout: float
    retry: Retry | None
    rate: Rate | None
    connect_timeout: float
    attempt_timeout: float
    max_connections: int
    max_body: int
    proxy: str | None
    tls: ssl.SSLContext | None
    dangerously_accept_any_certificate: bool
    on_request: Callable[[RequestInfo], object] | None
    on_response: Callable[[ResponseInfo], object] | None
    on_retry: Callable[[RetryInfo], object] | None


@discreet
class Client:
    """The life of a client: settings only until it is opened, connections until it is closed."""

    _caller: Caller
    _origin: str
    _limits: Limits
    _proxy: Secret | None
    _tls: ssl.SSLContext | None
    _is_view: bool

    def __init_subclass__(cls) -> None:
        discreet(cls)

    def _set_up(
        self,
        *,
        base_url: str,
        timeout: float,
        retry: Retry | None,
        rate: Rate | None,
        connect_timeout: float,
        attempt_timeout: float,
        max_connections: int,
        max_body: int,
        proxy: str | None,
        tls: ssl.SSLContext | None,
        dangerously_accept_any_certificate: bool,
        on_request: Callable[[RequestInfo], object] | None,
        on_response: Callable[[ResponseInfo], object] | None,
        on_retry: Callable[[RetryInfo], object] | None,
        tracer_provider: TracerProvider | None = None,
        token: Secret | None = None,
        auth: Auth | None = None,
        budgets: Mapping[str, Rate] | None = None,
        max_pages: int = 1,
    ) -> None:
        """Check the settings and keep them."""
        self._origin = origin("base_url", base_url)
        self._limits = Limits(
            connect_timeout=number("connect_timeout", connect_timeout, above=0),
            max_connections=integer("max_connections", max_connections, 1),
            max_body=integer("max_body", max_body, 1),
        )
        self._proxy = None if proxy is None else _proxy(proxy)
        if auth is not None and not hasattr(auth, "renew"):
            raise InputError("auth", "must be what OAuth.auth() returns")
        self._tls = _checked(tls, any_certificate=dangerously_accept_any_certificate)
        rates = {"default": rate or Rate(), **(budgets or {})}
        self._caller = Caller(
            Site(
                {name: Limiter(rate) for name, rate in rates.items()},
                token,
                auth,
                hooks=Hooks(
                    on_request=on_request,
                    on_response=on_response,
                    on_retry=on_retry,
                    spans=_spans(tracer_provider, self._origin),
                ),
            ),
            timeout=number("timeout", timeout, above=0),
            retry=retry or Retry(),
            attempt_timeout=number("attempt_timeout", attempt_timeout, above=0),
            max_pages=integer("max_pages", max_pages, 1),
        )
        self._is_view = False

    def _authorization(self) -> Secret | None:
        """Return the value of the Authorization header, or raise `CredentialsError`."""
        return None

    async def open(self) -> None:
        """Make the client usable; nothing is sent.

        Raises `CredentialsError` without credentials; on the awaited face, where it is for the
        running event loop, `WrongLoopError` while it is open in another one. Opening an open client
        does nothing.
        """
        self._refuse_view()
        site = self._caller.site
        if site.live is not None:
            if not site.live.loop.is_closed():
                site.use()
                return
            self._forget_after_fork()  # its loop ended before it was closed
        live = site.live = Live(self._connect(), site.hooks)
        if site.auth is not None:
            live.spawn(site.auth.keep(site, live))

    def _connect(self, resolver: Resolver | None = None) -> Connection:
        return Connection(
            self._origin,
            self._authorization(),
            self._limits,
            tls=self._tls,
            proxy=self._proxy,
            resolver=resolver,
        )

    async def close(self) -> object:
        """Cancel what is under way and close the connections. Closing twice does nothing."""
        self._refuse_view()
        site = self._caller.site
        if site.live is not None:
            if site.live.loop.is_closed():
                self._forget_after_fork()
                return None
            live = site.use()
            site.live = None
            await live.close()
        return None

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

    @property
    def rate(self) -> RateState:
        """What pacing does now: rate, burst, waiting calls, seconds of a pause."""
        return self._caller.site.limiters["default"].state()

    def __repr__(self) -> str:
        state = "closed" if self._caller.site.live is None else "open"
        return f"<{type(self).__module__}.{type(self).__name__} {self._origin} {state}>"

    def _view(self, *, timeout: float | None, retry: Retry | None) -> Self:
        """Return this client with other settings for its calls."""
        view = type(self).__new__(type(self))
        # All but what hangs on the caller, such as the groups of operations.
        vars(view).update((name, kept) for name, kept in vars(self).items() if name[0] == "_")
        caller = self._caller
        view._caller = attrs.evolve(
            caller,
            timeout=caller.timeout if timeout is None else number("timeout", timeout, above=0),
            retry=retry or caller.retry,
        )
        view._is_view = True
        return view

    def _refuse_view(self) -> None:
        if self._is_view:
            raise ClosedError("a view is opened and closed with the client it was made from")

    def _forget_after_fork(self) -> None:
        """Drop the connections without touching them: they belong to the parent process.

        Also right for connections whose event loop has ended.
        """
        site = self._caller.site
        if site.live is not None:
            site.live.connection.abandon()
            site.live = None


def origin(field: str, url: str) -> str:
    """Return a base URL without its last slash, or raise `InputError`: https, but for loopback."""
    try:
        parts = urlsplit(text(field, url))
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")  # as the resolver will
    except ValueError:
        raise InputError(field, "must be a URL") from None
    if parts.scheme not in ("https", "http") or not host:
        raise InputError(field, "must be a URL that begins with https://")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise InputError(field, "must be https; plain http is for loopback addresses only")
    if "@" in parts.netloc or any(sign in url for sign in "?#\\"):
        raise InputError(field, "must not hold credentials, query or fragment")
    if any(not "\x21" <= sign <= "\x7e" for sign in url):
        raise InputError(field, "must be visible ASCII")
    return url.rstrip("/")


def _proxy(url: str) -> Secret:
    """Return the URL of a proxy, which may hold credentials, or raise `InputError`."""
    try:
        parts = urlsplit(text("proxy", url))
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InputError("proxy", "must be a URL") from None
    if parts.scheme not in ("https", "http") or not host:
        raise InputError("proxy", "must be a URL that begins with http:// or https://")
    return Secret(url)


def _checked(tls: ssl.SSLContext | None, *, any_certificate: bool) -> ssl.SSLContext | None:
    if not isinstance(tls, ssl.SSLContext | None):
        raise InputError("tls", "must be an ssl.SSLContext")
    if boolean("dangerously_accept_any_certificate", any_certificate) or tls is None:
        return tls
    if tls.verify_mode != ssl.CERT_REQUIRED or not tls.check_hostname:
        raise InputError("tls", "must verify certificates and host names")
    return tls


def _spans(provider: TracerProvider | None, origin: str) -> Spans | None:
    if provider is None:
        return None
    from .tracing import OpenTelemetry

    return OpenTelemetry(provider, origin)
