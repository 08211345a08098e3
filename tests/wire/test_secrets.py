"""Neither secrets nor personal data get out by errors, tracebacks, logs, reprs or pickles."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import pprint
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.pretty import pretty_repr

import drift_async
import drift_async.sync
from drift_async import (
    Contact,
    DriftError,
    InputError,
    Retry,
    ScimUser,
    Secret,
    Token,
    TokenInfo,
    from_json,
)
from tests.support.flavours import Awaitable
from tests.support.operations import EXPECTED
from tests.support.planted import (
    BODY,
    CALLS,
    CLIENT_SECRET,
    EMAIL,
    NAME,
    OTHER_TOKEN,
    PHONE,
    TOKEN,
    VALUE,
    call,
    found,
    leaks,
)
from tests.support.server import Answer, Got, Server, reply

SECRETS = f"{TOKEN} {CLIENT_SECRET} {OTHER_TOKEN}"
ECHO = json.dumps({"data": {EMAIL: NAME, "phone": PHONE, "body": BODY, "plan": [VALUE, SECRETS]}})


def refusal(n: int, got: Got) -> bytes:
    """Answer 401, and repeat the credentials of the request."""
    words = " ".join(secret for secret in SECRETS.split() if secret in str(got))
    body = {"error": {"type": words, "message": f"bad credentials: {words}"}}
    return reply(json.dumps(body).encode(), "401 Unauthorized")


FAILURES: Mapping[str, Answer] = {
    "401": refusal,
    "500": reply(f"<p>/?email={EMAIL.replace('@', '%40')} {PHONE} {SECRETS}".encode(), "500 Oops"),
    "lost": None,
    "stalled": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    "garbage": f"{EMAIL} {NAME} {PHONE} {BODY} {SECRETS}\r\n\r\n".encode(),
    "broken": reply(ECHO[:-1].encode()),
}
# Operations that make nothing of the body of a 2xx reply, or whose result it is.
TAKES_ANY = {"conversations.transcript", "conversations.attachment", "scim.delete"}


async def outcome(drift: Any, name: str) -> BaseException | None:
    try:
        await call(drift, name)
    except (DriftError, TimeoutError) as error:
        return error
    return None


def test_every_operation_is_called() -> None:
    token_calls = {f"oauth.{name}" for name in ("authorize_url", "exchange", "refresh")}
    assert CALLS.keys() | token_calls >= EXPECTED.keys()


@pytest.mark.anyio
@pytest.mark.parametrize("failure", FAILURES)
async def test_no_failure_of_any_call_shows_what_is_not_to_be_shown(
    make: Any, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    heard: list[Any] = []
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    settings: dict[str, Any] = {
        "retry": Retry(attempts=2, base=0),
        "attempt_timeout": 0.05 if failure == "stalled" else 30,
        "tracer_provider": provider,
        **dict.fromkeys(("on_request", "on_response", "on_retry"), heard.append),
    }
    async with (
        Server(FAILURES[failure]) as server,
        make(TOKEN, base_url=server.url, **settings) as drift,
    ):
        errors = await asyncio.gather(*(outcome(drift, name) for name in CALLS))
    for name, error in zip(CALLS, errors, strict=True):
        if failure == "broken" and name in TAKES_ANY:
            assert error is None, name
        else:
            assert isinstance(error, DriftError), name
            assert leaks(error) == [], name
    assert found(*(vars(record) for record in caplog.records), caplog.text) == []
    assert found(*map(attrs.asdict, heard)) == []
    assert found(*(span.to_json() for span in spans.get_finished_spans())) == []
    assert len(heard) > len(spans.get_finished_spans()) >= len(CALLS)


@pytest.mark.anyio
async def test_a_call_that_is_cancelled_leaves_nothing_in_its_frames(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        Server(FAILURES["stalled"]) as server,
        drift_async.Drift(TOKEN, base_url=server.url) as drift,
    ):
        for name in CALLS:
            before = len(server.got)
            work = asyncio.ensure_future(call(drift, name))
            while len(server.got) == before:  # noqa: ASYNC110  # it has no event to wait for
                await asyncio.sleep(0)
            work.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await work
            assert leaks(caught.value) == [], name
    assert found(caplog.text) == []


@pytest.mark.anyio
async def test_a_call_whose_client_is_closed_leaves_nothing_in_its_frames(make: Any) -> None:
    for name in CALLS:
        async with Server(FAILURES["stalled"]) as server:
            drift = make(TOKEN, base_url=server.url)
            await drift.open()
            work = asyncio.ensure_future(call(drift, name))
            while not server.got:  # noqa: ASYNC110  # it has no event to wait for
                await asyncio.sleep(0)
            await drift.close()
            with pytest.raises(DriftError) as caught:
                await work
            assert leaks(caught.value) == [], name


STRANGE: Any = VALUE


@pytest.mark.anyio
@pytest.mark.parametrize("failure", [*FAILURES, "bad-input"])
async def test_no_failure_of_a_token_call_shows_its_secrets(
    face: str, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    limit = 0.05 if failure == "stalled" else 30
    token = from_json(Token, {"access_token": TOKEN, "refresh_token": OTHER_TOKEN})
    async with Server(FAILURES.get(failure)) as server:
        kind = drift_async.OAuth if face == "awaited" else blocking(drift_async.sync.OAuth)
        url = f"{server.url}/?state=s&code={VALUE}"
        async with kind("id", CLIENT_SECRET, base_url=server.url, attempt_timeout=limit) as oauth:
            calls: list[Callable[[], Any]] = [
                lambda: oauth.exchange(VALUE, redirect_uri=f"https://{VALUE}.example"),
                lambda: oauth.refresh(token),
            ]
            if failure == "bad-input":
                calls = [
                    lambda: oauth.exchange(f"{VALUE}\n"),
                    lambda: oauth.refresh(STRANGE),
                    lambda: oauth.code_from(url, state=VALUE),
                    lambda: oauth.code_from(VALUE, state=f"{VALUE}\ud800"),
                ]
            for made in calls:
                with pytest.raises(DriftError) as caught:
                    await made()
                assert leaks(caught.value) == []
            assert found(*printed(oauth), *printed(oauth.auth(token)), *printed(token)) == []
        assert bool(server.got) is (failure != "bad-input")
    assert found(*(vars(record) for record in caplog.records), caplog.text) == []


def blocking(kind: Any) -> Any:
    return lambda *args, **kwargs: Awaitable(kind(*args, **kwargs))


BAD: Mapping[str, Any] = {
    "contacts.create": lambda d: d.contacts.create(f"{EMAIL}\ud800"),
    "contacts.update": lambda d: d.contacts.update(7, {"plan": [VALUE, f"{VALUE}\ud800"]}),
    "contacts.update-null": lambda d: d.contacts.update(7, {"name": NAME, "plan": None}),
    "contacts.unsubscribe": lambda d: d.contacts.unsubscribe([EMAIL, f"{EMAIL}\n"]),
    "accounts.get": lambda d: d.accounts.get(f"{VALUE}\n"),
    "conversations.messages": lambda d: d.conversations.messages(VALUE).collect(),
    "conversations.all": lambda d: d.conversations.all(resume=VALUE).collect(),
    "scim.create": lambda d: d.scim.create(ScimUser(user_name=EMAIL, display_name=" ")),
    "scim.create-type": lambda d: d.scim.create(ScimUser(user_name=EMAIL, name=STRANGE)),
    "app.token_info": lambda d: d.app.token_info(f"{OTHER_TOKEN}\n"),
    "app.uninstall": lambda d: d.app.uninstall("x", f"{CLIENT_SECRET}\ud800"),
    "users.update": lambda d: d.users.update(7, name=NAME, phone=VALUE),
    "request": lambda d: d.request("POST", "/x", json={"a": {VALUE: f"{VALUE}\ud800"}}),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_refused_without_showing_it(make: Any, name: str) -> None:
    async with Server() as server, make(TOKEN, base_url=server.url) as drift:
        with pytest.raises((InputError, drift_async.CursorError)) as caught:
            await BAD[name](drift)
        # Keys are part of the path that names the fault.
        assert leaks(caught.value, but=f"json.a.{VALUE}" if name == "request" else "") == []
        assert server.got == []


@pytest.mark.parametrize("module", [drift_async, drift_async.sync], ids=lambda m: m.__name__)
def test_a_bad_setting_is_refused_without_showing_it(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad: tuple[dict[str, Any], ...] = (
        {"token": f"{TOKEN}\n"},
        {"token": TOKEN, "base_url": f"https://user:{VALUE}@driftapi.com"},
        {"token": TOKEN, "proxy": f"http://user:{VALUE}\ud800@x"},
        {"token": TOKEN, "timeout": -1},
    )
    for settings in bad:
        with pytest.raises(InputError) as caught:
            module.Drift(**settings)
        assert leaks(caught.value) == []
        monkeypatch.setenv("DRIFT_TOKEN", settings.pop("token"))
        with pytest.raises(InputError) as caught:
            module.Drift.from_env(**settings)
        assert leaks(caught.value) == []


def test_json_that_does_not_fit_is_refused_without_showing_it() -> None:
    for value in (VALUE, [VALUE], {"id": VALUE}, {"id": 7, "attributes": [VALUE]}):
        with pytest.raises(InputError) as caught:
            from_json(Contact, value)
        assert leaks(caught.value) == []


# -- proxies


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [reply(b"", "407 Who"), None, b"x\r\n\r\n", "dead"])
async def test_the_credentials_of_a_proxy_are_sent_to_it_and_shown_nowhere(
    make: Any, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Server(None if answer == "dead" else answer) as server:
        place = f"127.0.0.1:{9 if answer == 'dead' else server.port}"
        proxy, retry = f"http://planted-user:{VALUE}@{place}", Retry(attempts=1)
        for base_url in ("https://driftapi.com", "http://localhost:9"):
            async with make(TOKEN, base_url=base_url, proxy=proxy, retry=retry) as drift:
                with pytest.raises(DriftError) as caught:
                    await drift.contacts.get(7)
                assert leaks(caught.value) == []
                assert found(*printed(drift)) == []
        if answer != "dead":
            sent = {got.headers.get("proxy-authorization") for got in server.got}
            assert sent == {"Basic cGxhbnRlZC11c2VyOnBsYW50ZWQtYXR0cmlidXRlLXZhbHVl"}
            (tunnel,) = (got for got in server.got if got.method == "CONNECT")
            assert TOKEN not in str(tunnel), "the token is for the other end"
    assert found(caplog.text) == []


def printed(value: Any) -> list[str]:
    """Return a value in every form in which programs print values."""
    forms = [repr(value), str(value), f"{value}", f"{value!a}", "%s %r" % (value, value)]  # noqa: UP031
    forms += [pprint.pformat([value]), pretty_repr(value), pretty_repr([value], expand_all=True)]
    forms += [
        repr({"key": value}),
        logging.LogRecord("", 0, "", 0, "%s", (value,), None).getMessage(),
    ]
    if attrs.has(type(value)):
        forms += [repr(attrs.asdict(value)), repr(attrs.astuple(value))]
    if hasattr(value, "__dict__"):
        forms.append(repr(vars(value)))
    return forms


# -- what is kept

PICKLES: tuple[Any, ...] = tuple(
    lambda value, protocol=protocol: pickle.dumps(value, protocol)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
)


@pytest.mark.anyio
async def test_a_client_shows_no_secret_open_or_closed(face: str) -> None:
    module: Any = drift_async if face == "awaited" else drift_async.sync
    drift = module.Drift(TOKEN, proxy=f"http://user:{VALUE}@127.0.0.1:9")
    core = getattr(drift, "_core", drift)
    for _ in range(2):
        session = core._caller.state.session
        kept = [drift, drift.with_options(timeout=5), drift.app, core._caller, session]
        assert found(*(text for one in kept for text in printed(one))) == []
        pager = drift.scim.all(filter=f'userName eq "{EMAIL}"')
        assert found(repr(pager), repr(pager.pages()), pretty_repr(pager)) == []
        if session is not None:
            assert found(repr(session._http), session._http.headers) == []
        if face == "awaited":
            await drift.open()
        else:
            await asyncio.to_thread(drift.open)
    await (drift.close() if face == "awaited" else asyncio.to_thread(drift.close))


def test_a_secret_is_masked_and_stays_in_the_process() -> None:
    secret = Secret(TOKEN)
    assert found(*printed(secret), f"{secret:>60}", f"{secret!s:.9}") == []
    for refused in (copy.copy, copy.deepcopy, json.dumps, hash, vars, *PICKLES):
        with pytest.raises(TypeError) as caught:
            refused(secret)
        assert leaks(caught.value) == []


def test_a_token_information_is_masked_and_stays_in_the_process() -> None:
    info = from_json(TokenInfo, {"access_token": TOKEN, "expires_in": 0, "new": 1})
    assert found(*printed(info), *printed(copy.copy(info))) == []
    for refused in (copy.deepcopy, json.dumps, hash, *PICKLES):
        with pytest.raises(TypeError) as caught:
            refused(info)
        assert leaks(caught.value) == []
    assert drift_async.to_json(info) == {"access_token": TOKEN, "expires_in": 0, "new": 1}


def test_a_secret_equals_its_like_and_does_not_change() -> None:
    secret = Secret(TOKEN)
    assert secret == Secret(TOKEN)
    assert secret != Secret(TOKEN + "x")
    assert secret != TOKEN
    assert secret.reveal() == TOKEN
    assert Secret("\ud800") == Secret("\ud800")
    for name in ("_text", "text"):
        with pytest.raises(AttributeError):
            setattr(secret, name, "")
