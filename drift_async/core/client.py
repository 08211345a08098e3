"""`BaseClient`: the settings that all clients share, and their life from `open` to `close`."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypedDict, Unpack
from urllib.parse import SplitResult, urlsplit

import attrs

from ..errors import ClosedError, InputError
from .caller import Auth, Caller, ClientState
from .hooks import Hooks, RequestInfo, ResponseInfo, RetryInfo, Spans
from .rate_limit import Limiter, Rate, RateState
from .resolver import Resolver
from .retry import Retry
from .secret import Secret
from .slots import Limits
from .validate import boolean, integer, number, text

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from .session import HttpSession

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


class BaseClient:
    """A client: settings until it is opened, connections as well until it is closed."""

    def _set_up(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        token: Secret | None = None,
        auth: Auth | None = None,
        budgets: Mapping[str, Rate] | None = None,
        max_pages: int = 1,
        **settings: Unpack[CommonSettings],
    ) -> None:
        """Check the settings and keep them."""
        self._origin = origin("base_url", settings["base_url"])
        self._limits = Limits(
            connect_timeout=number("connect_timeout", settings["connect_timeout"], above=0),
            max_connections=integer("max_connections", settings["max_connections"], 1),
            max_body=integer("max_body", settings["max_body"], 1),
        )
        self._proxy = _proxy(settings["proxy"])
        self._tls = _checked(settings["tls"], settings["dangerously_accept_any_certificate"])
        if auth is not None and not hasattr(auth, "renew"):
            raise InputError("auth", "must be what OAuth.auth() returns")
        rates = {"default": settings["rate"] or Rate(), **(budgets or {})}
        self._caller = Caller(
            ClientState(
                {name: Limiter(rate) for name, rate in rates.items()},
                token,
                auth,
                hooks=Hooks(
                    on_request=settings["on_request"],
                    on_response=settings["on_response"],
                    on_retry=settings["on_retry"],
                    spans=_spans(tracer_provider, self._origin),
                ),
            ),
            timeout=number("timeout", settings["timeout"], above=0),
            retry=settings["retry"] or Retry(),
            attempt_timeout=number("attempt_timeout", settings["attempt_timeout"], above=0),
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
        state = self._caller.state
        if state.session is not None:
            if not state.session.loop.is_closed():
                state.require_open()
                return
            self._forget_after_fork()  # its loop ended before it was closed
        session = state.session = self._new_session()
        if state.auth is not None:
            session.spawn(state.auth.refresh_ahead(state, session))

    def _new_session(self, resolver: Resolver | None = None) -> HttpSession:
        from .session import HttpSession  # at last: it loads the HTTP library

        return HttpSession(
            self._origin,
            self._authorization(),
            self._limits,
            tls=self._tls,
            proxy=self._proxy,
            resolver=resolver,
            hooks=self._caller.state.hooks,
        )

    async def close(self) -> object:
        """Cancel what is under way and close the connections. Closing twice does nothing."""
        self._refuse_view()
        state = self._caller.state
        if state.session is not None:
            if state.session.loop.is_closed():
                self._forget_after_fork()
                return None
            session = state.require_open()
            state.session = None
            for limiter in state.limiters.values():
                limiter.close()
            await session.close()
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
        """The state of the rate limiter: rate, burst, waiting calls, seconds of a pause."""
        return self._caller.state.limiters["default"].state()

    def __repr__(self) -> str:
        if "_caller" not in vars(self):  # its settings were refused
            return f"<{type(self).__module__}.{type(self).__name__}>"
        state = "closed" if self._caller.state.session is None else "open"
        return f"<{type(self).__module__}.{type(self).__name__} {self._origin} {state}>"

    def _view(self, *, timeout: float | None, retry: Retry | None) -> Self:
        """Return this client with other settings for its calls."""
        view = type(self).__new__(type(self))
        # The groups of operations depend on the caller, and are made anew.
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
        state = self._caller.state
        if state.session is not None:
            state.session.abandon()
            state.session = None


def origin(field: str, url: str) -> str:
    """Return a base URL without its last slash, or raise `InputError`: https, but for loopback."""
    parts = _split(field, url)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise InputError(field, "must be https; plain http is for loopback addresses only")
    if "@" in parts.netloc or any(sign in url for sign in "?#\\"):
        raise InputError(field, "must not hold credentials, query or fragment")
    if any(not "\x21" <= sign <= "\x7e" for sign in url):
        raise InputError(field, "must be visible ASCII")
    return url.rstrip("/")


def _proxy(url: str | None) -> Secret | None:
    """Return the URL of a proxy, which may hold credentials, or raise `InputError`."""
    if url is None:
        return None
    _split("proxy", url)
    return Secret(url)


def _split(field: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(text(field, url))
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")  # as the resolver will
    except ValueError:
        raise InputError(field, "must be a URL") from None
    if parts.scheme not in ("https", "http") or not host:
        raise InputError(field, "must be a URL that begins with https:// or http://")
    return parts


def _checked(tls: ssl.SSLContext | None, any_certificate: bool) -> ssl.SSLContext | None:
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
