"""The authorization-code flow, as a browser and a bare client see it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest

from drift_async.sandbox import Sandbox
from tests.support.sandbox_wire import NOW, Answer, ask

pytestmark = pytest.mark.anyio

BACK = "http://127.0.0.1:1/back?a=1"
ASKED = {"response_type": "code", "client_id": "sandbox-client", "redirect_uri": BACK}
PAIR = {"client_id": "sandbox-client", "client_secret": "sandbox-secret"}
GET = "GET /contacts/15811400001"


async def authorize(box: Sandbox, **change: str | None) -> Answer:
    query = {key: value for key, value in {**ASKED, **change}.items() if value is not None}
    return await ask(box, f"GET /authorize?{urlencode(query)}", token=None)


async def code(box: Sandbox) -> str:
    location = (await authorize(box)).headers["location"]
    return dict(parse_qsl(location.partition("?")[2]))["code"]


async def token_call(box: Sandbox, **fields: str | None) -> Answer:
    form = {key: value for key, value in {**PAIR, **fields}.items() if value is not None}
    extra = "Content-Type: application/x-www-form-urlencoded\r\n"
    return await ask(box, "POST /oauth2/token", urlencode(form), token=None, extra=extra)


async def exchange(box: Sandbox, given: str, **fields: str) -> Answer:
    return await token_call(box, grant_type="authorization_code", code=given, **fields)


async def refresh(box: Sandbox, given: str) -> Answer:
    return await token_call(box, grant_type="refresh_token", refresh_token=given)


async def test_the_user_comes_back_with_code_and_state(box: Sandbox) -> None:
    answer = await authorize(box, state="a&b=ü +")
    assert (answer.status, answer.body) == (302, b"")
    assert answer.headers["location"] == f"{BACK}&code=sandbox-code-1&state={quote('a&b=ü')}+%2B"
    answer = await authorize(box, redirect_uri="https://a.example/x")
    assert answer.headers["location"] == "https://a.example/x?code=sandbox-code-2"


async def test_a_user_without_a_browser_is_sent_back_the_same_way(box: Sandbox) -> None:
    page = f"https://dev.drift.com/authorize?{urlencode({**ASKED, 'state': 'a&b'})}"
    back = box.agree(page)
    assert back == f"{BACK}&code=sandbox-code-1&state=a%26b"
    assert (await exchange(box, "sandbox-code-1", redirect_uri=BACK)).status == 200
    with pytest.raises(ValueError, match="client_id is not known"):
        box.agree(page.replace("sandbox-client", "other"))
    async with Sandbox(approve=False) as other:
        assert other.agree(page) == f"{BACK}&error=access_denied&state=a%26b"


async def test_a_code_becomes_tokens_that_work_and_end() -> None:
    now = [NOW]
    async with Sandbox(now=lambda: now[0], app_scopes=["contact_read"], lifetime=60) as box:
        answer = await exchange(box, await code(box), redirect_uri=BACK)
        assert answer.json == {
            "access_token": "sandbox-access-3",
            "refresh_token": "sandbox-refresh-2",
            "expires_in": 60,
            "token_type": "bearer",
            "orgId": 123_458,
        }
        assert answer.headers["cache-control"] == "no-store"
        access = answer.json["access_token"]
        info = await ask(box, "POST /app/token_info", {"access_token": access}, token=None)
        assert (info.json["scope"], info.json["expires_in"]) == ("contact_read", 60_000)
        assert (await ask(box, GET, token=access)).status == 200
        assert (await ask(box, "GET /users/list", token=access)).status == 403
        now[0] += 60
        assert (await ask(box, GET, token=access)).status == 401
        again = await refresh(box, answer.json["refresh_token"])
        assert (await ask(box, GET, token=again.json["access_token"])).status == 200
        assert (await ask(box, "GET /users/list", token=again.json["access_token"])).status == 403
    operations = [one.operation for one in box.seen if (one.operation or "").startswith("oauth")]
    assert operations == ["oauth.authorize_url", "oauth.exchange", "oauth.refresh"]


async def test_a_refresh_token_rotates(box: Sandbox) -> None:
    first = (await exchange(box, await code(box))).json
    second = (await refresh(box, first["refresh_token"])).json
    assert second["refresh_token"] != first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    refused = await refresh(box, first["refresh_token"])
    assert (refused.status, refused.json["error"]) == (400, "invalid_grant")
    for token in (first["access_token"], second["access_token"]):
        assert (await ask(box, GET, token=token)).status == 200
    box.revoke(second["refresh_token"])
    assert (await refresh(box, second["refresh_token"])).json["error"] == "invalid_grant"
    async with Sandbox(rotate=False) as box:
        first = (await exchange(box, await code(box))).json
        for _ in range(2):
            same = (await refresh(box, first["refresh_token"])).json
            assert same["refresh_token"] == first["refresh_token"]


async def test_tokens_can_be_ended_one_by_one(box: Sandbox) -> None:
    pairs = [(await exchange(box, await code(box))).json for _ in range(3)]
    expired, revoked, other = [pair["access_token"] for pair in pairs]
    box.expire(expired)
    box.revoke(revoked)
    codes = [(await ask(box, GET, token=one)).status for one in (expired, revoked, other)]
    assert codes == [401, 401, 200]
    with pytest.raises(ValueError, match="token"):
        box.expire("nobody")
    for name in ("expire", "revoke"):
        line = f"POST /_sandbox/tokens/{name}"
        assert (await ask(box, line, {"token": other}, token=None)).status == 204
        assert (await ask(box, line, {}, token=None)).status == 400
    assert (await ask(box, GET, token=other)).status == 401


async def test_an_uninstall_ends_the_whole_grant(box: Sandbox) -> None:
    pairs = [(await exchange(box, await code(box))).json for _ in range(2)]
    line = "POST /app/uninstall?clientId=sandbox-client&clientSecret=sandbox-secret"
    assert (await ask(box, line, token=pairs[0]["access_token"])).status == 200
    codes = [(await refresh(box, pair["refresh_token"])).status for pair in pairs]
    assert codes == [400, 200]


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"client_secret": "x"}, 401, "invalid_client"),
        ({"client_id": None}, 401, "invalid_client"),
        ({"grant_type": None}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"code": None}, 400, "invalid_request"),
        ({"code": "sandbox-code-9"}, 400, "invalid_grant"),
        ({"redirect_uri": "https://b.example"}, 400, "invalid_grant"),
        ({"grant_type": "refresh_token"}, 400, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, 400, "invalid_grant"),
    ],
)
async def test_the_token_call_refuses_as_oauth_has_it(
    box: Sandbox, change: dict[str, str | None], status: int, error: str
) -> None:
    good: dict[str, Any] = {"grant_type": "authorization_code", "code": await code(box)}
    answer = await token_call(box, **{**good, **change})
    assert (answer.status, answer.json["error"]) == (status, error)
    assert answer.json.keys() == {"error", "error_description"}
    assert not box.seen[-1].applied


@pytest.mark.parametrize("body", ["", "{", "[]", b"\xff", "grant_type=a&grant_type=a"])
async def test_a_token_call_without_a_form_is_an_invalid_request(
    box: Sandbox, body: str | bytes
) -> None:
    answer = await ask(box, "POST /oauth2/token", body, token=None)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")


async def test_a_code_works_once_within_ten_minutes() -> None:
    now = [NOW]
    async with Sandbox(now=lambda: now[0]) as box:
        first, second = await code(box), await code(box)
        assert (await exchange(box, first)).status == 200
        assert (await exchange(box, first)).json["error"] == "invalid_grant"
        now[0] += 600
        assert (await exchange(box, second)).json["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": "x"},
        {"redirect_uri": None},
        {"redirect_uri": "/back"},
        {"redirect_uri": "javascript:x"},
        {"redirect_uri": "https://a.example/\r\nSet-Cookie: a=b"},
    ],
)
async def test_nobody_is_sent_to_a_place_that_is_not_right(
    box: Sandbox, change: dict[str, str | None]
) -> None:
    answer = await authorize(box, **change)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")


async def test_a_refusal_comes_back_as_an_error() -> None:
    async with Sandbox(approve=False) as box:
        location = (await authorize(box, state="s")).headers["location"]
        assert location == f"{BACK}&error=access_denied&state=s"
        location = (await authorize(box, response_type="token")).headers["location"]
        assert location == f"{BACK}&error=unsupported_response_type"


async def test_faults_reach_the_two_token_calls_apart(box: Sandbox) -> None:
    box.fail("oauth.refresh", status=500)
    box.fail("oauth.exchange", status=503)
    given = await code(box)
    assert [(await exchange(box, given)).status for _ in range(2)] == [503, 200]
    assert [(await refresh(box, "sandbox-refresh-2")).status for _ in range(2)] == [500, 200]
