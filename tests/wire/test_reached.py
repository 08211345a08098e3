"""Every error of the tree, and every reason to stop, is met by a call on both faces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, get_args

import attrs
import pytest

from drift_async import CallError, DriftError, Rate, Retry, Token, errors
from drift_async.core.retry import Reason
from drift_async.sandbox import Sandbox
from tests.support.consent import app_of, granted
from tests.support.flavours import Awaitable
from tests.support.processes import run
from tests.support.server import dead_url

pytestmark = pytest.mark.anyio

# Who raises it, what is applied, the reason to stop. `CallError` and `DriftError` are only bases,
# `VerificationError` is of webhooks, which nobody calls; the outbox has tests of its own.
TABLE = """
bad-input         InputError False -
not-open          ClosedError False -
other-loop        WrongLoopError False -
forked            ForkError False -
no-token          CredentialsError False -
not-saved         TokenNotSavedError False -
nobody-there      ConnectError False attempts
connection-cut    ConnectionLostError None attempts
short-body        ConnectionLostError True attempts
too-late          DeadlineError None deadline
no-turn           DeadlineError False deadline
no-time-to-wait   ServerError None deadline
not-http          ProtocolError None attempts
not-json          DecodeError True not_retryable
too-large         ResponseTooLargeError True not_retryable
bad-position      CursorError False -
no-position       CursorError True not_retryable
same-position     CursorError True not_retryable
once-cut          OutcomeUnknownError None ConnectionLostError
once-too-late     OutcomeUnknownError None DeadlineError
once-not-http     OutcomeUnknownError None ProtocolError
teapot            APIError False not_retryable
bad-request       BadRequestError False not_retryable
bad-token         AuthenticationError False not_retryable
bad-scope         ScopeError False not_retryable
not-found         NotFoundError False not_retryable
conflict          ConflictError False not_retryable
too-many          RateLimitError False attempts
much-too-many     RateLimitError False retry_after
broken            ServerError None attempts
outage            ConnectionLostError None quota
"""
EXPECTED = {name: told for name, *told in map(str.split, TABLE.strip().splitlines())}


@attrs.define
class Place:
    """A sandbox, and what opens a client of it."""

    box: Sandbox
    make: Callable[..., Any]
    stack: AsyncExitStack

    async def client(self, **settings: Any) -> Any:
        given = {"base_url": self.box.url, "retry": Retry(base=0, throttled_base=0), **settings}
        return await self.stack.enter_async_context(self.make(self.box.token, **given))


Scenario = Callable[[Place], Coroutine[Any, Any, object]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


def get(name: str, *, fault: dict[str, Any], **settings: Any) -> None:
    """Add a safe call that meets the same fault in all its attempts."""

    async def act(place: Place) -> None:
        place.box.fail("users.get", **fault, times=None)
        await (await place.client(**settings)).users.get(228_225)

    SCENARIOS[name] = act


def create(name: str, *, fault: dict[str, Any], **settings: Any) -> None:
    """Add a call that must not be repeated."""

    async def act(place: Place) -> None:
        place.box.fail("accounts.create", **fault)
        await (await place.client(**settings)).accounts.create(228_225)

    SCENARIOS[name] = act


GARBAGE = {"raw": b"SSH-2.0-OpenSSH\r\n\r\n"}
get("connection-cut", fault={"cut": "before"})
get("short-body", fault={"short": 1})
get("too-late", fault={"delay": 60}, timeout=0.2)
get("no-time-to-wait", fault={"status": 500}, timeout=0.2, retry=Retry(base=1e9, cap=1e9))
get("not-http", fault=GARBAGE)
get("not-json", fault={"body": "<html>"})
get("too-large", fault={"body": "1" * 11}, max_body=10)
create("once-cut", fault={"cut": "after"})
create("once-too-late", fault={"delay": 60}, timeout=0.2)
create("once-not-http", fault=GARBAGE)
get("teapot", fault={"status": 418})
get("bad-request", fault={"status": 400})
get("bad-token", fault={"status": 401})
get("not-found", fault={"status": 404})
get("conflict", fault={"status": 409})
get("too-many", fault={"status": 429})
get("much-too-many", fault={"status": 429, "headers": {"Retry-After": "61"}})
get("broken", fault={"status": 500})


@scenario
async def bad_input(place: Place) -> None:
    await (await place.client()).users.get(0)


@scenario
async def not_open(place: Place) -> None:
    drift = await place.client()
    await drift.close()
    await drift.users.get(228_225)


@scenario
async def other_loop(place: Place) -> None:
    drift = await place.client()
    if not isinstance(drift, Awaitable):
        await asyncio.to_thread(asyncio.run, drift.users.get(228_225))

    async def on_its_own_thread() -> None:
        drift.twin.users.get(228_225)

    await asyncio.to_thread(drift.twin._portal.run, on_its_own_thread())


@scenario
async def forked(place: Place) -> None:
    said = await run(
        place.box.env,
        """
        def use():
            try:
                drift.users.get(228_225)
            except DriftError as error:
                answer.send(error)
        with Drift.from_env(env) as drift:
            ours, answer = multiprocessing.Pipe()
            multiprocessing.get_context("fork").Process(target=use).start()
            error = ours.recv()
        say([type(error).__name__, error.applied])
        """,
        options=("-W", "ignore:This process:DeprecationWarning"),
    )
    assert said == [["ForkError", False]]
    raise errors.ForkError("as the child has told")


@scenario
async def no_token(place: Place) -> None:
    await place.make(None).open()


@scenario
async def nobody_there(place: Place) -> None:
    url = await place.stack.enter_async_context(dead_url())
    await (await place.client(base_url=url)).users.get(228_225)


@scenario
async def no_turn(place: Place) -> None:
    drift = await place.client(rate=Rate(0.01), timeout=0.2)
    await drift.users.get(228_225)
    await drift.users.get(228_225)


@scenario
async def bad_position(place: Place) -> None:
    await (await place.client()).accounts.all(resume="x").collect()


@scenario
async def no_position(place: Place) -> None:
    body = {"data": [], "pagination": {"more": True}}
    place.box.fail("conversations.all", status=200, body=body)
    await (await place.client()).conversations.all().collect()


@scenario
async def same_position(place: Place) -> None:
    body = {"data": [], "pagination": {"more": True, "next": "2"}}
    place.box.fail("conversations.all", status=200, body=body, times=None)
    await (await place.client()).conversations.all().collect()


@scenario
async def bad_scope(place: Place) -> None:
    place.box.add_token(place.box.token, ["contact_read"])
    await (await place.client()).users.get(228_225)


@scenario
async def not_saved(place: Place) -> None:
    token = await granted(place.box)
    place.box.expire(token.access_token.reveal())

    def save(token: Token) -> None:
        raise OSError

    drift = place.make(auth=app_of(place.box).auth(token, on_refresh=save), base_url=place.box.url)
    await place.stack.enter_async_context(drift)
    await drift.users.get(228_225)


@scenario
async def outage(place: Place) -> None:
    place.box.fail("users.get", cut="before", times=None)
    drift = await place.client()
    for _ in range(100):
        try:
            await drift.users.get(228_225)
        except CallError as error:
            if error.reason != "attempts":
                raise


@pytest.mark.parametrize("name", EXPECTED)
async def test_each_error_and_each_reason_is_met(make: Any, name: str) -> None:
    async with Sandbox() as box, AsyncExitStack() as stack:
        with pytest.raises(DriftError) as caught:
            await SCENARIOS[name](Place(box, make, stack))
    error = caught.value
    reason = getattr(error, "reason", None) or "-"
    assert [type(error).__name__, str(error.applied), reason] == EXPECTED[name]


def test_the_table_has_all_of_the_tree_and_all_reasons() -> None:
    public = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, DriftError)
    }
    met = {kind for kind, *_ in EXPECTED.values()}
    elsewhere = {"VerificationError", "OutboxFullError", "OutboxLockedError"}
    assert met == public - {"DriftError", "CallError"} - elsewhere
    reasons = {reason for kind, _, reason in EXPECTED.values() if kind != "OutcomeUnknownError"}
    assert reasons - {"-"} == set(get_args(Reason))
    unknown = {reason for kind, _, reason in EXPECTED.values() if kind == "OutcomeUnknownError"}
    assert unknown == {"ConnectionLostError", "DeadlineError", "ProtocolError"}
