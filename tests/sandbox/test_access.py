"""Tokens, scopes, rate limits, and what is refused before any handler runs."""

from __future__ import annotations

import asyncio

import pytest

from drift_async.sandbox import Sandbox
from tests.support.sandbox_wire import NOW, ask, exchange, parse

pytestmark = pytest.mark.anyio

GET = "GET /contacts/15811400001"


async def statuses(box: Sandbox, calls: int, *, token: str = "sandbox-token") -> list[int]:
    return [(await ask(box, GET, token=token)).status for _ in range(calls)]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_bad_token_is_refused(status: int) -> None:
    now = [NOW]
    async with Sandbox(denied_status=status, now=lambda: now[0]) as box:
        box.add_token("old", expires=10)
        box.add_token("dead")
        assert (await ask(box, GET, token="old")).status == 200
        assert (await ask(box, GET, token="dead")).status == 200
        box.revoke("dead")
        now[0] += 10
        basic = "Authorization: Basic sandbox-token\r\n"
        for answer in (
            await ask(box, GET, token=None),
            await ask(box, GET, token=None, extra=basic),
            await ask(box, GET, token=""),
            *[await ask(box, GET, token=one) for one in ("old", "dead", "unknown")],
        ):
            assert answer.status == status
            assert answer.json["error"]["type"] == "authentication_error"
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
            assert not box.seen[-1].applied


@pytest.mark.parametrize("name", [row.name for row in Sandbox().operations if not row.open])
async def test_the_scope_of_a_row_is_needed_and_enough(box: Sandbox, name: str) -> None:
    [row] = [one for one in box.operations if one.name == name]
    path = row.path.replace("{id}", "1").replace("{name}", "x")
    query = {"contacts.find_by_external_id": "?idType=external", "users.get_many": "?userId=1"}
    line = f"{row.method} {path}{query.get(name, '')}"
    box.add_token("none", [])
    refused = await ask(box, line, token="none")
    assert box.seen[0].operation == name
    if row.scope is None:
        assert refused.status != 403
        return
    assert refused.status == 403
    assert refused.json["error"]["type"] == "authentication_error"
    assert row.scope in refused.json["error"]["message"]
    assert "www-authenticate" not in refused.headers
    box.add_token("one", [row.scope])
    assert (await ask(box, line, token="one")).status != 403


async def test_unknown_scopes_are_refused(box: Sandbox) -> None:
    with pytest.raises(ValueError, match="contact_raed"):
        box.add_token("x", ["contact_raed"])


async def test_token_info_tells_about_a_token_without_one(box: Sandbox) -> None:
    box.add_token("t", ["user_read", "contact_read"], expires=7200)
    answer = await ask(box, "POST /app/token_info", {"access_token": "t"}, token=None)
    assert (answer.json["scope"], answer.json["expires_in"]) == (
        "contact_read user_read",
        7_200_000,
    )
    assert answer.json["created_at"] == int(NOW * 1000)
    unknown = await ask(box, "POST /app/token_info", {"access_token": "?"}, token=None)
    assert unknown.status == 404


async def test_an_uninstall_kills_its_token(box: Sandbox) -> None:
    path = "POST /app/uninstall?clientId=sandbox-client&clientSecret="
    assert (await ask(box, f"{path}wrong")).status == 401
    assert (await ask(box, GET)).status == 200
    assert (await ask(box, f"{path}sandbox-secret")).json["ok"] is True
    assert (await ask(box, f"{path}sandbox-secret")).status == 401
    assert (await ask(box, GET)).status == 401


@pytest.mark.parametrize(
    "path", ["/", "", "/nope", "/contacts//tags", "/v1", "/v1/v1/users", "/x/scim"]
)
async def test_unknown_paths_are_404(box: Sandbox, path: str) -> None:
    answer = await ask(box, f"GET {path or '/?x'}")
    assert (answer.status, answer.json["error"]["type"]) == (404, "not_found")
    assert box.seen[0].operation is None
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("PUT /contacts/1", "DELETE, GET, PATCH, POST"),
        ("DELETE /contacts", "GET, POST"),
        ("GET /contacts/timeline", "POST"),
        ("POST /users", "GET"),
    ],
)
async def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    box: Sandbox, line: str, allowed: str
) -> None:
    answer = await ask(box, line)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    assert answer.json["error"]["type"] == "method_not_allowed"


async def test_a_body_over_a_mebibyte_is_a_413(box: Sandbox) -> None:
    body = b'{"attributes": {"email": "%s"}}'
    most = body % (b"x" * ((1 << 20) - len(body) + 2))
    assert len(most) == 1 << 20
    assert (await ask(box, "POST /contacts", most)).status == 200
    answer = await ask(box, "POST /contacts", most + b" ")
    assert (answer.status, answer.json["error"]["type"]) == (413, "validation_error")


