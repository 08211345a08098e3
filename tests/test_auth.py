"""The OAuth client: consent page, token calls, their errors, and what they show, on both faces."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import attrs
import pytest
from hypothesis import given, settings, strategies as st

import drift_async
import drift_async.sync
from drift_async import (
    ClosedError,
    CredentialsError,
    DecodeError,
    DriftError,
    InputError,
    OAuth,
    OutcomeUnknownError,
    Retry,
    Secret,
    ServerError,
    Token,
    from_json,
    to_json,
)
from drift_async.auth import REFRESH
from drift_async.core.request import Response
from drift_async.core.strict_json import dumps
from drift_async.sandbox import Sandbox
from drift_async.tokens import completed
from tests.support.consent import (
    BACK,
    SOMEBODY,
    agree,
    app_of,
    given_out,
    granted,
    made,
    operations,
)
from tests.support.errors import told
from tests.support.server import Answer, Got, Server, reply

pytestmark = pytest.mark.anyio

FACES = [drift_async.OAuth, drift_async.sync.OAuth]
CLIENT_SECRET = "planted-client-secret-0815"
REFRESH_TOKEN = "planted-refresh"
CODE = "planted-code"
ACCESS_TOKEN = "planted-access"
PLANTED = (CLIENT_SECRET, REFRESH_TOKEN, CODE, ACCESS_TOKEN)


# -- from the consent page to a call


@pytest.mark.smoke
async def test_from_the_consent_page_to_a_call(make: Any, make_oauth: Any, box: Sandbox) -> None:
    async with app_of(box, make_oauth) as oauth:
        location = await agree(box, oauth.authorize_url("a state", redirect_uri=BACK))
        code = oauth.code_from(location, state="a state")
        box.forget()
        token = await oauth.exchange(code, redirect_uri=BACK)
        async with make(auth=oauth.auth(token), base_url=box.url) as drift:
            assert (await drift.contacts.get(SOMEBODY)).id == SOMEBODY
    assert (token.org_id, token.token_type, token.expires_in) == (box.org_id, "bearer", 7200)
    assert operations(box) == ["oauth.exchange", "contacts.get"]


async def test_a_token_call_is_a_form_without_authorization(make_oauth: Any, box: Sandbox) -> None:
    token = await granted(box)
    async with app_of(box, make_oauth) as oauth:
        with pytest.raises(CredentialsError):
            await oauth.exchange("a+b&c=d/e")
        await oauth.refresh(token)
    exchange, refresh = box.seen
    refresh_token = to_json(token)["refresh_token"]
    assert exchange.body == (
        b"client_id=sandbox-client&client_secret=sandbox-secret"
        b"&code=a%2Bb%26c%3Dd%2Fe&grant_type=authorization_code"
    )
    assert refresh.body == (
        b"client_id=sandbox-client&client_secret=sandbox-secret"
        b"&refresh_token=" + refresh_token.encode() + b"&grant_type=refresh_token"
    )
    for one in box.seen:
        headers = {name.lower(): value for name, value in one.headers}
        assert headers["content-type"] == "application/x-www-form-urlencoded"
        assert "authorization" not in headers
        assert (one.method, one.raw_path) == ("POST", "/oauth2/token")


@pytest.mark.parametrize("kind", FACES)
def test_the_address_of_the_consent_page(kind: Any) -> None:
    address = urlsplit(kind("an id", "secret").authorize_url("s&ü", redirect_uri=BACK))
    assert address._replace(query="").geturl() == "https://dev.drift.com/authorize"
    assert parse_qsl(address.query) == [
        ("response_type", "code"),
        ("client_id", "an id"),
        ("redirect_uri", BACK),
        ("state", "s&ü"),
    ]
    with pytest.raises(InputError, match="state"):
        kind("an id", "secret").authorize_url("", redirect_uri=BACK)
    with pytest.raises(InputError, match="redirect_uri"):
        kind("an id", "secret").authorize_url("state", redirect_uri="")


@pytest.mark.parametrize("kind", FACES)
@pytest.mark.parametrize(
    "url",
    [
        f"{BACK}?code=c-1&state=s%26t",
        f"{BACK}?state=s%26t&code=c-1#there",
        f"{BACK}?a=1&code=c-1?state=s%26t",  # as the documentation's sample has it
        "/back?code=c-1&state=s%26t",
    ],
)
def test_the_code_is_read_off_the_address_that_the_user_comes_back_to(kind: Any, url: str) -> None:
    code = kind("id", "secret").code_from(url, state="s&t")
    assert code.reveal() == "c-1"
    assert "c-1" not in repr(code)


@pytest.mark.parametrize("kind", FACES)
@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        (f"{BACK}?code=c-1&state=other", InputError, "state"),
        (f"{BACK}?code=c-1", InputError, "state"),
        (f"{BACK}#code=c-1&state=s", InputError, "state"),
        (f"{BACK}?state=s", InputError, "url"),
        (f"{BACK}?state=s&code=", InputError, "url"),
        (f"{BACK}?state=s&code=c%0A1", InputError, "code"),
        (f"{BACK}?error=access_denied&state=s", CredentialsError, "did not agree"),
        (f"{BACK}?error=access_denied&state=other", InputError, "state"),
        ("", InputError, "url"),
    ],
)
def test_who_comes_back_without_a_code_for_this_session_is_refused(
    kind: Any, url: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        kind("id", "secret").code_from(url, state="s")
    assert "c-1" not in str(caught.value)
    assert "other" not in str(caught.value)


async def test_a_user_who_does_not_agree(make_oauth: Any) -> None:
    async with Sandbox(approve=False) as box, app_of(box, make_oauth) as oauth:
        location = await agree(box, oauth.authorize_url("s", redirect_uri=BACK))
        with pytest.raises(CredentialsError, match="did not agree"):
            oauth.code_from(location, state="s")


# -- tokens


WHOLE = {
    "access_token": ACCESS_TOKEN,
    "refresh_token": REFRESH_TOKEN,
    "expires_in": 7200,
    "expires_at": 1_800_000_000_123,
    "token_type": "bearer",
    "orgId": 123,
    "scope": "contact_read user_read",
    "new": {"x": None},
}


def test_a_token_is_whole_in_json_and_nowhere_else() -> None:
    token: Any = from_json(Token, WHOLE)
    assert to_json(token) == WHOLE
    assert from_json(Token, json.loads(json.dumps(to_json(token)))) == token
    assert token.scopes == {"contact_read", "user_read"}
    assert token.expires_at == datetime.fromtimestamp(1_800_000_000.123, UTC)
    printed = [
        repr(token),
        str(token),
        f"{token}",
        format(token, ""),
        "%s %r" % (token, token),  # noqa: UP031  # one of the ways
        repr([token]),
        repr({"token": token}),
        repr(attrs.asdict(token)),
        repr(attrs.astuple(token)),
        repr([getattr(token, field.name) for field in attrs.fields(type(token))]),
        repr(ValueError(token)),
    ]
    for text in printed:
        assert ACCESS_TOKEN not in text
        assert REFRESH_TOKEN not in text


def test_a_token_does_not_pickle_nor_copy_through_pickle() -> None:
    token = from_json(Token, WHOLE)
    for way in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            way(token)
    with pytest.raises(TypeError):
        hash(token)
    with pytest.raises(AttributeError):
        token.org_id = 7  # type: ignore[misc]


def test_a_token_made_of_plain_texts_is_masked_like_any() -> None:
    kind: Any = Token
    token = kind(access_token=ACCESS_TOKEN, refresh_token=REFRESH_TOKEN)
    assert token == made(ACCESS_TOKEN, REFRESH_TOKEN)
    assert type(token.access_token) is type(token.refresh_token) is Secret
    assert OAuth("id", "secret").auth(token).secret.reveal() == ACCESS_TOKEN
    for bad in ({"access_token": 7}, {"refresh_token": 7}, {"refresh_token": b"x"}):
        fields = {"access_token": ACCESS_TOKEN, "refresh_token": REFRESH_TOKEN, **bad}
        with pytest.raises(InputError, match="token"):
            OAuth("id", "secret").auth(kind(**fields))


REPLIES = {
    "as documented": (given_out("a", "r", expires_in=60, orgId=1), ("a", "r", 60, 1)),
    "older": (b'{"accessToken": "a", "refreshToken": "r", "orgId": 1}', ("a", "r", None, 1)),
    "both": (b'{"access_token": "a", "accessToken": "b"}', ("a", "old-r", None, 5)),
    "no rotation": (given_out("a", expires_in=60), ("a", "old-r", 60, 5)),
    "null": (b'{"access_token": "a", "refresh_token": null}', ("a", "old-r", None, 5)),
    "empty": (given_out("a", ""), ("a", "old-r", None, 5)),
    "numbers as text": (given_out("a", "r", expires_in="60", orgId="1"), ("a", "r", 60, 1)),
    "wrong types": (given_out("a", "r", expires_in=[], orgId={}, scope=5), ("a", "r", None, 5)),
    "no end": (given_out("a", "r", expires_in=0), ("a", "r", 0, 5)),
    "endless": (given_out("a", "r", expires_in=10**15), ("a", "r", 10**15, 5)),
    "long text": (given_out("a", "r", expires_in="9" * 5000), ("a", "r", None, 5)),
}


@pytest.mark.parametrize(("body", "wanted"), REPLIES.values(), ids=REPLIES)
async def test_whatever_comes_with_it_a_new_token_is_not_lost(
    make_oauth: Any, body: bytes, wanted: tuple[Any, ...]
) -> None:
    old = made("old-a", "old-r", orgId=5, scope="contact_read", expires_in=1, expires_at=1)
    async with (
        Server(reply(body)) as server,
        make_oauth("id", "secret", base_url=server.url) as oauth,
    ):
        token = await oauth.refresh(old)
    data = to_json(token)
    found = tuple(data.get(key) for key in ("access_token", "refresh_token"))
    assert (*found, token.expires_in, token.org_id) == wanted
    assert token.scope == "contact_read"
    assert (token.expires_at is not None) == (token.expires_in == 60)


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | st.integers() | FLOATS | st.text(max_size=9)
JSON = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(max_size=9), PLAIN, max_size=3)
NAMES = ["expires_in", "expires_at", "orgId", "token_type", "scope", "accessToken", "id", "extra"]


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=9), JSON, max_size=6))
def test_nothing_beside_it_loses_a_token(beside: dict[str, Any]) -> None:
    body = dumps({**beside, "access_token": "a", "refresh_token": "r"})
    token = REFRESH.parse(Response(200, {}, completed(body, made(), 1e9)))
    assert (token.access_token, token.refresh_token) == (Secret("a"), Secret("r"))
    assert from_json(Token, to_json(token)) == token


async def test_the_end_of_a_token_is_reckoned_from_before_it_was_asked_for() -> None:
    times = iter([1_000_000.25])
    async with Server(reply(given_out("a", "r", expires_in=60))) as server:
        oauth = OAuth("id", "secret", base_url=server.url)
        oauth._now = lambda: next(times)
        async with oauth:
            token = await oauth.refresh(made())
    assert token.expires_at == datetime.fromtimestamp(1_000_060.25, UTC)


# -- errors


async def test_a_refusal_is_credentials_error_and_is_not_tried_again(
    make_oauth: Any, box: Sandbox
) -> None:
    async with app_of(box, make_oauth) as oauth:
        with pytest.raises(
            CredentialsError, match=r"^POST /oauth2/token: 400 invalid_grant \(the code"
        ) as caught:
            await oauth.exchange("used")
        assert caught.value.applied is False
        with pytest.raises(CredentialsError, match="400 invalid_grant"):
            await oauth.refresh(made())
        assert operations(box) == ["oauth.exchange", "oauth.refresh"]
    async with make_oauth(box.client_id, "wrong", base_url=box.url) as oauth:
        with pytest.raises(CredentialsError, match="401 invalid_client"):
            await oauth.exchange("code")


async def test_a_lost_reply_is_not_repeated_and_says_what_to_do(
    make_oauth: Any, box: Sandbox
) -> None:
    box.fail("*", cut="after", times=None)
    async with app_of(box, make_oauth) as oauth:
        with pytest.raises(OutcomeUnknownError, match="consent page again"):
            await oauth.exchange("code")
        with pytest.raises(OutcomeUnknownError, match="refresh again"):
            await oauth.refresh(made())
    assert len(box.seen) == 2


async def test_what_was_not_applied_is_repeated(make_oauth: Any, box: Sandbox) -> None:
    token = await granted(box)
    box.fail("oauth.refresh", status=503, times=2)
    retry = Retry(throttled_base=0)
    async with app_of(box, make_oauth, retry=retry) as oauth:
        assert (await oauth.refresh(token)).org_id == box.org_id
    box.fail("oauth.refresh", status=500)
    async with app_of(box, make_oauth, retry=retry) as oauth:
        with pytest.raises(ServerError) as caught:
            await oauth.refresh(token)
    assert (caught.value.attempts, len(box.seen)) == (1, 4)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[]", "expected map, got list at $"),
        (b"", "an empty body, not JSON (0 bytes) at $"),
        (b"<html>", "not JSON (6 bytes) at $"),
        (b"{}", "required field access_token missing at $.access_token"),
        (b'{"access_token": 5}', "expected str, got int at $.access_token"),
        (b'{"access_token": "a\\r\\nb"}', "not fit for a header at $.access_token"),
        (b'{"access_token": ""}', "not fit for a header at $.access_token"),
    ],
)
async def test_a_reply_without_a_token_is_an_error(make_oauth: Any, body: bytes, says: str) -> None:
    async with (
        Server(reply(body)) as server,
        make_oauth("id", "secret", base_url=server.url) as oauth,
    ):
        with pytest.raises(DecodeError) as caught:
            await oauth.exchange("code")
    assert str(caught.value) == f"POST /oauth2/token: {says}"
    assert caught.value.applied is True


async def test_it_has_the_life_of_all_clients(make_oauth: Any, box: Sandbox) -> None:
    oauth = app_of(box, OAuth)
    with pytest.raises(ClosedError):
        await oauth.exchange("code")
    oauth = app_of(box, make_oauth)
    for _ in range(2):
        await oauth.open()
        with pytest.raises(CredentialsError):
            await oauth.exchange("code")
        await oauth.close()
    with pytest.raises(ClosedError):
        await oauth.exchange("code")


# -- settings


@pytest.mark.parametrize("kind", FACES)
@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("client_id", {"client_id": ""}),
        ("client_secret", {"client_secret": "two words"}),
        ("client_secret", {"client_secret": None}),
        ("base_url", {"base_url": "http://drift.example"}),
        ("authorize_base_url", {"authorize_base_url": "http://drift.example"}),
        ("timeout", {"timeout": 0}),
    ],
)
def test_bad_settings_are_refused(kind: Any, field: str, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        kind(**{"client_id": "id", "client_secret": "secret", **settings})
    assert caught.value.field == field


@pytest.mark.parametrize("kind", FACES)
def test_what_cannot_be_renewed_is_refused(kind: Any) -> None:
    oauth = kind("id", "secret")
    for bad in ("token", made(refresh=None)):
        with pytest.raises(InputError, match="token"):
            oauth.auth(bad)
    with pytest.raises(InputError, match="access_token"):
        oauth.auth(made("two words"))
    with pytest.raises(InputError, match="on_refresh"):
        oauth.auth(made(), on_refresh="save")


@pytest.mark.parametrize("kind", [drift_async.Drift, drift_async.sync.Drift])
def test_a_client_takes_a_token_or_auth(kind: Any) -> None:
    auth = OAuth("id", "secret").auth(made())
    with pytest.raises(InputError, match="not both"):
        kind("token", auth=auth)
    with pytest.raises(InputError, match=r"auth: must be what OAuth\.auth"):
        kind(auth=made())
    assert "driftapi" in repr(kind.from_env({"DRIFT_TOKEN": "from-env"}, auth=auth))


@pytest.mark.parametrize("kind", FACES)
async def test_settings_from_the_environment(kind: Any, box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(box.client_secret + "\n")
    env = {
        "DRIFT_CLIENT_ID": box.client_id,
        "DRIFT_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
        "DRIFT_BASE_URL": box.url,
        "DRIFT_AUTHORIZE_BASE_URL": box.url,
    }
    assert "other.example" in repr(kind.from_env(env, base_url="https://other.example"))
    oauth = kind.from_env(env)
    location = await agree(box, oauth.authorize_url("s", redirect_uri=BACK))
    code = oauth.code_from(location, state="s")
    if kind is OAuth:
        async with oauth:
            assert (await oauth.exchange(code)).org_id == box.org_id
    else:
        assert (await asyncio.to_thread(oauth.exchange, code)).org_id == box.org_id
        await asyncio.to_thread(oauth.close)


@pytest.mark.parametrize("kind", FACES)
@pytest.mark.parametrize(
    ("env", "hint"),
    [
        ({}, "DRIFT_CLIENT_ID"),
        ({"DRIFT_CLIENT_ID": "id"}, "DRIFT_CLIENT_SECRET"),
        ({"DRIFT_CLIENT_ID": "id", "DRIFT_CLIENT_SECRET_FILE": "/nonexistent/x"}, "cannot be read"),
    ],
)
def test_what_the_environment_lacks_is_told_when_it_is_needed(
    kind: Any, env: dict[str, str], hint: str
) -> None:
    oauth = kind.from_env(env)
    with pytest.raises(CredentialsError, match=hint):
        oauth.authorize_url("state", redirect_uri=BACK)
    if kind is drift_async.sync.OAuth:
        with pytest.raises(CredentialsError, match=hint):
            oauth.open()
    else:
        with pytest.raises(CredentialsError, match=hint):
            oauth.open().send(None)


# -- nothing shows


def echo(status: str) -> Callable[[int, Got], bytes]:
    """Answer with all that was sent, as OAuth's kind of error."""

    def answer(_: int, got: Got) -> bytes:
        sent = " and ".join(dict(parse_qsl(got.body.decode())).values())
        body = {"error": sent[:64], "error_description": sent}
        return reply(json.dumps(body).encode(), status, Location=f"//{sent[-20:]}/{sent}")

    return answer


