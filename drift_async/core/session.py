"""`HttpSession`: the one place that opens connections; nothing else imports the HTTP client.

It trusts neither environment nor replies: no proxies unasked, no netrc, no cookies, no redirects,
no unbounded bodies. An attempt ends as data, a `Response` or a `Failure`; no exception of the HTTP
client leaves, since its frames hold the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextvars import Context, ContextVar
from ipaddress import ip_address
from typing import Any, TypeVar, cast

import aiohttp
import attrs
from aiohttp.abc import AbstractResolver
from aiohttp.hdrs import (
    AUTHORIZATION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
)
from aiohttp.http_exceptions import HttpProcessingError
from multidict import istr
from yarl import URL

from .._version import __version__
from .content_coding import CodingError, Decompressor, UnknownCodingError
from .download import TooLargeError
from .hooks import Hooks
from .request import Failure, FailureKind, Request, Response
from .resolver import Resolver
from .secret import Secret
from .slots import ConnectionSlots, Limits

T = TypeVar("T")

REFRESH_TIMEOUT = 4.0
"""Seconds that closing waits for a token refresh under way: its token would be lost."""

_COST_OF_PIECE = 16 * 1024
"""Bytes that could be read in the time that it takes to begin another piece."""

TICK = 0.1
"""Seconds between two looks of the shared timer: a timer for each attempt costs 5 % of a call."""

OWN_TIMER_BELOW = 1.0
"""Attempts that may last less have a timer of their own, since the shared one is late by a tick."""

_HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": f"drift-async/{__version__}",
}
# Uncompressed, so that Content-Length says the size of a file.
_DOWNLOAD_HEADERS = _HEADERS | {"Accept-Encoding": "identity"}
_NO_TYPE = (CONTENT_TYPE,)


class HttpSession:
    """The connections and background tasks of an open client, bound to the loop that made it.

    ``slots`` are its connections: take one before `send`, and release it afterwards.
    """

    def __init__(
        self,
        origin: str,
        authorization: Secret | None,
        limits: Limits,
        *,
        tls: ssl.SSLContext | None = None,
        proxy: Secret | None = None,
        resolver: Resolver | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.slots = ConnectionSlots(limits.max_connections)
        self.refresh_task: asyncio.Task[Any] | None = None
        self.is_closed = False
        self._origin = origin
        self._authorization = authorization
        self._max_body = limits.max_body
        self._hooks = hooks if hooks and hooks.watch_attempts() else None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._attempts: set[AttemptTimeout] = set()
        self._timer: asyncio.TimerHandle | None = None
        # Only names have to be looked up, and only that takes a thread.
        if resolver is None and (proxy or not _is_address(origin)):
            resolver = Resolver()
        self.resolver = resolver
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # the slots are the limit
                ssl=tls or True,
                resolver=cast(AbstractResolver | None, resolver),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_timeout),
            trust_env=False,
            proxy=None if proxy is None else proxy.reveal(),
            auto_decompress=False,  # it returns half a body as a whole one
            request_class=_HttpRequest,
        )
        # aiohttp sends an idempotent request a second time by itself when the connection is lost;
        # nobody would count that attempt. There is no public switch.
        self._http._retry_connection = False
        self._end = self._close_with_loop()
        with contextlib.suppress(StopIteration):
            self._end.__anext__().send(None)  # to the yield; nothing is awaited before it

    def authorize(self, authorization: Secret) -> None:
        """Send this value of the Authorization header from now on."""
        self._authorization = authorization

    # Sending.

    def send(
        self, request: Request, seconds: float, attempt: int = 1
    ) -> Coroutine[Any, Any, Response | Failure]:
        """Send a request once, and read its response, within *seconds*.

        *attempt* is the number of the attempt that hooks are given.
        """
        sending = self._send(request, seconds)
        if self._hooks is None:
            return sending
        name, size = request.endpoint.name, len(request.body or b"")
        return self._hooks.observe(name, attempt, size, sending)

    async def _send(self, request: Request, seconds: float) -> Response | Failure:
        if self.is_closed:  # since the call was given its turn
            return Failure("closed", "the client was closed", sent=False)
        endpoint = request.endpoint
        has_body = request.body is not None  # no variable holds a body, as it may hold a credential
        response: aiohttp.ClientResponse | None = None
        is_whole = False
        attempt = self._begin_attempt(request, seconds)
        try:
            response = await self._http.request(
                endpoint.method,
                URL(self._origin + request.target, encoded=True),
                headers={CONTENT_TYPE: endpoint.content} if has_body else None,
                data=request.body,
                allow_redirects=False,
                # A POST without a body would be said to hold octets.
                skip_auto_headers=None if has_body or endpoint.method == "GET" else _NO_TYPE,
            )
            body = self._read_at_once(request, response)
            if body is None:
                body = await self._read(request, response)
            is_whole = True
            return Response(response.status, response.headers, body)
        except asyncio.CancelledError as stop:
            if not attempt.timed_out():
                if attempt.sent and request.endpoint.effect == "once":
                    name = request.endpoint.name
                    stop.add_note(f"{name}: was under way and may have been applied")
                # Its frames in the HTTP client hold the headers.
                raise stop.with_traceback(None) from None
            failure = self._timeout_failure(attempt)
        except _FAILURES as error:
            failure = _failure(error, sent=attempt.sent)
        finally:
            self._attempts.discard(attempt)
            attempt.end()
            if response is not None and not is_whole:
                response.close()
        if response is None:
            return failure
        if 200 <= response.status < 300:
            return attrs.evolve(failure, sent=True, status_read=response.status)
        # The head of a reply that says no is enough; its body is lost.
        return Response(response.status, response.headers, b"")

    def _begin_attempt(self, request: Request, seconds: float) -> AttemptTimeout:
        """Start the clock of an attempt: its own timer if it is short, else the shared one."""
        headers = _HEADERS if request.sink is None else _DOWNLOAD_HEADERS
        attempt = AttemptTimeout(headers, self._authorization, self.loop.time() + seconds)
        self._attempts.add(attempt)
        _current.set(attempt)
        if seconds < OWN_TIMER_BELOW:
            attempt.timer = self.loop.call_later(seconds, attempt.expire)
        elif self._timer is None:
            self._timer = self.loop.call_later(TICK, self._expire_attempts)
        return attempt

    def _expire_attempts(self) -> None:
        now = self.loop.time()
        for attempt in self._attempts:
            if attempt.deadline <= now and attempt.timer is None:
                attempt.expire()
        is_busy = self._attempts and not self.is_closed
        self._timer = self.loop.call_later(TICK, self._expire_attempts) if is_busy else None

    def _timeout_failure(self, attempt: AttemptTimeout) -> Failure:
        if self.is_closed:
            return Failure("closed", "the client was closed", attempt.sent)
        detail = "no whole reply in time" if attempt.sent else "no connection in time"
        return Failure("stalled", detail, attempt.sent)

    def _read_at_once(self, request: Request, response: aiohttp.ClientResponse) -> bytes | None:
        """Return a body that has come with its head, as most do; None if there is more to do."""
        headers, stream = response.headers, response.content
        if request.sink is not None or CONTENT_ENCODING in headers or not stream.is_eof():
            return None
        self._check_length(headers)
        return stream.read_nowait() if CONTENT_LENGTH in headers else None

    async def _read(self, request: Request, response: aiohttp.ClientResponse) -> bytes:
        """Read the body, within the bound; a sink takes that of a 2xx response."""
        if request.sink is not None and 200 <= response.status < 300:
            await request.sink.begin(response.status, response.headers)
            async for chunk in _chunks(response):
                await request.sink.write(chunk)
            return b""
        self._check_length(response.headers)
        chunks: list[bytes] = []
        size = 0
        async for chunk in _chunks(response):
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_body:
                raise TooLargeError(f"a body over the limit of {self._max_body} bytes")
        return b"".join(chunks)

    def _check_length(self, headers: Mapping[str, str]) -> None:
        length = headers.get(CONTENT_LENGTH)
        if length is not None and int(length) > self._max_body:
            raise TooLargeError(f"a body of {length} bytes, over {self._max_body}")

    # Background tasks.

    def spawn(
        self, work: Coroutine[Any, Any, T], context: Context | None = None
    ) -> asyncio.Task[T]:
        """Start a task that ends with the client.

        Without a *context* it gets an empty one, since it may outlive its caller.
        """
        task = self.loop.create_task(work, context=Context() if context is None else context)
        self._tasks.add(task)
        task.add_done_callback(self._forget_task)
        return task

    def _forget_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: an abandoned walk must not be reported as a lost error

    # The end.

    async def close(self) -> None:
        """Cancel the tasks, wait for them, end the attempts and close all connections.

        Cancelled itself, it leaves a token refresh under way to end by itself, and does all else.
        """
        spared = self.refresh_task
        try:
            if spared is not None:
                await asyncio.wait([spared], timeout=REFRESH_TIMEOUT)
            spared = None
        finally:
            tasks = self._tasks - {spared}
            for task in tasks:
                task.cancel()
            try:
                if tasks:
                    # Not `gather`, which passes on each cancellation: a scope of anyio cancels in
                    # every turn of the loop, and would disturb the tasks' own ends.
                    await asyncio.wait(tasks)
            finally:
                await self._close_connections()

    async def _close_connections(self) -> None:
        self.is_closed = True
        for attempt in self._attempts:
            attempt.expire()
        try:
            await self._end.aclose()
        finally:
            if self.resolver is not None:
                await self.resolver.close()  # which never waits

    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        """Close the connections at the latest when the loop shuts down.

        A loop that shuts down notifies asynchronous generators only. So a program that ends without
        closing its clients leaves no open sockets, and gets no warning of them.
        """
        try:
            yield
        finally:
            if not self._http.closed:
                await self._http.close()

    def abandon(self) -> None:
        """Let go without touching the sockets: their loop has ended, or is a parent process's."""
        connector = self._http.connector
        self._http.detach()
        # End the generator now: collected later, it would notify its loop. It may be ending.
        with contextlib.suppress(StopIteration, RuntimeError):
            self._end.aclose().send(None)
        if connector is not None:
            # Collected, it would take its sockets out of a poll set that the parent goes on using.
            connector._closed = True
            _inherited.append(connector)


