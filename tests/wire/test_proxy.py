"""The chaos proxy does what it is told, and the client copes with each of its ways."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from operator import attrgetter
from typing import Any

import pytest
import trustme

from drift_async import DriftError, Retry
from drift_async.sandbox import Sandbox
from tests.support.proxy import Chaos, Proxy, Script, calm
from tests.support.server import Server, reply

pytestmark = pytest.mark.anyio

REPLY = reply(b'{"data": {"id": 7}}')
REQUEST = b"GET /users/7 HTTP/1.1\r\nHost: x\r\n\r\n"


async def through(requests: Script = calm, connections: Script = calm) -> tuple[list[bytes], int]:
    """Send one request through a proxy; return the pieces that came, and how many went on."""
    async with Server(REPLY) as server, Proxy(server.port, requests, connections) as proxy:
        host, _, port = proxy.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(REQUEST)
        pieces: list[bytes] = []
        try:
            while len(b"".join(pieces)) < len(REPLY) and (piece := await reader.read(65536)):
                pieces.append(piece)
        finally:
            writer.close()
        return pieces, len(server.got)


async def test_in_calm_all_passes() -> None:
    assert await through() == ([REPLY], 1)


@pytest.mark.parametrize(
    ("chaos", "got", "passed"),
    [
        (Chaos(cut="before"), b"", 0),
        (Chaos(cut="after"), b"", 1),
        (Chaos(cut="after", keep=20), REPLY[:20], 1),
        (Chaos(half_close=True), REPLY, 1),
        (Chaos(half_close=True, keep=20), REPLY[:20], 1),
        (Chaos(corrupt=3), REPLY[:3] + b"\xaf" + REPLY[4:], 1),
    ],
)
async def test_what_is_cut_or_corrupted(chaos: Chaos, got: bytes, passed: int) -> None:
    pieces, count = await through(lambda _: chaos)
    assert (b"".join(pieces), count) == (got, passed)


@pytest.mark.parametrize(("cut", "passed"), [("before", 0), ("after", 1)])
async def test_a_reset_is_no_plain_end(cut: Any, passed: int) -> None:
    with pytest.raises(ConnectionResetError):
        await through(lambda _: Chaos(cut=cut, reset=True))
    with pytest.raises(ConnectionResetError):
        await through(connections=lambda _: Chaos(cut=cut, reset=True))


async def test_a_connection_can_end_before_it_begins() -> None:
    assert await through(connections=lambda _: Chaos(half_close=True)) == ([], 0)


@pytest.mark.parametrize(
    ("chaos", "seconds"),
    [
        (Chaos(delay=0.05), 0.05),
        (Chaos(drip=0.001), 0.001 * len(REPLY)),
        (Chaos(throttle=1000), len(REPLY) / 1000),
    ],
)
async def test_what_is_slow_comes_whole(chaos: Chaos, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    pieces, _ = await through(lambda _: chaos)
    assert b"".join(pieces) == REPLY
    assert loop.time() - began >= seconds * 0.9
    if not chaos.delay:
        assert len(pieces) > 5


# -- the client behind it

PAGE = ("users.get", 228_225)  # safe
CREATION = ("accounts.create", 228_225)  # once
HALF_A_HEAD, HALF_A_BODY = 20, -5
LOST = ("ConnectionLostError None 3", "OutcomeUnknownError None 1")
BROKEN_OFF = ("ConnectionLostError True 3", "ConnectionLostError True 1")
WAYS: Mapping[str, tuple[Chaos, str, str]] = {
    # What happens to each request, and what comes of a safe and of a once call: error, applied,
    # requests that reached the server.
    "cut-before": (Chaos(cut="before"), "ConnectionLostError None 0", "OutcomeUnknownError None 0"),
    "cut-after": (Chaos(cut="after"), *LOST),
    "reset-after": (Chaos(cut="after", reset=True), *LOST),
    "half-a-head": (Chaos(cut="after", keep=HALF_A_HEAD), *LOST),
    "half-a-head-half-closed": (Chaos(half_close=True, keep=HALF_A_HEAD), *LOST),
    "half-a-body": (Chaos(cut="after", keep=HALF_A_BODY), *BROKEN_OFF),
    "half-a-body-reset": (Chaos(cut="after", keep=HALF_A_BODY, reset=True), *BROKEN_OFF),
    "half-a-body-half-closed": (Chaos(half_close=True, keep=HALF_A_BODY), *BROKEN_OFF),
    "no-http": (Chaos(corrupt=0), "ProtocolError None 3", "OutcomeUnknownError None 1"),
    "no-json": (Chaos(corrupt=-1), "DecodeError True 1", "DecodeError True 1"),
    "late": (Chaos(delay=0.05), "fine 1", "fine 1"),
    "dripping": (Chaos(drip=1e-9), "fine 1", "fine 1"),
    "slow": (Chaos(throttle=20_000), "fine 1", "fine 1"),
    "half-closed": (Chaos(half_close=True), "fine 1", "fine 1"),
}


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    async with Sandbox() as box:
        yield box


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("call", "once"), [(PAGE, False), (CREATION, True)])
async def test_a_call_through_the_proxy_ends_as_the_table_has_it(
    make: Any, box: Sandbox, way: str, call: tuple[str, int], once: bool
) -> None:
    chaos, *expected = WAYS[way]
    port, retry = int(box.url.rpartition(":")[2]), Retry(base=0)
    async with (
        Proxy(port, lambda _: chaos) as proxy,
        make(box.token, base_url=proxy.url, retry=retry) as drift,
    ):
        try:
            await attrgetter(call[0])(drift)(call[1])
            told = "fine"
        except DriftError as error:
            told = f"{type(error).__name__} {error.applied}"
    assert f"{told} {box.count}" == expected[once]


async def test_after_a_storm_the_client_is_as_before(make: Any, box: Sandbox) -> None:
    storm = [chaos for chaos, *_ in WAYS.values()]

    def requests(n: int) -> Chaos | None:
        return storm[n - 1] if n <= len(storm) else None

    port, retry = int(box.url.rpartition(":")[2]), Retry(base=0)
    async with (
        Proxy(port, requests) as proxy,
        make(box.token, base_url=proxy.url, retry=retry) as drift,
    ):
        hasty = drift.with_options(retry=Retry(attempts=1))
        while proxy.requests < len(storm):
            with contextlib.suppress(DriftError):
                await hasty.users.get(228_225)
        connections = proxy.connections
        for _ in range(5):
            assert (await drift.users.get(228_225)).id == 228_225
        assert proxy.connections <= connections + 1


@pytest.mark.parametrize(
    ("name", "trusted", "told"),
    [
        ("127.0.0.1", True, "fine"),
        ("127.0.0.1", False, "ConnectError False 1"),
        ("other.example", True, "ConnectError False 1"),
    ],
)
async def test_a_bad_certificate_is_met_once(
    make: Any, box: Sandbox, name: str, trusted: bool, told: str
) -> None:
    authority = trustme.CA()
    server, client = (
        ssl.SSLContext(side) for side in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)
    )
    authority.issue_cert(name).configure_cert(server)
    (authority if trusted else trustme.CA()).configure_trust(client)
    port, retry = int(box.url.rpartition(":")[2]), Retry(base=0)
    async with (
        Proxy(port, tls=server) as proxy,
        make(box.token, base_url=proxy.url, retry=retry, tls=client) as drift,
    ):
        try:
            await drift.users.get(228_225)
            outcome = "fine"
        except DriftError as error:
            outcome = f"{type(error).__name__} {error.applied} {vars(error).get('attempts')}"
        assert outcome == told
        assert box.count == (told == "fine")
