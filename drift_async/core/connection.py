"""The one place that opens connections; nothing else imports the HTTP client.

It trusts neither environment nor replies: no proxies unasked, no netrc, no cookies, no redirects,
no unbounded bodies. An attempt ends as data, a `Reply` or a `Failure`; the library's own exceptions
never leave, since they carry the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from http.cookies import BaseCookie, SimpleCookie
from ipaddress import ip_address
from typing import Any, cast

import aiohttp
import attrs
from aiohttp.abc import AbstractResolver
from aiohttp.hdrs import AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HOST
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from .._version import __version__
from .download import Sink, TooLargeError
from .endpoint import Endpoint, Reply
from .rate_limit import Limiter
from .resolver import Resolver
from .retry import HELD, Failure, FailureKind
from .secret import Secret
from .watch import Watch

_NO_TYPE = ("Content-Type",)
_UNCOMPRESSED = {"Accept-Encoding": "identity"}  # so that Content-Length says the size of a file
_HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": f"drift-async/{__version__}",
}


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of a client's connections, in seconds, bytes and numbers."""

    connect_timeout: float = 10.0
    attempt_timeout: float = 30.0
    max_connections: int = 100
    max_body: int = 32 * 1024 * 1024


class _NoCookies(aiohttp.DummyCookieJar):
    """Holds no cookies, and does not make an empty jar of them for each request either."""

    _none: BaseCookie[str] = SimpleCookie()

    def filter_cookies(self, request_url: URL) -> BaseCookie[str]:
        return self._none


def _requests(watch: Watch, fixed: CIMultiDict[str]) -> type[aiohttp.ClientRequest]:
    """Return the requests of one connection: they carry the *fixed* headers, and tell the attempt
    they are made for when they leave.

    Set here, the token is in the headers of no session and of no call. And what is the same each
    time is copied in one piece: built anew for each request it is 5 % of a call's CPU (measured
    at 16 in flight).
    """

    class Request(aiohttp.ClientRequest):
        def update_headers(self, headers: Any) -> None:
            self.attempt = watch.starting()
            self.headers = fixed.copy()
            if headers:
                self.headers.update(headers)

        def update_auto_headers(self, skip_auto_headers: Any) -> None:
            self._skip_auto_headers = skip_auto_headers

        # Called once there is a connection, before the first byte is written.
        def send(self, conn: aiohttp.connector.Connection) -> Any:
            attempt, protocol = self.attempt, conn.protocol
            limiter = attempt.limiter
            if limiter is not None and not limiter.free and limiter.paused_for():
                conn.release()
                raise _HeldError
            # What came while nothing was asked would be taken for the reply to this request.
            if protocol is None or protocol.should_close:
                raise aiohttp.ClientConnectionError
            # A connection that was lost by now takes nothing: the write will be refused.
            attempt.sent = protocol.is_connected()
            return super().send(conn)

    return Request


# Before the first byte has left, by class; subclasses of the ambiguous ones, so tested first.
_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
)
_CERTIFICATE = (aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch)


class _HeldError(Exception):
    """The budget was paused while a request waited for a connection."""