class AttemptTimeout:
    """One attempt of the running task: its time limit, and whether anything of it may have left.

    The request that is made for it carries *headers* and *authorization* from the moment on in
    which it leaves.
    """

    __slots__ = (
        "_cancelling",
        "_expired",
        "_task",
        "authorization",
        "deadline",
        "headers",
        "sent",
        "timer",
    )

    def __init__(
        self, headers: Mapping[str, str], authorization: Secret | None, deadline: float
    ) -> None:
        task = asyncio.current_task()
        assert task is not None, "only tasks make calls"
        self.headers = headers
        self.authorization = authorization
        self.deadline = deadline
        self.timer: asyncio.TimerHandle | None = None
        self.sent = False
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False

    def expire(self) -> None:
        """Cancel the attempt; `timed_out` will return that this was the reason."""
        if not self._expired:  # else two cancellations, of which one would be taken back
            self._expired = True
            self._task.cancel()

    def timed_out(self) -> bool:
        """Return whether a cancellation was by the time limit alone, and take it back if so."""
        if not self._expired:
            return False
        self._expired = False
        return self._task.uncancel() <= self._cancelling

    def end(self) -> None:
        """Stop the timer, and take back a cancellation in the moment in which the attempt ended."""
        if self.timer is not None:
            self.timer.cancel()
        if self._expired:
            self.timed_out()