async def test_a_client_that_waits_for_100_continue_gets_it(box: Sandbox) -> None:
    body = b'["a@example.com"]'
    head = (
        b"POST /emails/unsubscribe HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer sandbox-token\r\n"
    )
    head += b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert await exchange(box, head) == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_chunked_bodies_and_whole_urls_are_read(box: Sandbox) -> None:
    text = b"POST http://driftapi.com/v1/emails/unsubscribe/ HTTP/1.1\r\nHost: h\r\n"
    text += b"Authorization: BEARER  sandbox-token\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = parse(await exchange(box, text + b'5\r\n["a",\r\n5\r\n "b"]\r\n0\r\n\r\n'))
    assert (answer.status, box.seen[0].body) == (200, b'["a", "b"]')


async def test_a_broken_chunk_is_a_400_or_the_end(box: Sandbox) -> None:
    text = b"POST /emails/unsubscribe HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert parse(await exchange(box, text + b"zz\r\n")).status == 400
    assert (await ask(box, GET)).status == 200


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_seen(
    box: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = box.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /contacts HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n")
    writer.write(b"Content-Length: 50\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")  # so that the body is being read
    writer.write(b'{"a')
    writer.close()
    async with asyncio.timeout(5):
        while not box.seen:  # noqa: ASYNC110
            await asyncio.sleep(0)
    (one,) = box.seen
    assert (one.method, one.raw_path, one.status, one.applied) == ("POST", "/contacts", None, False)
    assert b'{"a'.startswith(one.body)
    assert (await ask(box, GET)).status == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_head_is_a_wrong_method_without_a_body(box: Sandbox) -> None:
    text = b"HEAD /users/list HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    answer = parse(await exchange(box, text))
    assert (answer.status, answer.body) == (405, b"")


async def test_other_threads_may_ask_and_set(box: Sandbox) -> None:
    def work() -> int:
        for i in range(300):
            box.fail("users.all", status=500, times=None)
            box.add_token(f"t{i}", ["user_read"])
            assert len(box.seen) <= box.count
            box.revoke(f"t{i}")
            box.heal()
        return box.count

    working = asyncio.create_task(asyncio.to_thread(work))
    while not working.done():
        assert (await ask(box, GET)).status == 200
        assert (await ask(box, "GET /users/list")).status in (200, 500)
    assert await working <= box.count == len(box.seen)


async def test_the_bucket_leaks_at_its_rate_for_each_token() -> None:
    clock = [100.0]
    async with Sandbox(rate=0.5, burst=2, clock=lambda: clock[0]) as box:
        box.add_token("other")
        codes = [(await ask(box, GET)).status for _ in range(3)]
        assert codes == [200, 200, 429]
        refused = await ask(box, GET)
        assert (refused.headers["retry-after"], refused.json["error"]["type"]) == (
            "2",
            "rate_limit",
        )
        assert (await ask(box, GET, token="other")).status == 200
        clock[0] += 0.5
        assert (await ask(box, GET)).headers["retry-after"] == "2"
        clock[0] += 1.0
        assert (await ask(box, GET)).headers["retry-after"] == "1"
        clock[0] += 0.5
        assert (await ask(box, GET)).status == 200
        scim = await ask(box, "GET /scim/Users")
        assert (scim.status, scim.json["status"]) == (429, "429")
        clock[0] += 1000
        codes = [(await ask(box, GET)).status for _ in range(3)]
        assert codes == [200, 200, 429]


@pytest.mark.parametrize(
    ("rate", "burst", "count"),
    [(200, None, 20), (29, None, 2), (5, None, 1), (0.5, None, 1), (200, 1, 1), (5, 3, 3)],
)
async def test_a_tenth_of_a_second_comes_at_once_by_default(
    rate: float, burst: int | None, count: int
) -> None:
    clock = [100.0]
    async with Sandbox(rate=rate, burst=burst, clock=lambda: clock[0]) as box:
        assert await statuses(box, count + 1) == [200] * count + [429]
        clock[0] += 0.5 / rate
        assert await statuses(box, 1) == [429]
        clock[0] += 0.5 / rate
        assert await statuses(box, 2) == [200, 429]


async def test_a_window_lets_its_calls_in_and_refuses_the_rest() -> None:
    clock = [100.0]
    async with Sandbox(rate=0.3, window=10, clock=lambda: clock[0]) as box:
        box.add_token("other")
        assert await statuses(box, 2) == [200, 200]
        clock[0] = 104.5
        assert await statuses(box, 2) == [200, 429]
        assert (await ask(box, GET)).headers["retry-after"] == "6"
        assert await statuses(box, 4, token="other") == [200, 200, 200, 429]
        assert (await ask(box, GET, token="other")).headers["retry-after"] == "10"
        clock[0] = 109.75
        refused = await ask(box, GET)
        assert (refused.headers["retry-after"], refused.json["error"]["type"]) == (
            "1",
            "rate_limit",
        )
        clock[0] = 110.0
        assert await statuses(box, 4) == [200, 200, 200, 429]
        assert (await ask(box, GET)).headers["retry-after"] == "10"
        assert (await ask(box, GET, token="other")).headers["retry-after"] == "5"
        clock[0] = 114.5
        assert (await ask(box, GET, token="other")).status == 200
        assert (await ask(box, GET)).status == 429


async def test_windows_follow_each_other_from_the_first_call() -> None:
    clock = [100.0]
    async with Sandbox(rate=0.1, window=10, clock=lambda: clock[0]) as box:
        assert await statuses(box, 2) == [200, 429]
        clock[0] = 137.0
        assert await statuses(box, 2) == [200, 429]
        assert (await ask(box, GET)).headers["retry-after"] == "3"
        clock[0] = 140.0
        assert (await ask(box, GET)).status == 200


async def test_a_window_ends_on_time_though_floats_are_not_exact() -> None:
    clock = [100.0]
    async with Sandbox(rate=10, window=0.1, clock=lambda: clock[0]) as box:
        for tenth in range(20):
            clock[0] = 100 + tenth / 10
            assert await statuses(box, 2) == [200, 429]
    clock[0] = 0.0
    async with Sandbox(rate=0.1, window=4.4, clock=lambda: clock[0]) as box:
        assert (await ask(box, GET)).status == 200
        clock[0] = 1.4
        assert (await ask(box, GET)).headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("rate", "window", "count"), [(0.3, 9, 3), (0.25, 9, 2), (0.01, 1, 1), (40, 0.5, 20)]
)
async def test_a_window_holds_whole_calls_and_at_least_one(
    rate: float, window: float, count: int
) -> None:
    async with Sandbox(rate=rate, window=window, clock=lambda: 0.0) as box:
        assert await statuses(box, count + 1) == [200] * count + [429]


