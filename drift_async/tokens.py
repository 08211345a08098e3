"""Tokens of OAuth: what they are, and how clients share one that is renewed.

Sharing is not bound to an event loop: each client of the blocking face has a loop and a thread of
its own, and they share a token like tasks of one loop do.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import ClassVar, TypeVar

import attrs

from .core.call import Live, Site
from .core.hooks import log
from .core.models import Model, model
from .core.secret import Secret
from .core.strict_json import dumps, loads
from .errors import CredentialsError, DriftError, TokenNotSavedError

E = TypeVar("E", bound=DriftError)

LEAD = 300.0
"""Seconds before its end that a token is renewed; a tenth of its lifetime if that is less."""

PAUSE = 30.0
"""Seconds at least between two renewals ahead of time."""

_LONGEST = 3_200_000_000
"""Seconds: a lifetime over a century is none."""

LOOK = 3600.0
"""Seconds after which to look again whether another client has brought a new token."""


def _masked(value: str | Secret) -> Secret:
    return Secret(value) if isinstance(value, str) else value


@model
class Token(Model):
    """What OAuth gives for an organisation, ``org_id``. Refuses pickling; `to_json` reveals it.

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
        "access_token": "access_token",
        "refresh_token": "refresh_token",
        "expires_in": "expires_in",
        "expires_at": "expires_at",
        "token_type": "token_type",
    }

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of the token, if the server says; `app.token_info` knows them too."""
        return frozenset((self.scope or "").split())


def completed(body: bytes, old: Token | None, now: float) -> bytes:
    """Return the body of a token reply, with the time when it ends and what *old* is kept of.

    The call is not to be repeated, and the token in its reply is the only one that is left. So
    everything but the tokens themselves is dropped where it is not of the right type.
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


class SharedToken:
    """What `OAuth.auth` makes. ``token`` is the one in use."""

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
        self._unsaved: Token | None = None
        self._refusal: CredentialsError | None = None
        # At most one for this process; that of a parent process never ends here.
        self._under_way: dict[int, _Renewal] = {}
        # One for each process: a forked child may find that of its parent taken, for good.
        self._locks: dict[int, threading.Lock] = {}

    @property
    def token(self) -> Token:
        """The token in use: the first, or the last that ``on_refresh`` has taken."""
        return self._token

    @property
    def secret(self) -> Secret:
        """The access token in use."""
        return self._token.access_token

    async def renew(self, stale: Secret, live: Live) -> None:
        """Wait until a token newer than *stale* is in use, or raise why there is none.

        One request serves all who wait. It is made in a task of the client that asks first; if that
        one is closed too soon, this returns and *stale* is still in use: ask again.
        """
        if self._refusal is not None:
            raise _again(self._refusal)
        process, mine = os.getpid(), _Renewal(live.loop)
        with self._locks.setdefault(process, threading.Lock()):
            renewal = self._under_way.setdefault(process, mine)
            if renewal.loop.is_closed():  # before it ended; now nothing will end it
                renewal = self._under_way[process] = mine
        if renewal is mine:
            live.renewal = live.spawn(self._run(stale))
            live.renewal.add_done_callback(lambda task: self._over(process, mine, task))
        failure = await asyncio.wrap_future(renewal)
        if failure is not None:
            raise _again(failure)

    async def keep(self, site: Site, live: Live) -> None:
        """Renew the token a while before it ends, for as long as a client is open."""
        while self._refusal is None:
            due = self._due(self._token)
            await site.sleep(min(max(due, 0.0), LOOK))
            if self._due(self._token) <= 0:
                try:
                    await self.renew(self.secret, live)
                except DriftError as error:
                    log.warning("a token that ends soon was not renewed: %s", error)
            site.carry(self.secret)
            await site.sleep(PAUSE)

    def _due(self, token: Token) -> float:
        """Return the seconds until *token* should be renewed; 0 or less: now."""
        if token.expires_at is None:
            return LOOK
        lead = LEAD if token.expires_in is None else min(LEAD, token.expires_in / 10)
        return token.expires_at.timestamp() - lead - self._now()

    async def _run(self, stale: Secret) -> DriftError | None:
        """Renew the token, and return why it could not be."""
        try:
            # Who asked may have looked just before the last renewal ended.
            if self.secret is stale and self._refusal is None:
                await self._renew()
        except CredentialsError as error:
            self._refusal = error
            return error
        except DriftError as error:
            return error
        return None

    def _over(self, process: int, renewal: _Renewal, task: asyncio.Task[DriftError | None]) -> None:
        """Tell all who wait, however it ended; who is told nothing looks, and asks again."""
        self._under_way.pop(process, None)
        failure = None
        if not task.cancelled():
            error = task.exception()
            failure = task.result() if error is None else _unforeseen(error)
        elif not task.cancelling():  # it ended so by itself, and would at once again
            failure = _unforeseen(asyncio.CancelledError())
        renewal.set_result(failure)

    async def _renew(self) -> None:
        token = self._unsaved
        if token is None or self._due(token) <= 0:
            token = self._unsaved = await self._refresh(token or self._token)
        # The old refresh token is void by now. So the new one is kept until it is in safe hands,
        # however often that takes; but nothing is done with it that a restart could not go on with.
        try:
            await self._save(token)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise
            # Else something that on_refresh awaited was cancelled, and not the renewal.
            detail = f"on_refresh failed ({type(error).__name__}); the new token is kept for it"
            raise TokenNotSavedError(detail) from error
        self._token, self._unsaved = token, None

    async def _save(self, token: Token) -> None:
        save = self._on_refresh
        if save is not None:
            waits = inspect.iscoroutinefunction(save)
            result = save(token) if waits else await _in_a_thread(save, token)
            if inspect.isawaitable(result):
                await result


class _Renewal(Future["DriftError | None"]):
    """A renewal under way in *loop*, and how it failed. Who waits for it cannot cancel it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.set_running_or_notify_cancel()


async def _in_a_thread(save: Callable[[Token], object], token: Token) -> object:
    """Call *save* where it may block: neither in the event loop nor in the threads of others."""
    pool = ThreadPoolExecutor(1, "drift-async-on-refresh")
    try:
        saving = asyncio.get_running_loop().run_in_executor(pool, save, token)
    except RuntimeError:  # the interpreter is ending, and starts no thread any more
        return save(token)
    finally:
        pool.shutdown(wait=False)
    return await saving


def _unforeseen(error: BaseException) -> DriftError:
    failure = DriftError(f"the token could not be renewed ({type(error).__name__})")
    failure.__cause__ = error
    return failure


def _again(error: E) -> E:
    """Return a copy to raise: each who raises an error adds to its traceback."""
    another = copy.copy(error)
    another.__cause__ = error.__cause__
    return another
