"""Certificates: a server that does not prove who it is gets no request."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme

from drift_async import ConnectError
from tests.support.server import Server, reply

CA, OTHER_CA = trustme.CA(), trustme.CA()
YESTERDAY = datetime.now(UTC) - timedelta(days=1)
CERTIFICATES = {
    "untrusted": OTHER_CA.issue_cert("127.0.0.1"),
    "wrong-host": CA.issue_cert("driftapi.com", "127.0.0.2"),
    "expired": CA.issue_cert("127.0.0.1", not_after=YESTERDAY),
}
USER = reply(b'{"data": {"id": 7}}')


def serving(certificate: trustme.LeafCert) -> Server:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return Server(USER, tls=context)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


def blind() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.anyio
@pytest.mark.parametrize("name", CERTIFICATES)
@pytest.mark.parametrize("effect", ["safe", "once"])
async def test_a_bad_certificate_is_an_error_and_nothing_is_sent(
    make: Any, name: str, effect: str
) -> None:
    async with (
        serving(CERTIFICATES[name]) as server,
        make("t", base_url=server.url, tls=trusting()) as drift,
    ):
        with pytest.raises(ConnectError, match="certificate") as caught:
            await drift.request("GET" if effect == "safe" else "POST", "/x", effect=effect)
        error = caught.value
        assert (error.applied, error.attempts, error.reason) == (False, 1, "not_retryable")
        assert server.got == []


@pytest.mark.anyio
async def test_the_authorities_of_the_system_do_not_vouch_for_everybody(make: Any) -> None:
    async with serving(CA.issue_cert("127.0.0.1")) as server:
        async with make("t", base_url=server.url) as drift:
            with pytest.raises(ConnectError, match="certificate"):
                await drift.users.get(7)
        assert server.got == []


@pytest.mark.anyio
async def test_an_authority_of_ones_own_is_trusted_when_given(make: Any) -> None:
    async with (
        serving(CA.issue_cert("127.0.0.1")) as server,
        make("t", base_url=server.url, tls=trusting()) as drift,
    ):
        assert (await drift.users.get(7)).id == 7
        assert [got.target for got in server.got] == ["/users/7"]


@pytest.mark.anyio
@pytest.mark.parametrize("name", CERTIFICATES)
async def test_only_the_frightening_flag_takes_any_certificate(make: Any, name: str) -> None:
    settings: dict[str, Any] = {"dangerously_accept_any_certificate": True}
    async with serving(CERTIFICATES[name]) as server:
        async with make("t", base_url=server.url, tls=blind(), **settings) as drift:
            assert (await drift.users.get(7)).id == 7
        # The flag alone switches nothing off.
        async with make("t", base_url=server.url, tls=trusting(), **settings) as drift:
            with pytest.raises(ConnectError, match="certificate"):
                await drift.users.get(7)
        assert len(server.got) == 1
