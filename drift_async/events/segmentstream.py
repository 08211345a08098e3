"""`SegmentStream`: the client of SegmentStream's tracking API, another vendor's."""

from __future__ import annotations

import base64
import os
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Self, Unpack

from ..core.bulk import Items
from ..core.hooks import RequestInfo, ResponseInfo, RetryInfo
from ..core.rate_limit import Rate
from ..core.request import Endpoint
from ..core.retry import Retry
from ..core.secret import Secret, env_value, hide
from ..core.validate import text, token_secret
from ..errors import CredentialsError, InputError
from .client import EventClient, EventSettings
from .delivery import Route
from .encode import MAX_HIT_ID, HitIds, encode_hit, iso
from .models import Hit, Loss
from .queue import WhenFull
from .storage import QueuedEvent

SEGMENTSTREAM_URL = "https://track.segmentstream.com"

_NOTHING: type[None] = type(None)


class SegmentStream(EventClient):
    """The client of SegmentStream's tracking API: https://docs.segmentstream.com

    An event is accepted when `track` returns: it is in memory then, or with ``outbox`` on disk. It
    is delivered in the background, one event a request, in the order of its user; what fails is
    tried again for as long as it takes, with the same ``hitId``, by which SegmentStream drops
    repeats. A refused token (401) stops delivery, not accepting: see `set_token`.

    ``api_token`` is the API token. ``outbox`` is a directory on a local disk, of one account: each
    process owns a file in it, and takes over those of processes that have ended; a path that ends
    in ``.sqlite`` is that one file. When ``max_events`` (100,000) or ``max_bytes`` (64 MiB) wait,
    ``when_full`` says what happens: ``block`` waits for room for at most ``timeout`` seconds,
    ``error`` raises `OutboxFullError`, ``drop_new`` drops the new event, ``drop_old`` the oldest
    one that waits in memory, or the new one where all the others are being sent or wait on disk
    only. ``on_drop`` is called with a `Loss` for each drop, on the client's event loop. What the
    server refuses for good is set aside, up to ``max_dead`` (10,000) events and ``dead_days`` (30):
    see `dead` and `replay`. ``window`` (16) requests are in flight at most. ``retry`` gives the
    waits between attempts, not their number.

    The other settings are those of `Drift`.

    >>> async with SegmentStream("token", outbox="outbox") as stream:
    ...     await stream.track({"name": "Signed up"}, user_id="u7")
    """

    _stem = "segmentstream"
    _routes = (
        Route("track", Endpoint("POST", "/track", _NOTHING, effect="idempotent", envelope="none")),
    )
    _hit_ids: HitIds

    def __init__(
        self,
        api_token: str | Secret | None = None,
        *,
        outbox: str | os.PathLike[str] | None = None,
        when_full: WhenFull = "block",
        max_events: int = 100_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_dead: int = 10_000,
        dead_days: float = 30.0,
        window: int = 16,
        on_drop: Callable[[Loss], object] | None = None,
        base_url: str = SEGMENTSTREAM_URL,
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
    ) -> None:
        api_token = hide(api_token)
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
            token=None if api_token is None else token_secret("api_token", api_token),
        )
        self._set_up_events(
            rate=rate,
            outbox=outbox,
            when_full=when_full,
            max_events=max_events,
            max_bytes=max_bytes,
            max_dead=max_dead,
            dead_days=dead_days,
            window=window,
            on_drop=on_drop,
        )

    @classmethod
    def from_env(
        cls, env: Mapping[str, str] | None = None, **settings: Unpack[EventSettings]
    ) -> Self:
        """Return a client set by environment variables; *settings* given here win.

        Reads ``SEGMENTSTREAM_TOKEN`` and ``SEGMENTSTREAM_URL`` from *env* (the process's by
        default). Without a token, `open` raises `CredentialsError`.
        """
        url = env_value(env, "SEGMENTSTREAM_URL") or SEGMENTSTREAM_URL
        given: dict[str, Any] = {"base_url": url, **settings}
        return cls(hide(env_value(env, "SEGMENTSTREAM_TOKEN") or None), **given)

    def _reset(self) -> None:
        super()._reset()
        self._hit_ids = HitIds()  # a forked child must not make the same as its parent

    def _authorization(self) -> Secret:
        token = self._caller.state.token
        if token is None:
            raise CredentialsError("give an api_token, or set SEGMENTSTREAM_TOKEN")
        pair = base64.b64encode(f"{token.reveal()}:".encode()).decode()
        return Secret(f"Basic {pair}")

    async def set_token(self, api_token: str | Secret) -> None:
        """Use another API token from now on; delivery that was stopped by a 401 goes on."""
        state = self._caller.state
        api_token = hide(api_token)
        state.token = token_secret("api_token", api_token)
        if state.session is not None:
            state.require_open().authorize(self._authorization())
            if self._delivery is not None:
                self._delivery.resume()

    async def track(
        self,
        event: Mapping[str, Any],
        *,
        user_id: str | None = None,
        anonymous_id: str | None = None,
        hit_id: str | None = None,
        sent_at: datetime | None = None,
        context: Mapping[str, Any] | None = None,
        integrations: Mapping[str, Any] | None = None,
    ) -> None:
        """Record an event; returns when it is accepted.

        ``event`` is free in form: ``name``, ``category``, ``label`` and what else you like; with
        all of it at most 65,536 bytes of JSON. One of ``user_id`` and ``anonymous_id`` is needed.
        ``hit_id`` tells repeats and is made by default; ``sent_at`` is now. Raises `InputError`,
        and `OutboxFullError` where the client was told so.
        https://docs.segmentstream.com
        """
        self._check_open()
        queued = self._encode(event, user_id, anonymous_id, hit_id, sent_at, context, integrations)
        await self._put(queued)

    async def track_many(self, items: Items[Hit]) -> int:
        """Accept many events as `track` does, one after another; return how many.

        An error leaves those before it accepted; an `InputError` says which item it was.
        """
        return await self._put_many(items, self._encode_hit)

    def _encode_hit(self, item: Hit) -> QueuedEvent:
        if not isinstance(item, Hit):
            raise InputError("item", "must be a Hit")
        given = item.user_id, item.anonymous_id, item.hit_id, item.sent_at, item.context
        return self._encode(item.event, *given, item.integrations)

    def _encode(
        self,
        event: Mapping[str, Any],
        user_id: str | None,
        anonymous_id: str | None,
        hit_id: str | None,
        sent_at: datetime | None,
        context: Mapping[str, Any] | None,
        integrations: Mapping[str, Any] | None,
    ) -> QueuedEvent:
        if hit_id is None:
            hit_id = self._hit_ids.make(time.time_ns())
        else:
            hit_id = text("hit_id", hit_id, most=MAX_HIT_ID)
        sent = iso("sent_at", datetime.now(UTC) if sent_at is None else sent_at)
        return encode_hit(event, user_id, anonymous_id, hit_id, sent, context, integrations)
