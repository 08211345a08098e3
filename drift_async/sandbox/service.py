"""`Service` reads, logs, checks, carries out and answers requests, and breaks replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web

from .call import MAX_BODY, Call
from .control import answer
from .limits import Limits
from .logs import Seen
from .routes import Match, Operation, match
from .state import State
from .types import Refusal, Reply, Token
from .wire import latin, read, respond, split

CONTROL = "/_sandbox/"


class Service:
    """Answers requests; *clock* is the monotonic one, in seconds."""

    def __init__(
        self,
        state: State,
        limits: Limits,
        *,
        clock: Callable[[], float],
        denied: int,
        retry_after: bool,
    ) -> None:
        self._state = state
        self._limits = limits
        self._clock = clock
        self._denied = denied
        self._retry_after = retry_after

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
            self._log(request, target, bytes(came), None)
            return web.Response()  # the client has gone
        body = bytes(came)
        if target.startswith(CONTROL):
            return respond(answer(self._state, request.method, target, body))
        path, query, scim = split(target, request.headers.get("Host", ""))
        found = match(request.method, path, query, body)
        name = found.operation.name if found.operation else None
        number = self._log(request, target, body, name)
        fault = self._state.faults.take(name)
        reply, applied = None, False
        if fault is None or fault.runs:
            reply, applied = self._answer(request, found, query, body, scim=scim)
        if fault is not None:
            reply = fault.shape(reply, scim=scim)
        assert reply is not None
        silent = fault is not None and fault.silent
        self._state.requests.answered(number, None if silent else reply.status, applied)
        response = respond(reply, f"sandbox-{number:08d}")
        return response if fault is None else await fault.send(request, response)

    def _log(
        self, request: web.BaseRequest, target: str, body: bytes, operation: str | None
    ) -> int:
        raw = request.raw_headers
        headers = tuple([(k.decode("latin-1"), v.decode("latin-1")) for k, v in raw])
        return self._state.requests.add(Seen(request.method, target, headers, body, operation))

    def _answer(
        self,
        request: web.BaseRequest,
        found: Match,
        query: Mapping[str, list[str]],
        body: bytes,
        *,
        scim: bool,
    ) -> tuple[Reply, bool]:
        """Return the true reply, and whether the request was carried out."""
        clock = self._clock()
        self._state.erase_due(clock)
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
                now=int(self._state.now() * 1000),
                clock=clock,
                state=self._state,
            )
            return found.operation.handle(call), True
        except Refusal as refusal:
            return refusal.reply(scim=scim), False

    def _admit(self, request: web.BaseRequest, row: Operation, clock: float) -> Token | None:
        """Return the token of the request, after checking its scope and its rate limit."""
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        token = self._state.tokens.get(text.strip()) if scheme.lower() == "bearer" else None
        if token and token.expires is not None and token.expires <= self._state.now():
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