BREAKS: Mapping[str, Answer] = {
    "cut": None,
    "garbage": b"Bearer " + CODE.encode() + b"\r\n\r\n",
    "refused": echo("400 Bad Request"),
    "denied": echo("401 Unauthorized"),
    "broken": echo("500 Oh"),
    "redirect": echo("302 Found"),
    "no-json": reply(b'{"access_token": "' + ACCESS_TOKEN.encode()),
    "no-token": reply(given_out(ACCESS_TOKEN).replace(b"access_token", b"token")),
    "bad-token": reply(given_out(ACCESS_TOKEN + " ")),
    "short": reply(given_out(ACCESS_TOKEN, REFRESH_TOKEN))[:-1],
}
CALLS: Mapping[str, Callable[[Any], Any]] = {
    "exchange": lambda oauth: oauth.exchange(Secret(CODE)),
    "refresh-of-texts": lambda oauth: oauth.refresh(
        cast(Any, Token)(access_token=ACCESS_TOKEN, refresh_token=REFRESH_TOKEN)
    ),
    "refresh": lambda oauth: oauth.refresh(made(ACCESS_TOKEN, REFRESH_TOKEN)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("answer", BREAKS.values(), ids=BREAKS)
async def test_no_error_log_or_traceback_with_locals_tells_a_secret(
    make_oauth: Any,
    call: Callable[[Any], Any],
    answer: Answer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    heard: list[Any] = []
    hooks = dict.fromkeys(("on_request", "on_response", "on_retry"), heard.append)
    secret = Secret(CLIENT_SECRET)
    async with (
        Server(answer) as server,
        make_oauth("id", secret, base_url=server.url, attempt_timeout=0.2, **hooks) as oauth,
    ):
        with pytest.raises(DriftError) as caught:
            await call(oauth)
        said = told(caught.value, with_locals=True) + pickle.dumps(caught.value).decode("latin-1")
        said += caplog.text + repr(heard) + repr(oauth)
    assert heard
    for planted in PLANTED:
        assert planted not in said


async def test_neither_does_one_of_a_client_that_is_closed_or_late(
    make_oauth: Any, face: str
) -> None:
    oauth = make_oauth("id", Secret(CLIENT_SECRET), timeout=0.1)
    await oauth.open()
    await oauth.close()
    with pytest.raises(ClosedError) as caught:
        await CALLS["exchange"](oauth)
    said = told(caught.value, with_locals=True)
    rate = drift_async.Rate(0.001)
    async with (
        Server(reply(given_out(ACCESS_TOKEN))) as server,
        make_oauth("id", Secret(CLIENT_SECRET), timeout=0.1, base_url=server.url, rate=rate) as one,
    ):
        await CALLS["exchange"](one)
        with pytest.raises(drift_async.DeadlineError) as late:
            await CALLS["exchange"](one)
    said += told(late.value, with_locals=True)
    assert not [planted for planted in PLANTED if planted in said]