class Connection:
    """An HTTP session, bound to the loop in which it is made."""

    def __init__(
        self,
        origin: str,
        authorization: Secret | None,
        limits: Limits,
        *,
        tls: ssl.SSLContext | None = None,
        proxy: Secret | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._origin = origin
        self._limits = limits
        self._watch = Watch()
        self._fixed = CIMultiDict(_HEADERS)
        self._fixed[HOST] = URL(origin).host_port_subcomponent or ""
        if authorization is not None:
            self.authorize(authorization)
        # Only names have to be looked up, and only that takes a thread.
        if resolver is None and (proxy or not _is_address(origin)):
            resolver = Resolver()
        self.resolver = resolver
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=limits.max_connections,
                ssl=tls or True,
                resolver=cast(AbstractResolver | None, resolver),
            ),
            cookie_jar=_NoCookies(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_timeout),
            trust_env=False,
            proxy=None if proxy is None else proxy.reveal(),
            request_class=_requests(self._watch, self._fixed),
        )
        # aiohttp sends an idempotent request a second time by itself when the connection is lost;
        # that would be an attempt nobody counts. There is no public switch.
        self._session._retry_connection = False
        self._end = self._close_with_loop()
        with contextlib.suppress(StopIteration):
            self._end.__anext__().send(None)  # to the yield; nothing is awaited before it
        # What the public `request` returns can also be used by `async with`; making that object
        # costs 5 % of a call's CPU (measured at 64 in flight).
        self._send = self._session._request

    def authorize(self, authorization: Secret) -> None:
        """Send this value of the Authorization header from now on."""
        self._fixed[AUTHORIZATION] = authorization.reveal()

    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        """Close the connections at the latest when the loop shuts down.

        Of that, a loop tells asynchronous generators only. So a program that ends without closing
        its clients leaves no open sockets, and gets no warning of them.
        """
        try:
            yield
        finally:
            if not self._session.closed:
                await self._session.close()

    async def close(self) -> None:
        """End the attempts and close all connections; cancelled, it has done so all the same."""
        self._watch.close()
        try:
            await self._end.aclose()
        finally:
            if self.resolver is not None:
                await self.resolver.close()  # which never waits

    def abandon(self) -> None:
        """Let go without touching the sockets: their loop has ended, or is a parent process's."""
        connector = self._session.connector
        self._session.detach()
        # Ended here, or its loop would be told when it is collected. It may be ending already.
        with contextlib.suppress(StopIteration, RuntimeError):
            self._end.aclose().send(None)
        if connector is not None:
            # Collected, it would take its sockets out of a poll set that the parent goes on using.
            connector._closed = True
            _inherited.append(connector)

    async def attempt(
        self,
        endpoint: Endpoint[Any],
        target: str,
        body: bytes | None,
        now: float,
        until: float,
        sink: Sink | None = None,
        limiter: Limiter | None = None,
    ) -> Reply | Failure:
        """Send one request and read its reply, from *now* to *until* on the caller's clock.

        With a *limiter* that is paused by the time there is a connection, it is `HELD` instead.
        """
        headers = endpoint.headers if body is not None else None if sink is None else _UNCOMPRESSED
        response: aiohttp.ClientResponse | None = None
        whole = False
        kind: FailureKind
        attempt = self._watch.begin(now, until, limiter)
        try:
            response = await self._send(
                endpoint.method,
                URL(self._origin + target, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                # A POST without a body would be said to hold octets.
                skip_auto_headers=_NO_TYPE if body is None and endpoint.method != "GET" else None,
            )
            status, got = response.status, response.headers
            if sink is None or not 200 <= status < 300:
                length = got.get(CONTENT_LENGTH)
                if length is not None and int(length) > self._limits.max_body:
                    raise TooLargeError(f"a body of {length} bytes, over {self._limits.max_body}")
                if length is not None and CONTENT_ENCODING not in got:
                    # Not response.read(), which goes on to wait for what is over by then. And most
                    # replies are here with their head: not to wait at all saves 4 % of the CPU.
                    stream = response.content
                    content = stream.read_nowait() if stream.is_eof() else await stream.read()
                else:
                    content = await self._read_chunks(response)
            else:
                content = await _pour(response, sink)
            whole = True
            return Reply(status, got, content)
        except asyncio.CancelledError as stop:
            if not attempt.ran_out():
                if attempt.sent and endpoint.effect == "once":
                    stop.add_note(f"{endpoint.name}: was under way and may have been applied")
                raise
            if self._watch.closed:
                kind, detail = "closed", "the client was closed"
            else:
                kind = "stalled"
                detail = "no whole reply in time" if attempt.sent else "no connection in time"
        except _HeldError:
            return HELD
        except _CERTIFICATE:
            return Failure("certificate", "the server's certificate was refused", False)
        except _NOT_SENT as error:
            return Failure("connect", _named(error), False)
        except TooLargeError as error:
            kind, detail = "too_large", str(error)
        except aiohttp.ClientPayloadError as error:
            kind, detail = "lost", f"the body broke off ({_named(error)})"
        # The second is what its parser in plain Python lets through while a body is read.
        except (aiohttp.ClientResponseError, HttpProcessingError) as error:
            kind, detail = "protocol", f"not a reply in HTTP ({_named(error)})"
        except (aiohttp.ClientError, OSError) as error:
            kind, detail = "lost", f"the connection was lost ({_named(error)})"
        finally:
            self._watch.end(attempt)
            if response is not None and not whole:
                response.close()
        if response is None:
            return Failure(kind, detail, attempt.sent)
        if 200 <= response.status < 300:
            return Failure(kind, detail, True, response.status)
        # A reply that says no is known by its head; what its body would have said is lost.
        return Reply(response.status, response.headers, b"")

    async def _read_chunks(self, response: aiohttp.ClientResponse) -> bytes:
        """Read a body of unknown length, which decompression may blow up."""
        most = self._limits.max_body
        chunks: list[bytes] = []
        size = turns = 0
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                raise TooLargeError(f"a body over the limit of {most} bytes")
            turns = await _take_turns(size, turns)
        return b"".join(chunks)


async def _pour(response: aiohttp.ClientResponse, sink: Sink) -> bytes:
    await sink.begin(response.status, response.headers)
    size = turns = 0
    async for chunk in response.content.iter_any():
        await sink.write(chunk)
        size += len(chunk)
        turns = await _take_turns(size, turns)
    return b""


async def _take_turns(size: int, turns: int) -> int:
    """Let others run once for each mebibyte: out of a small compressed body come hundreds, with
    never a wait for the network between them."""
    if size >> 20 == turns:
        return turns
    await asyncio.sleep(0)
    return size >> 20


def _is_address(origin: str) -> bool:
    try:
        ip_address(URL(origin).host or "")
    except ValueError:
        return False
    return True


def _named(error: BaseException) -> str:
    """Return what may be told of a foreign error: its text can hold the URL, its args the token."""
    number = getattr(error, "errno", None)
    return type(error).__name__ if number is None else f"{type(error).__name__}, errno {number}"


_inherited: list[object] = []
