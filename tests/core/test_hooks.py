"""What hooks and log tell of each attempt, on both faces; and that they tell nothing else."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from drift_async import (
    ConnectError,
    ConnectionLostError,
    Drift,
    InputError,
    NotFoundError,
    RequestInfo,
    ResponseInfo,
    Retry,
    RetryInfo,
)
from drift_async.sandbox import Sandbox
from tests.support.server import Server

pytestmark = pytest.mark.anyio

SOMEBODY = 15_811_400_007  # in the seed of the sandbox
AT_ONCE = Retry(base=0, throttled_base=0)
GET = "GET /contacts/{contact_id}"


class Heard:
    """Keeps what the hooks of a client are given."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def hooks(self) -> dict[str, Any]:
        return dict.fromkeys(("on_request", "on_response", "on_retry"), self.all.append)


async def test_each_attempt_and_each_retry_is_told_in_order(make: Any, box: Sandbox) -> None:
    heard = Heard()
    box.fail("contacts.get", status=503, headers={"X-Request-Id": "r-1"}, times=1)
    async with make(box.token, base_url=box.url, retry=AT_ONCE, **heard.hooks()) as drift:
        await drift.contacts.get(SOMEBODY)
    kinds = [type(info) for info in heard.all]
    assert kinds == [RequestInfo, ResponseInfo, RetryInfo, RequestInfo, ResponseInfo]
    request, refusal, retry, again, success = heard.all
    assert request == RequestInfo(GET, 1, 0)
    assert (refusal.status, refusal.error, refusal.attempt) == (503, None, 1)
    assert refusal.request_id == "r-1"
    assert (retry.operation, retry.attempt, retry.status) == (GET, 1, 503)
    assert retry.wait == 0.0
    assert again == RequestInfo(GET, 2, 0)
    assert (success.status, success.attempt, success.operation) == (200, 2, GET)
    assert success.size > 50
    assert 0 < success.seconds < 20


async def test_an_attempt_without_a_reply_says_why(make: Any) -> None:
    heard = Heard()
    async with Server(None) as server, make("t", base_url=server.url, **heard.hooks()) as drift:
        view = drift.with_options(retry=Retry(attempts=1))
        with pytest.raises(Exception, match="the connection was lost"):
            await view.contacts.delete(7)
    assert [getattr(info, "error", None) for info in heard.all] == [None, "lost"]
    assert heard.all[1].status is None


async def test_the_size_is_that_of_the_body(make: Any, box: Sandbox) -> None:
    heard = Heard()
    async with make(box.token, base_url=box.url, on_request=heard.all.append) as drift:
        await drift.contacts.update(SOMEBODY, {"plan": "pro"})
    (sent,) = [seen for seen in box.seen if seen.method == "PATCH"]
    assert [info.size for info in heard.all] == [len(sent.body)]


@pytest.mark.parametrize("fault", [RuntimeError("a fault of the hook"), SystemExit(3)], ids=repr)
async def test_a_hook_that_fails_is_logged_and_the_call_goes_on(
    make: Any, box: Sandbox, caplog: pytest.LogCaptureFixture, fault: BaseException
) -> None:
    def fail(info: Any) -> None:
        raise fault

    async with make(box.token, base_url=box.url, on_request=fail, on_response=fail) as drift:
        assert (await drift.contacts.get(SOMEBODY)).id == SOMEBODY
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        "a hook failed on RequestInfo",
        "a hook failed on ResponseInfo",
    ]


async def test_the_log_tells_of_retries_and_with_debug_of_each_attempt(
    make: Any, box: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    for level, lines in ((logging.INFO, 1), (logging.DEBUG, 3)):
        caplog.clear()
        caplog.set_level(level, "drift_async")
        box.fail("contacts.get", status=500, times=1)
        async with make(box.token, base_url=box.url, retry=AT_ONCE) as drift:
            await drift.contacts.get(SOMEBODY)
        said = [record.getMessage() for record in caplog.records if record.name == "drift_async"]
        assert len(said) == lines
        assert f"{GET}: attempt 1: 500; again in 0.000 s" in said


async def test_nothing_told_holds_token_path_or_query(
    make: Any, box: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    heard = Heard()
    async with make(box.token, base_url=box.url, **heard.hooks()) as drift:
        await drift.contacts.find_by_email("planted@example.com")
        with pytest.raises(NotFoundError):
            await drift.request("GET", "/contacts/4711471147")
    told = repr(heard.all) + caplog.text
    assert "planted" not in told
    assert box.token not in told


async def test_a_cancelled_attempt_is_told_too(box: Sandbox) -> None:
    heard, begun = Heard(), asyncio.Event()
    box.fail("contacts.get", delay=30)
    async with Drift(
        box.token,
        base_url=box.url,
        on_request=lambda info: begun.set(),
        on_response=heard.all.append,
    ) as drift:
        task = asyncio.create_task(drift.contacts.get(SOMEBODY))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [info.error for info in heard.all if isinstance(info, ResponseInfo)] == ["cancelled"]


@pytest.mark.parametrize("name", ["on_request", "on_response", "on_retry"])
async def test_a_hook_has_to_be_callable(make: Any, name: str) -> None:
    with pytest.raises(InputError, match=name):
        make("t", **{name: "print"})


@pytest.mark.slow
async def test_ten_thousand_calls_into_an_outage_stay_within_the_quota(make: Any) -> None:
    calls = 10_000
    async with Server(None) as server, make("t", base_url=server.url, retry=Retry(base=0)) as drift:
        for _ in range(calls):
            with pytest.raises(ConnectionLostError):
                await drift.request("GET", "/x")
        assert calls <= len(server.got) <= calls + 500 // 14


async def test_an_outage_is_not_multiplied_and_the_quota_comes_back(make: Any) -> None:
    calls, answers = 300, [None, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"]
    async with Server(lambda n, got: answers[0]) as server:
        view = make("t", base_url=server.url, retry=Retry(base=0))
        async with view as drift:
            reasons = []
            for _ in range(calls):
                try:
                    await drift.request("GET", "/x")
                except Exception as error:
                    reasons.append(getattr(error, "reason", error))
            assert len(reasons) == calls
            assert len(server.got) <= calls + 500 // 14
            assert set(reasons) == {"attempts", "quota"}
            assert reasons[-1] == "quota"
            answers[0] = answers[1]
            for _ in range(500):
                await drift.request("GET", "/x")
            answers[0], seen = None, len(server.got)
            for _ in range(17):  # two retries each: 34 of the 35 that the full quota pays for
                with pytest.raises(Exception, match="lost"):
                    await drift.request("GET", "/x")
            assert len(server.got) - seen == 17 * 3


async def test_a_call_that_cannot_connect_has_its_reason_too(make: Any, loopback: str) -> None:
    async with make("t", base_url=loopback, retry=Retry(base=0)) as drift:
        with pytest.raises(ConnectError) as caught:
            await drift.contacts.get(SOMEBODY)
    assert (caught.value.attempts, caught.value.reason) == (3, "attempts")
