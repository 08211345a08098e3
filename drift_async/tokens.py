"""Tokens of OAuth: what they are, and how clients share one that is renewed.

Sharing is not bound to an event loop: each client of the blocking face has a loop and a thread of
its own, and they share a token like tasks of one loop do.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeVar

import attrs

from .core.caller import ClientState
from .core.hooks import log
from .core.models import Model, model
from .core.process import after_fork
from .core.secret import Secret
from .core.strict_json import dumps, loads
from .errors import CredentialsError, DriftError, TokenNotSavedError

if TYPE_CHECKING:
    from .core.session import HttpSession

E = TypeVar("E", bound=DriftError)

LEAD = 300.0
"""Seconds before its end that a token is renewed; a tenth of its lifetime if that is less."""

PAUSE = 30.0
"""Seconds at least between two renewals ahead of time."""

_LONGEST = 3_200_000_000
"""Seconds: a lifetime over a century is none."""

LOOK = 3600.0
"""Seconds after which to check again whether another client has renewed the token."""


def _masked(value: str | Secret) -> Secret:
    return Secret(value) if isinstance(value, str) else value


@model
class Token(Model):
    """A token of OAuth for an organisation, ``org_id``. Refuses pickling; `to_json` reveals it.

    ``to_json(token)`` is what to store, ``from_json(Token, stored)`` brings it back. The access
    token ends at ``expires_at``, by this machine's clock; ``expires_in`` is its lifetime in
    seconds. Both are None if the server does not say.
    """

    access_token: Secret = attrs.field(converter=_masked)
    refresh_token: Secret | None = attrs.field(
        default=None, converter=attrs.converters.optional(_masked)
    )
    expires_in: int | None = None
    expires_at: datetime | None = None
    token_type: str | None = None
    org_id: int | None = None
    scope: str | None = None

    wire: ClassVar[Mapping[str, str]] = {
        name: name
        for name in ("access_token", "refresh_token", "expires_in", "expires_at", "token_type")
    }

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of the token, if the server says; `app.token_info` knows them too."""
        return frozenset((self.scope or "").split())


def completed(body: bytes, old: Token | None, now: float) -> bytes:
    """Return the body of a token reply, with the time when it ends and what it leaves to *old*.

    The call cannot be repeated, and the token in its reply is the only one left: a field of the
    wrong type is dropped, except the tokens themselves.
    """
    try:
        value = loads(body)
    except ValueError:
        return body
    if not isinstance(value, dict):
        return b"[]"
    for name, older in (("access_token", "accessToken"), ("refresh_token", "refreshToken")):
        if value.get(name) is None and older in value:
            value[name] = value.pop(older)
    for name, kind in (("expires_in", int), ("orgId", int), ("token_type", str), ("scope", str)):
        given = value.get(name)
        if kind is int and isinstance(given, str) and given.isdecimal() and len(given) < 19:
            value[name] = int(given)
        elif type(given) is not kind:
            value.pop(name, None)
    lifetime = value.get("expires_in", 0)
    value.pop("expires_at", None)
    if 0 < lifetime < _LONGEST:
        value["expires_at"] = round((now + lifetime) * 1000)
    if old is not None and old.refresh_token is not None:
        kept = {"refresh_token": old.refresh_token, "orgId": old.org_id, "scope": old.scope}
        for name, item in kept.items():
            if value.get(name) in (None, "") and item is not None:
                value[name] = item.reveal() if isinstance(item, Secret) else item
    return dumps(value)