async def test_calls_without_a_token_have_no_limit() -> None:
    async with Sandbox(rate=0.5, clock=lambda: 0.0) as box:
        for _ in range(3):
            info = await ask(box, "POST /app/token_info", {"access_token": box.token}, token=None)
            assert info.status == 200
            page = await ask(box, "GET /authorize?client_id=x", token=None)
            assert (page.status, page.json["error"]) == (400, "invalid_request")
            token = await ask(box, "POST /oauth2/token", "grant_type=x", token=None)
            assert (token.status, token.json["error"]) == (401, "invalid_client")
        assert [(await ask(box, GET)).status for _ in range(2)] == [200, 429]


async def test_reports_are_limited_to_sixty_a_minute() -> None:
    clock = [0.0]
    async with Sandbox(clock=lambda: clock[0], conversations=0) as box:
        line = "POST /reports/conversations"
        body: dict[str, list[str]] = {"filters": [], "metrics": []}
        for i in range(60):
            clock[0] = i * 0.5
            assert (await ask(box, line, body)).status == 200
        refused = await ask(box, line, body)
        assert (refused.status, refused.headers["retry-after"]) == (429, "31")
        assert (await ask(box, GET)).status == 200
        clock[0] = 60.0
        assert (await ask(box, line, body)).status == 200
        assert (await ask(box, line, body)).status == 429


@pytest.mark.parametrize("window", [None, 2.0])
async def test_refusals_need_not_say_how_long_to_wait(window: float | None) -> None:
    box = Sandbox(
        rate=0.5,
        event_rate=0.5,
        window=window,
        retry_after=False,
        conversations=0,
        clock=lambda: 0.0,
    )
    async with box:
        for line in (GET, "POST /track", "POST /reports/conversations"):
            *passed, refused = [await ask(box, line, {}) for _ in range(61)]
            assert passed[0].status != 429
            assert (refused.status, "retry-after" in refused.headers) == (429, False)


async def test_seen_is_bounded_and_count_is_not() -> None:
    async with Sandbox(keep=3) as box:
        for i in range(5):
            await ask(box, f"GET /users/{i}")
        assert [one.raw_path for one in box.seen] == ["/users/2", "/users/3", "/users/4"]
        assert box.count == 5
        box.forget()
        assert (box.seen, box.count) == ([], 5)
