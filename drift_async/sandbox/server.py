"""`Sandbox`: its settings, its listener, and the methods for tests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from .faults import Fault, Faults
from .limits import Limits
from .logs import Event, EventCounts, EventLog, RequestLog, Seen
from .oauth import sent_back
from .routes import NAMES, OPERATIONS, SCOPES, Operation
from .seed import Seed
from .service import Service
from .state import App, State, chosen_scopes
from .store import Store
from .types import Refusal
from .webhooks import Delivery, Webhooks


class Sandbox:
    """A stand-in for the Drift API on localhost, with state.

    >>> async with Sandbox(contacts=3) as box:
    ...     box.env  # DRIFT_TOKEN, DRIFT_BASE_URL and those of the event clients

    The counts are the numbers of seeded rows of each kind; rows are made when they are read, so a
    million costs nothing. `users` includes the org's bot. With `messages`, conversation
    number 1 has at least 130.

    `rate` (calls a second) limits each token; without `rate` only the report calls are limited.
    `event_rate` limits each event API. Both let `burst` calls come at once: None stands for a tenth
    of a second's worth of the limit, and at least 1. With `window` the sandbox counts
    in windows of so many seconds instead, and `burst` must be None: in each window the limit times
    `window` calls pass (rounded, at least 1), and the windows follow each other from the first call
    of the token or event API. Without `retry_after` no refusal has a Retry-After header.

    `now` is the wall clock, `clock` the monotonic one, both in seconds. `strict` refuses the
    listing of contacts without a query, and SegmentStream events without `hitId` or `sentAt`;
    `denied_status` 403 replaces the 401 for a bad token; `links_host` names another host in the
    links of the conversation listing; `erase_delay` (seconds) delays GDPR erasures.
    `client_id` and `client_secret` are the app's; its users are sent back from `/authorize` with a
    code, or, without `approve`, with a refusal. Its tokens have the `app_scopes` (None: all), and
    end after `lifetime` seconds; `rotate` ends a refresh token with its use. A webhook that gets
    no 2xx within `webhook_timeout` seconds is tried again after each of `webhook_retries`
    (seconds). `seen` keeps the last `keep` requests, `events` the last `keep_events` events (0:
    only their counts).
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str = "sandbox-token",
        segmentstream_token: str = "sandbox-stream",
        org_id: int = 123_458,
        contacts: int = 100,
        conversations: int = 50,
        messages: int = 3,
        users: int = 5,
        accounts: int = 20,
        playbooks: int = 3,
        meetings: int = 20,
        attachment_size: int = 4096,
        rate: float | None = None,
        burst: int | None = None,
        event_rate: float | None = None,
        window: float | None = None,
        retry_after: bool = True,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        strict: bool = False,
        denied_status: int = 401,
        links_host: str | None = None,
        erase_delay: float = 0.0,
        client_id: str = "sandbox-client",
        client_secret: str = "sandbox-secret",
        app_scopes: Iterable[str] | None = None,
        lifetime: float = 7200.0,
        rotate: bool = True,
        approve: bool = True,
        verification_token: str = "sandbox-verification",
        webhook_retries: Sequence[float] = (1.0, 5.0, 25.0),
        webhook_timeout: float = 10.0,
        keep: int = 10_000,
        keep_events: int = 100_000,
    ) -> None:
        counts = contacts, conversations, messages, accounts, playbooks, meetings, attachment_size
        if min(*counts, keep_events) < 0 or users < 1 or keep < 1:
            raise ValueError("counts must not be negative; users and keep at least 1")
        if min(*webhook_retries, webhook_timeout, lifetime) < 0:
            raise ValueError("webhook_retries, webhook_timeout and lifetime must not be negative")
        if not lifetime < math.inf:
            raise ValueError("lifetime must be finite")
        if denied_status not in (401, 403):
            raise ValueError("denied_status must be 401 or 403")
        self._token, self._segmentstream_token = token, segmentstream_token
        self._org_id = org_id
        self._address = host, port
        self._runner: web.ServerRunner | None = None
        self._url: str | None = None
        seed = Seed(
            org_id=org_id,
            contacts=contacts,
            conversations=conversations,
            messages=messages,
            users=users,
            accounts=accounts,
            playbooks=playbooks,
            meetings=meetings,
            attachment_size=attachment_size,
        )
        self._state = State(
            store=Store(seed),
            app=App(
                client_id=client_id,
                client_secret=client_secret,
                scopes=chosen_scopes(app_scopes, SCOPES),
                lifetime=lifetime,
                rotate=rotate,
                approve=approve,
            ),
            webhooks=Webhooks(
                org_id,
                verification_token,
                retries=tuple(webhook_retries),
                timeout=webhook_timeout,
                clock=clock,
                keep=keep,
            ),
            requests=RequestLog(keep),
            events=EventLog(keep_events),
            faults=Faults(NAMES),
            scopes=SCOPES,
            streams={segmentstream_token},
            now=now,
            strict=strict,
            links_host=links_host,
            erase_delay=erase_delay,
            today=int(now()) // 3600 * 3_600_000,
        )
        self._service = Service(
            self._state,
            Limits(rate, event_rate, burst, window),
            clock=clock,
            denied=denied_status,
            retry_after=retry_after,
        )
        self.add_token(token)

    # the listener

    async def open(self) -> None:
        """Start to listen. Raises OSError if the port is taken."""
        if self._runner is not None:
            raise RuntimeError("the sandbox is open already")
        server = web.Server(
            self._service.serve, access_log=None, auto_decompress=False, keepalive_timeout=600.0
        )
        runner = web.ServerRunner(server, shutdown_timeout=0.05)
        await runner.setup()
        try:
            await web.TCPSite(runner, *self._address).start()
        except OSError:
            await runner.cleanup()
            raise
        host, port = runner.addresses[0][:2]
        self._url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._runner = runner

    async def close(self) -> None:
        """Stop listening, drop all connections and webhooks. Closing twice does nothing."""
        runner, self._runner, self._url = self._runner, None, None
        if runner is not None:
            await runner.cleanup()
            await self._state.webhooks.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # methods for tests; safe from any thread

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        if self._url is None:
            raise RuntimeError("the sandbox is not open")
        return self._url

    @property
    def token(self) -> str:
        """The access token from the settings; it has all scopes."""
        return self._token

    @property
    def segmentstream_url(self) -> str:
        """The base URL of SegmentStream."""
        return f"{self.url}/segmentstream"

    @property
    def segmentstream_token(self) -> str:
        """The token for SegmentStream from the settings."""
        return self._segmentstream_token

    @property
    def client_id(self) -> str:
        """The app's id, for OAuth and for uninstalling it."""
        return self._state.app.client_id

    @property
    def client_secret(self) -> str:
        """The app's secret."""
        return self._state.app.client_secret

    @property
    def verification_token(self) -> str:
        """The token that webhooks carry."""
        return self._state.webhooks.token

    @property
    def org_id(self) -> int:
        """The id of the organisation that owns the data."""
        return self._org_id

    @property
    def count(self) -> int:
        """The number of requests so far, also those that `seen` no longer holds."""
        return self._state.requests.count

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that point the clients to this sandbox."""
        return {
            "DRIFT_TOKEN": self._token,
            "DRIFT_BASE_URL": self.url,
            "DRIFT_CLIENT_ID": self.client_id,
            "DRIFT_CLIENT_SECRET": self.client_secret,
            "DRIFT_AUTHORIZE_BASE_URL": self.url,
            "DRIFT_ORG_ID": str(self._org_id),
            "DRIFT_EVENTS_URL": self.url,
            "SEGMENTSTREAM_TOKEN": self._segmentstream_token,
            "SEGMENTSTREAM_URL": self.segmentstream_url,
        }

    @property
    def operations(self) -> tuple[Operation, ...]:
        """All operations that the sandbox answers."""
        return OPERATIONS

    @property
    def seen(self) -> list[Seen]:
        """The last requests in order of arrival; `count` is the number of all."""
        return self._state.requests.kept()

    def events(self, api: str | None = None, user: str | None = None) -> list[Event]:
        """Return the accepted events in order of arrival, of an *api* and a *user* (None: of all).

        The APIs are "drift" and "segmentstream"; any other raises ValueError.
        """
        return self._state.events.kept(api, user)

    def event_counts(self, api: str) -> EventCounts:
        """Return how many events an API has accepted, also those that `events` no longer holds."""
        return self._state.events.counts(api)

    def forget(self) -> None:
        """Clear `seen` and `events`; the counts go on, and a known `hitId` stays known."""
        self._state.forget()

    def add_token(
        self, token: str, scopes: Iterable[str] | None = None, *, expires: float | None = None
    ) -> None:
        """Accept a token with these scopes (None: all) for `expires` seconds (None: for ever)."""
        self._state.add_token(token, scopes, expires=expires)

    def add_segmentstream_token(self, token: str) -> None:
        """Accept one more token at SegmentStream."""
        self._state.streams.add(token)

    def agree(self, url: str) -> str:
        """Return the URL to which the consent page at `url` sends the browser of a user who agrees.

        Raises ValueError if the page would not send the browser anywhere.
        """
        query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
        try:
            return sent_back(self._state.app, query.get, int(self._state.now() * 1000))
        except Refusal as refusal:
            raise ValueError(refusal.message) from None

    def revoke(self, token: str) -> None:
        """Stop accepting an access token, a refresh token or a token of SegmentStream."""
        self._state.revoke(token)

    def expire(self, token: str) -> None:
        """End the lifetime of an access token now. Raises ValueError if there is no such token."""
        self._state.expire(token)

    def fail(
        self,
        operation: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        delay: float = 0.0,
        pause: float = 0.0,
        cut: str | None = None,
        reset: bool = False,
        short: int = 0,
        raw: bytes | None = None,
        drip: float = 0.0,
        alter: Callable[[Any], Any] | None = None,
        apply: bool | None = None,
        times: int | None = 1,
        skip: int = 0,
    ) -> None:
        """Script a fault for an operation (dotted name, or `*` for every request).

        `status`, `headers` and `body` (bytes, text or JSON) replace those of the reply; `alter`
        changes its JSON value. `delay` waits before the head, `pause` between head and body,
        `drip` before each byte of the body. `cut` closes the connection "before" or "after" the
        request is carried out; `reset` closes it with RST. `short` holds back the last bytes, then
        closes; `raw` goes out instead of any HTTP. A request is carried out unless `status`,
        `raw` or `cut="before"` is given; `apply` overrules that. The fault is used `times` times
        (None: for ever) after `skip` requests passed; faults of one operation follow each other.
        Raises ValueError for arguments that make no sense.
        """
        fault = Fault(
            status=status,
            headers=headers,
            body=body,
            delay=delay,
            pause=pause,
            cut=cut,
            reset=reset,
            short=short,
            raw=raw,
            drip=drip,
            alter=alter,
            apply=apply,
            times=times,
            skip=skip,
        )
        self._state.faults.add(operation, fault)

    def heal(self, operation: str | None = None) -> None:
        """Forget the scripted faults of an operation (None: all faults)."""
        self._state.faults.clear(operation)

    async def add_webhook(
        self,
        url: str,
        events: Iterable[str] | None = None,
        *,
        copies: int = 1,
        reverse: int = 1,
    ) -> None:
        """Send webhooks of these types (None: all) to an address of this machine from now on.

        Each goes out `copies` times at once. With `reverse` above 1 that many are gathered and
        sent last one first. Raises ValueError for a URL that is not on loopback and for unknown
        types.
        """
        self._state.webhooks.add(url, events, copies, reverse)

    async def send_webhook(self, type: str, data: Any = None, /, **changes: Any) -> None:
        """Queue a webhook of this type, without a call that would cause it.

        Its payload is `data` (None: an example of the type), with `changes` of its keys. Raises
        ValueError if there is neither such a type nor data.
        """
        if self._runner is None:
            raise RuntimeError("the sandbox is not open")
        self._state.send_webhook(type, data, changes)

    async def drain_webhooks(self, timeout: float = 10.0) -> list[Delivery]:
        """Wait until all webhooks are sent, and return `deliveries`.

        Raises TimeoutError after `timeout` seconds.
        """
        await self._state.webhooks.drain(timeout)
        return self.deliveries

    @property
    def deliveries(self) -> list[Delivery]:
        """The attempts to deliver a webhook in the order in which they ended; the last `keep`."""
        return list(self._state.webhooks.log)
