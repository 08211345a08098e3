"""Tokens that are renewed ahead of their end, by a clock of the test."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

import drift_async
import drift_async.sync
from drift_async import (
    CredentialsError,
    Drift,
    OAuth,
    Token,
    TokenNotSavedError,
    from_json,
    to_json,
)
from drift_async.sandbox import Sandbox
from tests.support.consent import SOMEBODY, app_of, granted, made, operations
from tests.support.renewal import REFRESH

pytestmark = pytest.mark.anyio


@attrs.define
class Clock:
    """A wall clock, and a sleep that sets it forward, for so many naps."""

    now: float
    most: int
    naps: list[float] = attrs.field(factory=list)

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        if len(self.naps) >= self.most:
            raise asyncio.CancelledError


async def kept(
    clock: Clock, token: Token, answers: Sequence[Token | Exception]
) -> tuple[list[float], Any]:
    """Keep *token* fresh as a client does; return when it was renewed, and what keeps it."""
    answer, when = iter(answers), []

    async def refresh(token: Token) -> Token:
        when.append(clock.now)
        result = next(answer)
        if isinstance(result, Exception):
            raise result
        return result

    async def asleep(seconds: float) -> None:
        await asyncio.sleep(3600)

    auth = OAuth("id", "secret").auth(token)
    auth._refresh, auth._now = refresh, clock.time
    drift = Drift(auth=auth)
    site = drift._caller.site
    site.sleep = asleep
    async with drift:
        await asyncio.sleep(0)  # what the client itself has started sleeps for good
        assert site.live is not None
        site.sleep = clock.sleep
        with contextlib.suppress(asyncio.CancelledError):
            await auth.keep(site, site.live)
        assert site.token is auth.secret
    return when, auth


def lasting(access: str, until: float, lifetime: int = 7200) -> Token:
    return made(access, expires_in=lifetime, expires_at=round(until * 1000))


async def test_a_token_is_renewed_five_minutes_before_its_end() -> None:
    clock = Clock(1_000_000.0, most=8)
    first, second, third = (lasting(f"t-{n}", 1_000_000.0 + n * 7200) for n in (1, 2, 3))
    when, auth = await kept(clock, first, [second, third])
    assert when == [1_006_900.0, 1_014_100.0]
    assert auth.token is third


async def test_a_token_that_has_ended_is_renewed_at_once() -> None:
    for skew in (0.0, 86_400.0):
        clock = Clock(1_000_000.0, most=2)
        when, auth = await kept(
            clock, lasting("old", 999_999.0 - skew), [lasting("new", 1_010_000.0)]
        )
        assert when == [1_000_000.0]
        assert auth.secret.reveal() == "new"


async def test_a_short_life_or_a_wrong_clock_makes_no_storm() -> None:
    clock = Clock(1_000_000.0, most=20)
    tokens = [lasting(f"t-{n}", 5.0, lifetime=1) for n in range(20)]  # long ended, says the clock
    when, _ = await kept(clock, tokens[0], tokens[1:])
    assert when == [1_000_000.0 + 30.0 * n for n in range(10)]


async def test_a_token_without_an_end_is_left_alone() -> None:
    for token in (made(), made(expires_in=0), made(expires_in=7200)):
        clock = Clock(1_000_000.0, most=50)
        when, _ = await kept(clock, token, [])
        assert when == []
        assert min(clock.naps[::2]) == 3600.0


async def test_a_failure_ahead_of_the_end_is_logged_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock(1_000_000.0, most=8)
    refused = CredentialsError("POST /oauth2/token: 400 invalid_grant")
    when, auth = await kept(
        clock, lasting("t", 1_000_000.0), [drift_async.DriftError("an outage"), refused]
    )
    assert when == [1_000_000.0, 1_000_030.0]  # and never again after the refusal
    assert [record.getMessage() for record in caplog.records if record.name == "drift_async"] == [
        "a token that ends soon was not renewed: an outage",
        "a token that ends soon was not renewed: POST /oauth2/token: 400 invalid_grant",
    ]
    assert auth.secret.reveal() == "t"


async def test_a_token_kept_for_on_refresh_is_renewed_itself_when_it_ends() -> None:
    clock, asked = Clock(1_000_000.0, most=1), []

    async def refresh(token: Token) -> Token:
        asked.append(token.access_token.reveal())
        return lasting(f"t-{len(asked)}", clock.now + 7200)

    def save(token: Token) -> None:
        if len(asked) < 2:
            raise OSError

    auth = OAuth("id", "secret").auth(made("t-0"), on_refresh=save)
    auth._refresh, auth._now = refresh, clock.time
    async with Drift(auth=auth) as drift:
        live = drift._caller.site.live
        assert live is not None
        for _ in range(2):
            with pytest.raises(TokenNotSavedError):
                await auth.renew(auth.secret, live)
        clock.now += 7000
        await auth.renew(auth.secret, live)
    assert asked == ["t-0", "t-1"]
    assert auth.secret.reveal() == "t-2"


async def test_a_client_renews_a_token_by_itself(make: Any, box: Sandbox) -> None:
    stored = threading.Event()
    token = from_json(Token, {**to_json(await granted(box)), "expires_at": 1})
    auth = app_of(box).auth(token, on_refresh=lambda token: stored.set())
    async with make(auth=auth, base_url=box.url) as drift:
        await drift.contacts.get(SOMEBODY)  # the blocking client opens itself at the first call
        assert await asyncio.to_thread(stored.wait, 10)
    assert operations(box).count(REFRESH) == 1