_current: ContextVar[AttemptTimeout] = ContextVar("drift_async_attempt")


class _HttpRequest(aiohttp.ClientRequest):
    """Records that a request leaves, and refuses a connection that has more to say.

    The headers are set here, so that no session and no call of aiohttp has the token in its own.
    """

    DEFAULT_HEADERS: dict[istr, str] = {}  # noqa: RUF012  # as in the base class

    # Called once there is a connection, before the first byte is written.
    def send(self, conn: aiohttp.connector.Connection) -> Any:
        protocol = conn.protocol
        # What came while nothing was asked would be taken for the response to this request.
        if protocol is None or protocol.should_close:
            raise aiohttp.ClientConnectionError
        attempt = _current.get()
        self.headers.update(attempt.headers)
        if attempt.authorization is not None:
            self.headers[AUTHORIZATION] = attempt.authorization.reveal()
        # A connection that was lost by now takes nothing: the write will be refused.
        attempt.sent = protocol.is_connected()
        return super().send(conn)


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body in pieces, decompressed; let other tasks run in between.

    A small compressed body yields gigabytes, with no wait for the network between its pieces.
    """
    coding = ", ".join(response.headers.getall(CONTENT_ENCODING, ())).strip().lower()
    decompressor = None if coding in ("", "identity") else Decompressor(coding)
    size = turns = 0
    async for data in response.content.iter_any():
        for piece in (data,) if decompressor is None else decompressor.feed(data):
            yield piece
            size += len(piece) + _COST_OF_PIECE
            if size >> 20 != turns:
                turns = size >> 20
                await asyncio.sleep(0)
    if decompressor is not None:
        decompressor.finish()


# These errors occur before the first byte leaves. They are subclasses of ambiguous errors, so they
# are tested first.
_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
)
_CERTIFICATE = (aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch)
# aiohttp's parser in plain Python lets HttpProcessingError through while a body is read.
_FAILURES = (aiohttp.ClientError, HttpProcessingError, OSError, TooLargeError, CodingError)


def _failure(error: Exception, *, sent: bool) -> Failure:
    kind: FailureKind
    match error:
        case _ if isinstance(error, _CERTIFICATE):
            return Failure("certificate", "the server's certificate was refused", sent=False)
        case _ if isinstance(error, _NOT_SENT):
            return Failure("connect", _name(error), sent=False)
        case TooLargeError():
            kind, detail = "too_large", str(error)
        case UnknownCodingError():
            kind, detail = "protocol", str(error)
        case CodingError():
            kind, detail = "lost", str(error)
        case aiohttp.ClientPayloadError():
            kind, detail = "lost", f"the body broke off ({_name(error)})"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            kind, detail = "protocol", f"not a reply in HTTP ({_name(error)})"
        case _:
            kind, detail = "lost", f"the connection was lost ({_name(error)})"
    return Failure(kind, detail, sent)


def _name(error: BaseException) -> str:
    """Return the class of a foreign error: its text can hold the URL, its args the token."""
    number = getattr(error, "errno", None)
    return type(error).__name__ if number is None else f"{type(error).__name__}, errno {number}"


def _is_address(origin: str) -> bool:
    try:
        ip_address(URL(origin).host or "")
    except ValueError:
        return False
    return True


_inherited: list[object] = []
