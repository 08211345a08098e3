"""OAuth: the consent page, the token calls, and tokens that renew themselves."""

from __future__ import annotations

import copy
import hmac
import ssl
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, Unpack
from urllib.parse import parse_qs

import attrs

from .client import BASE_URL
from .core.client import BaseClient, CommonSettings, origin
from .core.hooks import RequestInfo, ResponseInfo, RetryInfo
from .core.rate_limit import Limiter, Rate
from .core.request import Endpoint, Request, query
from .core.retry import Retry, RetryBudget
from .core.secret import Secret, env_value, hide, is_visible, secret_from
from .core.validate import text, token_secret
from .errors import (
    APIError,
    CredentialsError,
    DecodeError,
    DriftError,
    InputError,
)
from .tokens import Token, TokenSource, completed

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

AUTHORIZE_BASE_URL = "https://dev.drift.com"

_FORM = "application/x-www-form-urlencoded"


AUTHORIZE_URL = Endpoint("GET", "/authorize", str, envelope="none")
EXCHANGE = Endpoint(
    "POST",
    "/oauth2/token",
    Token,
    effect="once",
    envelope="bare",
    content=_FORM,
    settle_hint="send the user to the consent page again, since the code may be used up",
)
REFRESH = Endpoint(
    "POST",
    "/oauth2/token",
    Token,
    effect="once",
    envelope="bare",
    content=_FORM,
    settle_hint="refresh again, which is refused if this refresh token is used up",
)


