"""One request: it is read, recorded, checked, carried out, answered, and broken on demand."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping

import attrs
from aiohttp import web

from .call import MAX_BODY, Call, Refusal, Reply, Token
from .faults import Faults
from .limits import Limits
from .routes import Match, Operation, match
from .store import Store
from .wire import latin, read, respond, split

CONTROL = "/_sandbox/"


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


class Service:
    """Answers requests, and keeps the last `keep` of them."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        faults: Faults,
        control: Callable[[str, str, bytes], Awaitable[Reply]],
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        denied: int,
        retry_after: bool,
        keep: int,
    ) -> None:
        self._store = store
        self._limits = limits
        self._faults = faults
        self._control = control
        self._now, self._clock = now, clock
        self._denied = denied
        self._retry_after = retry_after
        self._keep = keep
        self._seen: dict[int, Seen] = {}
        self._lock = threading.Lock()
        self.count = 0

    def seen(self) -> list[Seen]:
        """The kept requests in order of arrival."""
        with self._lock:
            return list(self._seen.values())

    def forget(self) -> None:
        """Drop the kept requests."""
        with self._lock:
            self._seen.clear()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        target, came = latin(request.raw_path), bytearray()
        try:
            await read(request, came)
        except web.RequestPayloadError:
            return respond(Refusal(400, "body: is not valid HTTP").reply(scim=False))
        except OSError:
            self._arrived(request, target, bytes(came), None)
            return web.Response()  # nobody is there to read it
        body = bytes(came)
        if target.startswith(CONTROL):
            return respond(await self._control(request.method, target, body))
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
            self.count += 1
            self._seen[self.count] = Seen(request.method, target, headers, body, operation)
            if len(self._seen) > self._keep:
                del self._seen[next(iter(self._seen))]
            return self.count

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
                origin=f"http://{request.headers.get('Host') or 'localhost'}",
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
            headers = [("Retry-After", str(wait))] if self._retry_after else []
            raise Refusal(429, "too many calls", headers=headers)
        if token and row.scope and row.scope not in token.scopes:
            raise Refusal(403, f"the token lacks the scope {row.scope}")
        return token
