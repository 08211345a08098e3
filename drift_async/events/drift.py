"""`DriftEvents`: the client of Drift's event API."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Self, Unpack, get_args

from ..core.bulk import Items
from ..core.hooks import RequestInfo, ResponseInfo, RetryInfo
from ..core.rate_limit import Rate
from ..core.request import Endpoint
from ..core.retry import Retry
from ..core.secret import Secret, env_value
from ..core.validate import integer, number
from ..errors import CredentialsError, InputError
from .client import EventClient, EventSettings, OnUnknown
from .delivery import Route
from .encode import IDENTIFY, SAFE, TRACK, encode_event
from .models import Identify, Loss, Track
from .queue import WhenFull
from .storage import QueuedEvent

EVENTS_URL = "https://event.api.drift.com"

BATCH = 600

_NOTHING: type[None] = type(None)


class DriftEvents(EventClient):
    """The client of Drift's event API: https://devdocs.drift.com/docs/add-contact-event

    An event is accepted when `identify` or `track` returns: it is in memory then, or with
    ``outbox`` on disk. It is delivered in the background, in batches, in the order of its user;
    what fails is tried again for as long as it takes. Drift knows no repeats: a batch whose reply
    is lost is sent again, and a track may count twice, at its fixed ``created_at``;
    ``on_unknown="dead"`` sets such events aside instead (but where the process is killed
    or the power fails).

    ``org_id`` is the id of your organisation. ``outbox`` is a directory on a local disk: each
    process owns a file in it, and takes over those of processes that have ended; a path that ends
    in ``.sqlite`` is that one file. When ``max_events`` (100,000) or ``max_bytes`` (64 MiB) wait,
    ``when_full`` says what happens: ``block`` waits for room for at most ``timeout`` seconds,
    ``error`` raises `OutboxFullError`, ``drop_new`` drops the new event, ``drop_old`` the oldest
    one that waits in memory, or the new one where all the others are being sent or wait on disk
    only. ``on_drop`` is called with a `Loss` for each drop, on the client's event loop. What the
    server refuses for good is set aside, up to ``max_dead`` (10,000) events and ``dead_days`` (30):
    see `dead` and `replay`. ``window`` (4) requests are in flight at most; an event waits up to
    ``linger`` (0.25) seconds for others to go with it. ``retry`` gives the waits between attempts,
    not their number.

    The other settings are those of `Drift`.

    >>> async with DriftEvents(1234, outbox="outbox") as events:
    ...     await events.track("Signed up", user_id="u7")
    """

    _stem = "drift"
    _routes = (
        Route(
            "identify",
            Endpoint("POST", "/identify", _NOTHING, effect="idempotent", envelope="none"),
            Endpoint("POST", "/identify/multi", _NOTHING, effect="idempotent", envelope="none"),
            BATCH,
        ),
        Route(
            "track",
            Endpoint("POST", "/track", _NOTHING, effect="once", envelope="none"),
            Endpoint("POST", "/track/multi", _NOTHING, effect="once", envelope="none"),
            BATCH,
        ),
    )
    _org_id: int
    _without_org_id: str | None

    def __init__(
        self,
        org_id: int | None = None,
        *,
        outbox: str | os.PathLike[str] | None = None,
        when_full: WhenFull = "block",
        max_events: int = 100_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_dead: int = 10_000,
        dead_days: float = 30.0,
        window: int = 4,
        linger: float = 0.25,
        on_unknown: OnUnknown = "send",
        on_drop: Callable[[Loss], object] | None = None,
        base_url: str = EVENTS_URL,
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
        )
        if on_unknown not in get_args(OnUnknown):
            raise InputError("on_unknown", f"must be one of {', '.join(get_args(OnUnknown))}")
        self._without_org_id = "give an org_id, or set DRIFT_ORG_ID" if org_id is None else None
        self._org_id = 0 if org_id is None else integer("org_id", org_id, 0, SAFE)
        self._linger = number("linger", linger)
        self._repeats_unknown = on_unknown == "send"
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
        cls, env: Mapping[str, str] | None = None, **settings: Unpack[DriftEventSettings]
    ) -> Self:
        """Return a client set by environment variables; *settings* given here win.

        Reads ``DRIFT_ORG_ID`` and ``DRIFT_EVENTS_URL`` from *env* (the process's by default).
        Without an organisation, `open` raises `CredentialsError`.
        """
        said = (env_value(env, "DRIFT_ORG_ID") or "").strip()
        org_id = int(said) if said.isdecimal() and len(said) < 16 else None
        url = env_value(env, "DRIFT_EVENTS_URL") or EVENTS_URL
        given: dict[str, Any] = {"base_url": url, **settings}
        client = cls(org_id, **given)
        if said and org_id is None:
            client._without_org_id = "DRIFT_ORG_ID is not a number"
        return client

    def _authorization(self) -> Secret | None:
        if self._without_org_id is not None:
            raise CredentialsError(self._without_org_id)
        return None

    async def identify(
        self,
        *,
        user_id: str | int | None = None,
        company_id: str | int | None = None,
        attributes: Mapping[str, Any] | None = None,
        created_at: datetime | None = None,
    ) -> None:
        """Say who a user or a company is; returns when the event is accepted.

        ``attributes`` are flat; give ``email`` among them. ``created_at`` is now by default.
        Raises `InputError`, and `OutboxFullError` where the client was told so.
        https://devdocs.drift.com/docs/add-contact-event
        """
        self._check_open()
        queued = encode_event(
            IDENTIFY, self._org_id, None, user_id, company_id, attributes, created_at
        )
        await self._put(queued)

    async def track(
        self,
        event: str,
        *,
        user_id: str | int | None = None,
        company_id: str | int | None = None,
        attributes: Mapping[str, Any] | None = None,
        created_at: datetime | None = None,
    ) -> None:
        """Say what a user or a company has done; returns when the event is accepted.

        Names that begin with ``page`` are Drift's own and refused. ``attributes`` are flat.
        ``created_at`` is now by default. Raises `InputError`, and `OutboxFullError` where the
        client was told so.
        https://devdocs.drift.com/docs/add-contact-event
        """
        self._check_open()
        queued = encode_event(
            TRACK, self._org_id, event, user_id, company_id, attributes, created_at
        )
        await self._put(queued)

    async def identify_many(self, items: Items[Identify]) -> int:
        """Accept many events as `identify` does, one after another; return how many.

        An error leaves those before it accepted; an `InputError` says which item it was.
        """
        return await self._put_many(items, self._encode_identify)

    async def track_many(self, items: Items[Track]) -> int:
        """Accept many events as `track` does, one after another; return how many.

        An error leaves those before it accepted; an `InputError` says which item it was.
        """
        return await self._put_many(items, self._encode_track)

    def _encode_identify(self, item: Identify) -> QueuedEvent:
        if not isinstance(item, Identify):
            raise InputError("item", "must be an Identify")
        given = item.user_id, item.company_id, item.attributes, item.created_at
        return encode_event(IDENTIFY, self._org_id, None, *given)

    def _encode_track(self, item: Track) -> QueuedEvent:
        if not isinstance(item, Track):
            raise InputError("item", "must be a Track")
        given = item.user_id, item.company_id, item.attributes, item.created_at
        return encode_event(TRACK, self._org_id, item.event, *given)


class DriftEventSettings(EventSettings, total=False):
    """The keyword arguments of `DriftEvents`."""

    linger: float
    on_unknown: OnUnknown
