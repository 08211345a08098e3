"""The listener: reads a request, checks token, scope and limits, records, answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import attrs
from aiohttp import web

from . import control
from .call import MAX_BODY, Call, Refusal, Reply, Token
from .events import Event, EventCounts, EventLog
from .faults import Fault, Faults
from .limits import Limits
from .oauth import App
from .routes import OPERATIONS, SCOPES, Match, Operation, match
from .seed import Seed
from .store import Store
from .wire import latin, read, respond, split


@attrs.frozen
class Seen:
    """One request as it arrived. `status` is None when no reply went out."""

    method: str
    raw_path: str
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    body: bytes
    operation: str | None
    status: int | None = None
    applied: bool = False


def _scopes(given: Iterable[str] | None) -> frozenset[str]:
    chosen = SCOPES if given is None else frozenset(given)
    if unknown := chosen - SCOPES:
        raise ValueError(f"scopes: there is no {min(unknown)!r}")
    return chosen


class Sandbox:
    """A stand-in for the Drift API on localhost, with state.

    >>> async with Sandbox(contacts=3) as box:
    ...     box.env  # DRIFT_TOKEN, DRIFT_BASE_URL and those of the event clients

    The counts say how many rows of each kind are there from the start; rows are made when asked
    for, so a million costs nothing. `users` includes the org's bot. With `messages`, conversation
    number 1 has at least 130. `rate` (calls a second for each token) and `burst` set the limit;
    without `rate` only the report calls are limited. `event_rate` limits each event API. `now` is
    the wall clock, `clock` the monotonic one, both in seconds. `strict` refuses the listing of
    contacts without a query, and SegmentStream events without `hitId` or `sentAt`;
    `denied_status` 403 replaces the 401 for a bad token; `links_host` names another host in the
    links of the conversation listing; `erase_delay` (seconds) puts GDPR erasures off.
    `client_id` and `client_secret` are the app's; its users are sent back from `/authorize` with a
    code, or, without `approve`, with a refusal. What it gets has the `app_scopes` (None: all), and
    ends after `lifetime` seconds; `rotate` ends a refresh token with its use. `seen` keeps the last
    `keep` requests, `events` the last `keep_events` events (0: only their counts).
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
        burst: int = 1,
        event_rate: float | None = None,
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
        keep: int = 10_000,
        keep_events: int = 100_000,
    ) -> None:
        counts = contacts, conversations, messages, accounts, playbooks, meetings, attachment_size
        if min(*counts, keep_events) < 0 or users < 1 or keep < 1 or burst < 1:
            raise ValueError("counts must not be negative; users, keep and burst at least 1")
        if any(one is not None and not one > 0 for one in (rate, event_rate)):
            raise ValueError("rate and event_rate must be above 0, or None for no limit")
        if denied_status not in (401, 403):
            raise ValueError("denied_status must be 401 or 403")
        self._token, self._segmentstream_token = token, segmentstream_token
        self._org_id = org_id
        self._count = 0
        self._address = host, port
        self._now, self._clock = now, clock
        self._denied = denied_status
        self._keep = keep
        self._limits = Limits(rate, event_rate, burst)
        self._faults = Faults()
        self._seen: dict[int, Seen] = {}
        self._lock = threading.Lock()
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
        self._store = Store(
            seed=seed,
            strict=strict,
            links_host=links_host,
            app=App(
                client_id=client_id,
                client_secret=client_secret,
                scopes=_scopes(app_scopes),
                lifetime=lifetime,
                rotate=rotate,
                approve=approve,
            ),
            erase_delay=erase_delay,
            today=int(now()) // 3600 * 3_600_000,
            events=EventLog(keep_events),
            streams={segmentstream_token},
        )
        self.add_token(token)

    # the listener

    async def open(self) -> None:
        """Start to listen; OSError when the port is taken."""
        if self._runner is not None:
            raise RuntimeError("the sandbox is open already")
        server = web.Server(
            self._serve, access_log=None, auto_decompress=False, keepalive_timeout=600.0
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
        """Stop to listen and drop all connections; a second time does nothing."""
        runner, self._runner, self._url = self._runner, None, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # what tests ask and set; safe from any thread

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        if self._url is None:
            raise RuntimeError("the sandbox is not open")
        return self._url

    @property
    def token(self) -> str:
        """The token that was given, with all scopes."""
        return self._token

    @property
    def segmentstream_url(self) -> str:
        """The base URL of SegmentStream."""
        return f"{self.url}/segmentstream"

    @property
    def segmentstream_token(self) -> str:
        """The token that was given for SegmentStream."""
        return self._segmentstream_token

    @property
    def client_id(self) -> str:
        """The app's id, for OAuth and for uninstalling it."""
        return self._store.app.client_id

    @property
    def client_secret(self) -> str:
        """The app's secret."""
        return self._store.app.client_secret

    @property
    def org_id(self) -> int:
        """The organisation whose data this is."""
        return self._org_id

    @property
    def count(self) -> int:
        """How many requests have come, also those that `seen` no longer holds."""
        return self._count

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that point the clients here."""
        return {
            "DRIFT_TOKEN": self._token,
            "DRIFT_BASE_URL": self.url,
            "DRIFT_ORG_ID": str(self._org_id),
            "DRIFT_EVENTS_URL": self.url,
            "SEGMENTSTREAM_TOKEN": self._segmentstream_token,
            "SEGMENTSTREAM_URL": self.segmentstream_url,
        }

    @property
    def operations(self) -> tuple[Operation, ...]:
        """All rows the sandbox answers."""
        return OPERATIONS

    @property
    def seen(self) -> list[Seen]:
        """The requests in order of arrival; `count` says how many came in all."""
        with self._lock:
            return list(self._seen.values())

    def events(self, api: str | None = None, user: str | None = None) -> list[Event]:
        """The accepted events in order of arrival: of one API ("drift", "segmentstream") or user.

        ValueError when there is no such API.
        """
        return self._store.events.kept(api, user)

    def event_counts(self, api: str) -> EventCounts:
        """How many events an API has accepted, also those that `events` no longer holds."""
        return self._store.events.counts(api)

    def forget(self) -> None:
        """Clear `seen` and `events`; the counts go on, and a known `hitId` stays known."""
        with self._lock:
            self._seen.clear()
        self._store.events.forget()

    def add_token(
        self, token: str, scopes: Iterable[str] | None = None, *, expires: float | None = None
    ) -> None:
        """Accept a token with these scopes (None: all) for `expires` seconds (None: for ever)."""
        now = self._now()
        end = None if expires is None else now + expires
        self._store.tokens[token] = Token(token, _scopes(scopes), now, end)

    def add_segmentstream_token(self, token: str) -> None:
        """Accept one more token at SegmentStream."""
        self._store.streams.add(token)

    def revoke(self, token: str) -> None:
        """Stop to accept a token, a refresh token or one of SegmentStream."""
        self._store.revoke(token)

    def expire(self, token: str) -> None:
        """End the lifetime of an access token now; ValueError when there is none like it."""
        old = self._store.tokens.get(token)
        if old is None:
            raise ValueError("token: there is no such access token")
        self._store.tokens[token] = attrs.evolve(old, expires=self._now())

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
        request is carried out; `reset` does it with RST. `short` holds back the last bytes, then
        closes; `raw` goes out instead of any HTTP. A request is carried out unless `status`,
        `raw` or `cut="before"` is given; `apply` overrules that. The fault is used `times` times
        (None: for ever) after `skip` requests passed; those of one operation follow each other.
        ValueError for arguments that make no sense.
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
        self._faults.add(operation, fault)

    def heal(self) -> None:
        """Forget all scripted faults."""
        self._faults.clear()

    # one request

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            body = await read(request)
        except web.RequestPayloadError:
            return respond(Refusal(400, "body: is not valid HTTP").reply(scim=False))
        target = latin(request.raw_path)
        if target.startswith("/_sandbox/"):
            return respond(control.answer(self, request.method, target, body))
        path, query, scim = split(target, request.headers.get("Host", ""))
        found = match(request.method, path, query, body)
        name = found.operation.name if found.operation else None
        number = self._arrived(request, target, body, name)
        fault = self._faults.take(name)
        reply, applied = None, False
        if fault is None or fault.runs:
            reply, applied = self._answer(request, found, query, body, scim=scim)
        if fault is not None:
            reply = fault.shape(reply, scim=scim)
        assert reply is not None
        silent = fault is not None and fault.silent
        self._record(number, None if silent else reply.status, applied)
        response = respond(reply, f"sandbox-{number:08d}")
        return response if fault is None else await fault.send(request, response)

    def _arrived(
        self, request: web.BaseRequest, target: str, body: bytes, operation: str | None
    ) -> int:
        raw = request.raw_headers
        headers = tuple([(k.decode("latin-1"), v.decode("latin-1")) for k, v in raw])
        with self._lock:
            self._count += 1
            self._seen[self._count] = Seen(request.method, target, headers, body, operation)
            if len(self._seen) > self._keep:
                del self._seen[next(iter(self._seen))]
            return self._count

    def _record(self, number: int, status: int | None, applied: bool) -> None:
        with self._lock:
            one = self._seen.get(number)
            if one is not None:
                raw = one.method, one.raw_path, one.headers, one.body, one.operation
                self._seen[number] = Seen(*raw, status, applied)

    def _answer(
        self,
        request: web.BaseRequest,
        found: Match,
        query: Mapping[str, list[str]],
        body: bytes,
        *,
        scim: bool,
    ) -> tuple[Reply, bool]:
        """The true reply, and whether the request was carried out."""
        clock = self._clock()
        self._store.erase_due(clock)
        try:
            if found.operation is None:
                if not found.allowed:
                    raise Refusal(404, "no such path")
                headers = [("Allow", ", ".join(found.allowed))]
                raise Refusal(405, "no such method here", headers=headers)
            token = self._admit(request, found.operation, clock)
            if len(body) > MAX_BODY and found.operation.budget != "segmentstream":
                raise Refusal(413, f"body: over {MAX_BODY} bytes")
            call = Call(
                method=request.method,
                params=found.params,
                query=query,
                body=body,
                header=request.headers,
                origin=f"http://{request.headers.get('Host') or self.url[7:]}",
                token=token,
                now=int(self._now() * 1000),
                clock=clock,
                store=self._store,
            )
            return found.operation.handle(call), True
        except Refusal as refusal:
            return refusal.reply(scim=scim), False

    def _admit(self, request: web.BaseRequest, row: Operation, clock: float) -> Token | None:
        """The token of the request, if it is good for the operation and within its limit."""
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        token = self._store.tokens.get(text.strip()) if scheme.lower() == "bearer" else None
        if token and token.expires is not None and token.expires <= self._now():
            token = None
        if token is None and not row.open:
            headers = [("WWW-Authenticate", 'Bearer error="invalid_token"')]
            raise Refusal(self._denied, "the token is missing or not valid", headers=headers)
        wait = self._limits.wait(row.budget, token.text if token else "", clock)
        if wait:
            raise Refusal(429, "too many calls", headers=[("Retry-After", str(wait))])
        if token and row.scope and row.scope not in token.scopes:
            raise Refusal(403, f"the token lacks the scope {row.scope}")
        return token