class OAuth(BaseClient):
    """The client of Drift's OAuth, for apps that other organisations install.

    https://devdocs.drift.com/docs/authentication-and-scopes

    ``client_id`` and ``client_secret`` are the app's; ``authorize_base_url`` is where its consent
    page is, ``base_url`` where tokens are given out. The other settings are those of `Drift`. Send
    the user to `authorize_url`, `exchange` the code that comes back, store the token, and give the
    result of `auth` to any number of clients:

    >>> oauth = OAuth("client id", "client secret")
    >>> async with Drift(auth=oauth.auth(token, on_refresh=save)) as drift:
    ...     contact = await drift.contacts.get(7)

    If OAuth refuses (400 or 401), calls raise `CredentialsError`.
    """

    def __init__(
        self,
        client_id: str,
        client_secret: str | Secret,
        *,
        base_url: str = BASE_URL,
        authorize_base_url: str = AUTHORIZE_BASE_URL,
        timeout: float = 60.0,
        retry: Retry | None = None,
        rate: Rate | None = None,
        connect_timeout: float = 10.0,
        attempt_timeout: float = 30.0,
        max_connections: int = 100,
        max_body: int = 1024 * 1024,
        proxy: str | None = None,
        tls: ssl.SSLContext | None = None,
        dangerously_accept_any_certificate: bool = False,
        on_request: Callable[[RequestInfo], object] | None = None,
        on_response: Callable[[ResponseInfo], object] | None = None,
        on_retry: Callable[[RetryInfo], object] | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        client_secret = hide(client_secret)
        self._client_id = text("client_id", client_id, most=1024)
        self._client_secret = token_secret("client_secret", client_secret)
        self._authorize_origin = origin("authorize_base_url", authorize_base_url)
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
        )
        self._missing = ""
        self._now: Callable[[], float] = time.time

    @classmethod
    def from_env(
        cls, env: Mapping[str, str] | None = None, **settings: Unpack[OAuthSettings]
    ) -> Self:
        """Return a client set by environment variables; *settings* given here win.

        Reads ``DRIFT_CLIENT_ID``, ``DRIFT_CLIENT_SECRET`` (else the file named by
        ``DRIFT_CLIENT_SECRET_FILE``), ``DRIFT_BASE_URL`` and ``DRIFT_AUTHORIZE_BASE_URL`` from
        *env* (the process's by default). Without id or secret, `open` raises `CredentialsError`.
        """
        client_id = env_value(env, "DRIFT_CLIENT_ID")
        client_secret, why = secret_from(env, "DRIFT_CLIENT_SECRET")
        given: dict[str, Any] = {
            "base_url": env_value(env, "DRIFT_BASE_URL") or BASE_URL,
            "authorize_base_url": env_value(env, "DRIFT_AUTHORIZE_BASE_URL") or AUTHORIZE_BASE_URL,
            **settings,
        }
        client = cls(client_id or "missing", client_secret or "missing", **given)
        client._missing = why if client_id else "set DRIFT_CLIENT_ID"
        return client

    def authorize_url(self, state: str, *, redirect_uri: str) -> str:
        """Return the address of the consent page, to which the user's browser is sent.

        It comes back to *redirect_uri*, which is the one in the app's settings, with a code and
        *state*: a text that cannot be guessed (``secrets.token_urlsafe()``), kept in the user's
        session. `code_from` reads them. Scopes are set in the app.
        https://devdocs.drift.com/docs/authentication-and-scopes
        """
        self._authorization()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": text("redirect_uri", redirect_uri, most=4096),
            "state": text("state", state, most=4096),
        }
        return self._authorize_origin + AUTHORIZE_URL.target(query)

    def code_from(self, url: str, *, state: str) -> Secret:
        """Return the code in *url*, with which the browser came back to ``redirect_uri``.

        Raises `InputError` if the *state* is not that of this user's session, since somebody else
        may have started it, and `CredentialsError` if the user did not agree.
        https://devdocs.drift.com/docs/authentication-and-scopes
        """
        # The documentation's own sample has a second question mark in place of the ampersand.
        query = text("url", url).partition("?")[2].partition("#")[0].replace("?", "&")
        brought = {name: values[0] for name, values in parse_qs(query).items()}
        expected = text("state", state).encode()
        if not hmac.compare_digest(brought.get("state", "").encode(), expected):
            raise InputError("state", "is not the one that came back with the user")
        if "error" in brought:
            raise CredentialsError("the user did not agree, or the app is not set up for it")
        if "code" not in brought:
            raise InputError("url", "must hold a code")
        return token_secret("code", brought["code"])

    async def exchange(self, code: str | Secret, *, redirect_uri: str | None = None) -> Token:
        """Return the token for a *code*, which works once and expires soon.

        *redirect_uri* is sent along if it is given. A lost reply raises `OutcomeUnknownError`.
        https://devdocs.drift.com/docs/authentication-and-scopes
        """
        code = hide(code)
        code = token_secret("code", code)
        more = {} if redirect_uri is None else {"redirect_uri": text("redirect_uri", redirect_uri)}
        return await self._ask(EXCHANGE, None, code=code, grant_type="authorization_code", **more)

    async def refresh(self, token: Token) -> Token:
        """Return a new token for an old one, whose refresh token is void from then on.

        The result of `auth` does this by itself, so use one or the other. A lost reply raises
        `OutcomeUnknownError`. https://devdocs.drift.com/docs/authentication-and-scopes
        """
        given = _refresh_token(token)
        return await self._ask(REFRESH, token, refresh_token=given, grant_type="refresh_token")

    def auth(
        self, token: Token, *, on_refresh: Callable[[Token], object] | None = None
    ) -> TokenSource:
        """Return a *token* that is renewed, for ``Drift(auth=...)``.

        It is renewed some minutes before it ends, and when a call is refused for its token; that
        call is sent once more, also with ``Retry(attempts=1)``. One refresh serves all calls and
        all clients that share the result; make one for each token. This client does not have to be
        open for it.

        *on_refresh* has to store the new token, since the old refresh token is void: no request
        uses the new one before *on_refresh* has returned. A coroutine function is awaited in the
        loop of the client that asked; a plain function runs in a thread of its own and may block.
        If it raises, calls raise `TokenNotSavedError`, and the next call gives it the same token
        again. Without it, the tokens last as long as this process.

        If OAuth refuses the refresh token, all calls raise `CredentialsError` and no other refresh
        is tried: the user has to agree again. After other failures the next call tries again. An
        operation that refuses the new token too causes no other refresh for a minute.

        Refreshing in several processes is not supported: the first would lock the others out. Let
        one of them do it, and the others make ``Drift(token)`` of the access token that it stores.
        https://devdocs.drift.com/docs/authentication-and-scopes
        """
        _refresh_token(token)
        token_secret("token.access_token", token.access_token)
        if on_refresh is not None and not callable(on_refresh):
            raise InputError("on_refresh", "must be callable")
        return TokenSource(token, self._refresh_apart, on_refresh, self._now)

    def _authorization(self) -> None:
        if self._missing:
            raise CredentialsError(self._missing)

    async def _refresh_apart(self, token: Token) -> Token:
        """Refresh in whatever loop this is, with these settings and a connection of its own."""
        state = attrs.evolve(
            self._caller.state,
            session=None,
            limiters={"default": Limiter(Rate())},
            retry_budget=RetryBudget(),
        )
        apart = self._view(timeout=None, retry=None)
        apart._caller = attrs.evolve(apart._caller, state=state)
        apart._is_view = False
        async with apart:
            return await apart.refresh(token)

    async def _ask(
        self, endpoint: Endpoint[Token], old: Token | None, **fields: str | Secret
    ) -> Token:
        """Make a token call, and return the token, completed from the *old* one."""
        given = {"client_id": self._client_id, "client_secret": self._client_secret, **fields}
        known = [value for value in given.values() if isinstance(value, Secret)]
        if old is not None:
            known.append(old.access_token)
        now = self._now()
        try:
            request = Request(endpoint, endpoint.path, query(given).encode(), known)
            response = await self._caller.send(request)
            response.body = completed(response.body, old, now)
            token = endpoint.parse(response)
            if is_visible(token.access_token.reveal()):
                return token
            info = response.call_info(endpoint.name)
            raise DecodeError("not fit for a header", info, path="$.access_token")
        except DriftError as error:
            failure = _failure(error)
        # Raised outside of the `except`: the frames of the call hold the tokens of the reply.
        raise failure


class OAuthSettings(CommonSettings, total=False):
    """The keyword arguments of `OAuth`."""

    authorize_base_url: str


def _refresh_token(token: Token) -> Secret:
    if not isinstance(token, Token):
        raise InputError("token", "must be a Token")
    if not isinstance(token.refresh_token, Secret):
        raise InputError("token", "must have a refresh token")
    return token.refresh_token


def _failure(error: DriftError) -> DriftError:
    """Return the error to raise for *error*, without its traceback."""
    # A gateway may be the sender of any other status, and the next call may succeed.
    if isinstance(error, APIError) and error.status in (400, 401):
        return CredentialsError(str(error))
    return copy.copy(error)