class TokenSource:
    """The result of `OAuth.auth`: a token that is renewed, for any number of clients."""

    def __init__(
        self,
        token: Token,
        refresh: Callable[[Token], Coroutine[object, object, Token]],
        on_refresh: Callable[[Token], object] | None,
        now: Callable[[], float],
    ) -> None:
        self._token = token
        self._refresh = refresh
        self._on_refresh = on_refresh
        self._now = now
        self._pending_save: Token | None = None
        self._refusal: CredentialsError | None = None
        self._start_clean()
        after_fork(self._start_clean)

    def _start_clean(self) -> None:
        """Forget the renewal of a parent process, which never ends here, and its lock."""
        self._under_way: _Renewal | None = None
        self._lock = threading.Lock()

    @property
    def token(self) -> Token:
        """The token in use: the first, or the last that ``on_refresh`` has taken."""
        return self._token

    @property
    def secret(self) -> Secret:
        """The access token in use."""
        return self._token.access_token

    async def renew(self, stale: Secret, session: HttpSession) -> None:
        """Wait until a token newer than *stale* is in use, or raise why there is none.

        One request serves all waiting calls. The client that asks first makes it in a task; if that
        client is closed too soon, this returns and *stale* is still in use: ask again.
        """
        if self._refusal is not None:
            raise _again(self._refusal)
        mine = None
        with self._lock:
            renewal = self._under_way
            if renewal is None or renewal.loop.is_closed():  # nothing will end it any more
                renewal = self._under_way = mine = _Renewal(session.loop)
        if mine is not None:
            session.refresh_task = session.spawn(self._run(stale))
            session.refresh_task.add_done_callback(partial(self._end, mine))
        failure = await asyncio.wrap_future(renewal)
        if failure is not None:
            raise _again(failure)

    async def refresh_ahead(self, state: ClientState, session: HttpSession) -> None:
        """Renew the token a while before it ends, for as long as a client is open."""
        while self._refusal is None:
            due = self._due(self._token)
            await state.sleep(min(max(due, 0.0), LOOK))
            if self._due(self._token) <= 0:
                try:
                    await self.renew(self.secret, session)
                except DriftError as error:
                    log.warning("a token that ends soon was not renewed: %s", error)
            state.set_token(self.secret)
            await state.sleep(PAUSE)

    def _due(self, token: Token) -> float:
        """Return the seconds until *token* should be renewed; 0 or less: now."""
        if token.expires_at is None:
            return LOOK
        lead = LEAD if token.expires_in is None else min(LEAD, token.expires_in / 10)
        return token.expires_at.timestamp() - lead - self._now()

    async def _run(self, stale: Secret) -> DriftError | None:
        """Renew the token, and return why it could not be."""
        try:
            # The caller may have read the token just before the last renewal ended.
            if self.secret is stale and self._refusal is None:
                await self._renew()
        except CredentialsError as error:
            self._refusal = error
            return error
        except DriftError as error:
            return error
        return None

    def _end(self, renewal: _Renewal, task: asyncio.Task[DriftError | None]) -> None:
        """Wake all waiting calls with the error, if any; without a new token they ask again."""
        if self._under_way is renewal:
            self._under_way = None
        failure = None
        if not task.cancelled():
            error = task.exception()
            failure = task.result() if error is None else _unexpected(error)
        elif not task.cancelling():  # nobody cancelled it: it would end so again at once
            failure = _unexpected(asyncio.CancelledError())
        renewal.set_result(failure)

    async def _renew(self) -> None:
        token = self._pending_save
        if token is None or self._due(token) <= 0:
            token = self._pending_save = await self._refresh(token or self._token)
        # The old refresh token is void by now, so the new token is kept until on_refresh has saved
        # it. No call uses it before that: a restart could not go on with it.
        try:
            await self._save(token)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise
            # Otherwise only a future that on_refresh awaited was cancelled, not the renewal.
            detail = f"on_refresh failed ({type(error).__name__}); the new token is kept for it"
            raise TokenNotSavedError(detail) from error
        self._token, self._pending_save = token, None

    async def _save(self, token: Token) -> None:
        save = self._on_refresh
        if save is not None:
            waits = inspect.iscoroutinefunction(save)
            result = save(token) if waits else await _in_a_thread(save, token)
            if inspect.isawaitable(result):
                await result


class _Renewal(Future["DriftError | None"]):
    """A renewal under way in *loop*, and its error. The calls that wait cannot cancel it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.set_running_or_notify_cancel()


async def _in_a_thread(save: Callable[[Token], object], token: Token) -> object:
    """Call *save* in a thread of its own, where it may block."""
    pool = ThreadPoolExecutor(1, "drift-async-on-refresh")
    try:
        saving = asyncio.get_running_loop().run_in_executor(pool, save, token)
    except RuntimeError:  # the interpreter is ending, and starts no thread any more
        return save(token)
    finally:
        pool.shutdown(wait=False)
    return await saving


def _unexpected(error: BaseException) -> DriftError:
    failure = DriftError(f"the token could not be renewed ({type(error).__name__})")
    failure.__cause__ = error
    return failure


def _again(error: E) -> E:
    """Return a copy to raise, because each `raise` adds to the traceback of its error."""
    another = copy.copy(error)
    another.__cause__ = error.__cause__
    return another
