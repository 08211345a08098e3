"""What an error says: its class, whether the request was applied, why it was not tried again."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any

import aiohttp
import pytest

import drift_async
from drift_async import Rate, Retry, Secret, errors
from drift_async.errors import CallInfo, error_from_response
from drift_async.sandbox import Sandbox
from tests.support.errors import told
from tests.support.flavours import core
from tests.support.server import Got, Server, dead_url, reply

AT_ONCE = Retry(base=0, throttled_base=0)
TOKEN = "drift-secret-token-0123456789abcdefghijklmnop"
SECRET = "client-secret-0123456789abcdefghijklmnopqrst"
OTHER_TOKEN = "drift-other-token-9876543210ponmlkjihgfedcba"
EMAIL = "ada.lovelace@private.example"
CALLS: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "safe": ("contacts.get", (15_811_400_007,)),
    "idempotent": ("contacts.update", (15_811_400_007, {"plan": "pro"})),
    "once": ("accounts.create", (228_225,)),
}


def info(status: int) -> CallInfo:
    return CallInfo(operation="GET /x", status=status)


@asynccontextmanager
async def opened(make: Callable[..., Any], url: str, **settings: Any) -> AsyncIterator[Any]:
    async with make(TOKEN, base_url=url, **{"retry": AT_ONCE, **settings}) as drift:
        yield drift


async def failed(drift: Any, call: str, *args: Any) -> Any:
    """Return the error of a call that must fail."""
    with pytest.raises(errors.DriftError) as caught:
        await attrgetter(call)(drift)(*args)
    return caught.value


# -- a reply that says no: a pure function

BODIES = (
    ({"error": {"type": "not_found", "message": "no such"}}, "not_found", "no such"),
    ({"error": {"type": "x", "message": "first"}, "message": "second"}, "x", "first"),
    ({"error": {"type": "x"}}, "x", ""),
    ({"error": {"type": 5, "message": None}}, None, "text/html, 39 bytes"),
    ({"errors": [{"type": "v", "message": "m", "param": "p"}, {"type": "w"}]}, "v", "m"),
    ({"errors": ["text"]}, None, "text"),
    ({"error": "not found"}, None, "not found"),
    ({"error": "invalid_token", "error_description": "it ended"}, "invalid_token", "it ended"),
    ({"message": "API rate limit exceeded"}, None, "API rate limit exceeded"),
    ({"status": "409", "scimType": "uniqueness", "detail": "taken"}, "uniqueness", "taken"),
    ({"schemas": ["e"], "status": "404", "detail": "gone"}, None, "gone"),
    ({"message": "two\r\n\tlines\ud800\u202e"}, None, "two lines"),
    ({"message": "x " * 600}, None, "x " * 256),
    ("a text", None, "text/html, 8 bytes"),
    (["x"], None, "text/html, 5 bytes"),
    (None, None, "text/html, 4 bytes"),
    (b"<html><h1>Bad\r\n\tGateway</h1></html>", None, "text/html, 35 bytes"),
    (b"", None, ""),
    (b"\xff\xfe\x00", None, "text/html, 3 bytes"),
    (b'{"message": "m"', None, "text/html, 15 bytes"),
    ({"message": "m", "more": "x" * 70_000}, None, "text/html, 70,028 bytes"),
)


@pytest.mark.parametrize(("body", "kind", "message"), BODIES)
def test_every_shape_of_an_error_body_is_read(body: Any, kind: str | None, message: str) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "text/html; charset=utf-8"}
    error = error_from_response(CallInfo(operation="GET /x", status=418, attempts=1), headers, raw)
    assert type(error) is errors.APIError
    assert error.type == kind
    assert error.message == message
    assert (error.status, error.operation, error.attempts) == (418, "GET /x", 1)
    assert str(error).isprintable()


def test_an_error_is_one_line_that_a_person_can_act_on() -> None:
    body = b'{"error": {"type": "not_found", "message": "no such contact"}}'
    error = error_from_response(
        CallInfo(operation="GET /contacts/{contact_id}", status=404), {}, body
    )
    assert str(error) == "GET /contacts/{contact_id}: 404 not_found (no such contact)"


LONG = ("[" * 200_000, "[ " * 100_000, "ö" * 9000, "☂ " * 9000, "a!" * 2000, "a!" * 9000)


@pytest.mark.parametrize(
    "text", [*LONG, "a%4" * 1300, "a@" * 2000, "a" * 4000], ids=lambda s: s[:3]
)
@pytest.mark.parametrize("key", [None, "message"])
def test_a_long_body_gives_a_short_error_soon(text: str, key: str | None) -> None:
    body = text if key is None else json.dumps({key: text})
    began = time.process_time()
    error = error_from_response(info(418), {}, body.encode(), secrets=[Secret(TOKEN)])
    assert len(error.message.encode()) <= 512
    assert time.process_time() - began < 0.05


@pytest.mark.parametrize(
    ("content_type", "media_type"),
    [
        ("application/problem+json", "application/problem+json, "),
        ("Text/HTML ;charset=x", "Text/HTML, "),
        ("text/html, x@y.example", ""),
        ("text/ada@private.example", ""),
        ("nonsense", ""),
        ("", ""),
        (f"text/{'x' * 100}", ""),
        (f"text/{TOKEN}", "text/***, "),
    ],
)
def test_a_media_type_is_named_if_it_is_one(content_type: str, media_type: str) -> None:
    headers = {"Content-Type": content_type}
    error = error_from_response(info(502), headers, b"a page", secrets=[Secret(TOKEN)])
    assert str(error) == f"GET /x: 502 ({media_type}6 bytes)"


CLASSES = {
    **dict.fromkeys((400, 413, 422), "BadRequestError"),
    **dict.fromkeys((401, 403), "AuthenticationError"),
    404: "NotFoundError",
    409: "ConflictError",
    429: "RateLimitError",
    **dict.fromkeys((500, 501, 502, 503, 504, 505, 599), "ServerError"),
    **dict.fromkeys((300, 302, 304, 402, 405, 408, 410, 418, 499), "APIError"),
}


@pytest.mark.parametrize(("status", "kind"), CLASSES.items())
def test_the_class_follows_from_the_status_not_from_the_type(status: int, kind: str) -> None:
    for word in ("not_found", "rate_limit", "conflict"):
        body = json.dumps({"error": {"type": word, "message": "m"}}).encode()
        assert type(error_from_response(info(status), {}, body)).__name__ == kind


@pytest.mark.parametrize(
    ("status", "scope", "message", "kind"),
    [
        (403, "contact_read", "the token lacks contact_read", "ScopeError"),
        (403, "contact_read", "the token lacks contact_write", "AuthenticationError"),
        (403, None, "the token lacks contact_read", "AuthenticationError"),
        (401, "contact_read", "the token lacks contact_read", "AuthenticationError"),
        (400, "contact_read", "the token lacks contact_read", "BadRequestError"),
    ],
)
def test_a_403_is_about_a_scope_when_it_names_that_of_the_row(
    status: int, scope: str | None, message: str, kind: str
) -> None:
    body = json.dumps({"error": {"type": "authentication_error", "message": message}}).encode()
    error = error_from_response(info(status), {}, body, scope=scope)
    assert type(error).__name__ == kind
    assert getattr(error, "scope", None) == (scope if kind == "ScopeError" else None)


# The token moves over the cut of a long text; its mask still fits.
PADDED = [
    {"error": {"type": "." * n + TOKEN, "message": "." * (n + 448) + TOKEN}} for n in range(62)
]


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"type": TOKEN, "message": f"<{TOKEN}>"}},
        {"errors": [f"{TOKEN}: taken", TOKEN]},
        {"error": TOKEN, "error_description": f"bearer {TOKEN}"},
        {"detail": TOKEN, "scimType": TOKEN},
        {"message": f"POST /app/uninstall?clientId=a&clientSecret={SECRET}"},
        {"message": f"{TOKEN}{TOKEN}-longer, {SECRET}"},
        *PADDED,
    ],
)
def test_the_words_of_a_server_repeat_no_secret(body: Any) -> None:
    secrets = [Secret(""), Secret(TOKEN), Secret(f"{TOKEN}-longer"), Secret(SECRET)]
    for status in (302, 400, 403):
        headers = {"Location": f"https://{TOKEN}.example"}
        raw = json.dumps(body).encode()
        error = error_from_response(info(status), headers, raw, secrets=secrets)
        said = f"{error!r} {vars(error)}"
        assert "***" in said
        assert not re.search("drift-sec|client-sec|longer|0123", said)


@pytest.mark.parametrize("location", [f"{TOKEN}:x", f"{TOKEN}://x", f"https://{TOKEN}@x/{TOKEN}"])
def test_a_redirect_repeats_no_secret(location: str) -> None:
    for token in (TOKEN, TOKEN.upper()):
        headers = {"Location": location.replace(TOKEN, token)}
        error = error_from_response(info(302), headers, b"", secrets=[Secret(token)])
        assert TOKEN not in repr(error).lower()


@pytest.mark.parametrize(
    "spelling", [r"c+s/e\"t=&", "c%2Bs%2Fe%22t%3D%26", json.dumps('c+s/e"t=&')[1:-1]]
)
def test_a_secret_is_masked_however_the_server_spells_it(spelling: str) -> None:
    body = json.dumps({"message": f"bad form: secret={spelling}&x=1"}).encode()
    for text in (spelling, 'c+s/e"t=&'):
        error = error_from_response(info(400), {}, body, secrets=[Secret('c+s/e"t=&')])
        assert text not in f"{error} {error.args} {vars(error)}"
    assert error.message == "bad form: secret=***&x=1"


# -- failures on the wire: class, applied, reason, requests seen

LOST = {"safe": ("ConnectionLostError", None, "attempts", 3)}
LOST |= {
    "idempotent": LOST["safe"],
    "once": ("OutcomeUnknownError", None, "not_retryable/lost", 1),
}

LOST_LATE = LOST | {"once": ("OutcomeUnknownError", None, "not_retryable/stalled", 1)}


def same(kind: str, applied: bool | None, reason: str, requests: int) -> dict[str, Any]:
    return dict.fromkeys(CALLS, (kind, applied, reason, requests))


def unless_once(kind: str, applied: bool | None) -> dict[str, Any]:
    again = (kind, applied, "attempts", 3)
    return {"safe": again, "idempotent": again, "once": (kind, applied, "not_retryable", 1)}


PROTOCOL = unless_once("ProtocolError", None) | {
    "once": ("OutcomeUnknownError", None, "not_retryable/protocol", 1)
}
STALLED = same("DeadlineError", None, "deadline", 1) | {
    "once": ("OutcomeUnknownError", None, "deadline/stalled", 1)
}
LATER: dict[str, Any] = {"headers": {"Retry-After": "61"}}
SLOW = {"attempt_timeout": 0.1}
SHORT = {"timeout": 0.25}
FAILURES: Mapping[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # name: (fault, settings, {effect: (class, applied, reason, requests)})
    "cut-before": ({"cut": "before"}, {}, LOST),
    "cut-after": ({"cut": "after"}, {}, LOST),
    "reset-before": ({"cut": "before", "reset": True}, {}, LOST),
    "reset-after": ({"cut": "after", "reset": True}, {}, LOST),
    "half-a-head": ({"raw": b"HTTP/1.1 200 OK\r\nX-A: b\r\n"}, {}, LOST),
    "short-body": ({"short": 1}, {}, unless_once("ConnectionLostError", True)),
    "garbage": ({"raw": b"SSH-2.0-OpenSSH\r\n\r\n"}, {}, PROTOCOL),
    "long-header": ({"raw": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 9000 + b"\r\n\r\n"}, {}, PROTOCOL),
    "stalled-head": ({"delay": 5}, SLOW, LOST_LATE),
    "stalled-head-deadline": ({"delay": 5}, SHORT, STALLED),
    "stalled-body": ({"pause": 5}, SLOW, unless_once("ConnectionLostError", True)),
    "stalled-body-deadline": ({"pause": 5}, SHORT, same("DeadlineError", True, "deadline", 1)),
    "dripping-deadline": ({"drip": 0.1}, SHORT, same("DeadlineError", True, "deadline", 1)),
    "500": ({"status": 500}, {}, unless_once("ServerError", None)),
    "502": ({"status": 502}, {}, unless_once("ServerError", None)),
    "504": ({"status": 504}, {}, unless_once("ServerError", None)),
    "408": ({"status": 408}, {}, unless_once("APIError", None)),
    "501": ({"status": 501}, {}, same("ServerError", None, "not_retryable", 1)),
    "505": ({"status": 505}, {}, same("ServerError", None, "not_retryable", 1)),
    "503": ({"status": 503}, {}, same("ServerError", False, "attempts", 3)),
    "429": ({"status": 429}, {}, same("RateLimitError", False, "attempts", 3)),
    "503-later": (LATER | {"status": 503}, {}, same("ServerError", False, "retry_after", 1)),
    "429-later": (LATER | {"status": 429}, {}, same("RateLimitError", False, "retry_after", 1)),
    **{
        str(status): ({"status": status}, {}, same(kind, False, "not_retryable", 1))
        for status, kind in {
            400: "BadRequestError",
            401: "AuthenticationError",
            403: "AuthenticationError",
            404: "NotFoundError",
            409: "ConflictError",
            413: "BadRequestError",
            418: "APIError",
            422: "BadRequestError",
        }.items()
    },
}
CASES = [
    pytest.param(fault, settings, effect, literal[effect], id=f"{name}-{effect}")
    for name, (fault, settings, literal) in FAILURES.items()
    for effect in CALLS
]


@pytest.mark.anyio
@pytest.mark.parametrize(("fault", "settings", "effect", "literal"), CASES)
async def test_a_failure_on_the_wire_is_told_as_the_table_has_it(
    make: Any,
    fault: dict[str, Any],
    settings: dict[str, Any],
    effect: str,
    literal: tuple[str, bool | None, str, int],
) -> None:
    call, args = CALLS[effect]
    async with Sandbox(token=TOKEN) as box:
        box.fail(call, **fault, times=None)
        async with opened(make, box.url, **settings) as drift:
            error = await failed(drift, call, *args)
        kind, applied, _, requests = literal
        reason = f"{error.reason}/{error.failure}" if "Unknown" in kind else error.reason
        assert (type(error).__name__, error.applied, reason, len(box.seen)) == literal
        assert error.attempts == requests
        assert error.operation == f"{box.seen[0].method} " + {
            "accounts.create": "/accounts/create"
        }.get(call, "/contacts/{contact_id}")
        assert 0 < error.elapsed < 5
        if "status" in fault:
            assert error.status == fault["status"]
            assert error.request_id == f"sandbox-{requests:08d}"
        elif applied:
            assert error.status == 200
        if kind == "OutcomeUnknownError":
            assert (error.settle, error.settle_hint) == ("accounts.all", "look for the domain")
            assert "accounts.all (look for the domain)" in str(error)
        if kind == "RateLimitError":
            assert error.retry_after == (61.0 if "headers" in fault else None)
        assert isinstance(error, TimeoutError) is (kind == "DeadlineError")
        # What the error says holds: False means that the server has done nothing, True that it has.
        if applied is not None:
            assert {one.applied for one in box.seen} == {applied}


CUT, SHORT_BODY = {"cut": "before"}, {"short": 1}
NO_500, NO_503 = {"status": 500}, {"status": 503}
SEQUENCES: Mapping[str, tuple[str, list[Any], str, bool | None, int | None, int]] = {
    # The outcome of one attempt that nobody knows makes that of the call unknown.
    "lost-no": ("idempotent", [CUT, {"status": 400}], "BadRequestError", None, 400, 2),
    "500-no": ("idempotent", [NO_500, {"status": 409}], "ConflictError", None, 409, 2),
    "503-no": ("idempotent", [NO_503, {"status": 409}], "ConflictError", False, 409, 2),
    "lost-503": ("idempotent", [CUT, NO_503, NO_503], "ServerError", None, 503, 3),
    "503-lost": ("once", [NO_503, CUT], "OutcomeUnknownError", None, 503, 2),
    "429-no": ("once", [{"status": 429}, {"status": 400}], "BadRequestError", False, 400, 2),
    # A 2xx head settles it for the whole call.
    "short-500": ("idempotent", [SHORT_BODY, NO_500, NO_500], "ServerError", True, 500, 3),
    "short-lost": ("idempotent", [SHORT_BODY, CUT, CUT], "ConnectionLostError", True, 200, 3),
    "503-short": ("once", [NO_503, SHORT_BODY], "ConnectionLostError", True, 200, 2),
    # The last status seen is told, though the last attempt had none.
    "500-lost": ("idempotent", [NO_500, CUT, CUT], "ConnectionLostError", None, 500, 3),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", SEQUENCES)
async def test_an_error_speaks_for_all_attempts(make: Any, name: str) -> None:
    effect, faults, kind, applied, status, requests = SEQUENCES[name]
    call, args = CALLS[effect]
    async with Sandbox(token=TOKEN) as box, opened(make, box.url) as drift:
        for fault in faults:
            box.fail(call, **fault)
        error = await failed(drift, call, *args)
        assert (type(error).__name__, error.applied) == (kind, applied)
        assert (error.status, error.attempts, len(box.seen)) == (status, requests, requests)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("faults", "gone", "requests"),
    [
        ([{"cut": "after"}], False, 2),
        ([{"status": 500, "apply": True}], False, 2),
        ([{"status": 503, "apply": True}], True, 2),  # said not to be applied
        ([{"status": 404}], True, 1),
    ],
)
async def test_a_404_for_a_repeated_delete_is_its_own_success(
    make: Any, faults: list[dict[str, Any]], gone: bool, requests: int
) -> None:
    async with Sandbox(token=TOKEN) as box, opened(make, box.url) as drift:
        for fault in faults:
            box.fail("contacts.delete", **fault)
        if gone:
            error = await failed(drift, "contacts.delete", 15_811_400_007)
            assert isinstance(error, errors.NotFoundError)
        else:
            assert await drift.contacts.delete(15_811_400_007) is None
        assert len(box.seen) == requests


@pytest.mark.anyio
@pytest.mark.parametrize("effect", CALLS)
async def test_nothing_was_sent_where_nobody_listens(make: Any, effect: str) -> None:
    call, args = CALLS[effect]
    async with dead_url() as url, opened(make, url) as drift:
        error = await failed(drift, call, *args)
    assert type(error) is errors.ConnectError
    assert (error.applied, error.reason, error.attempts) == (False, "attempts", 3)


@pytest.mark.anyio
@pytest.mark.parametrize("effect", CALLS)
async def test_what_was_refused_twice_is_sent_once_the_server_listens(
    make: Any, effect: str
) -> None:
    async with dead_url() as url:
        port = int(url.rpartition(":")[2])
    box, here, call = Sandbox(token=TOKEN, port=port), asyncio.get_running_loop(), CALLS[effect]
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(box.open(), here))

    async with opened(make, url) as drift:
        core(drift)._caller.state.sleep = wait
        await attrgetter(call[0])(drift)(*call[1])
        assert waits == [0.0, 0.0]
        assert len(box.seen) == 1
    await box.close()


@pytest.mark.anyio
async def test_a_lost_attempt_before_refused_ones_is_not_forgotten(make: Any) -> None:
    def once(n: int, got: Got) -> None:
        assert server._server is not None
        server._server.close()

    async with Server(once) as server, opened(make, server.url) as drift:
        error = await failed(drift, "contacts.get", 7)
        assert type(error) is errors.ConnectionLostError
        assert (error.applied, error.attempts, len(server.got)) == (None, 3, 1)


@pytest.mark.anyio
async def test_a_turn_that_does_not_come_in_time_was_not_sent(make: Any) -> None:
    async with (
        Sandbox(token=TOKEN) as box,
        opened(make, box.url, rate=Rate(per_second=0.01), timeout=0.2) as drift,
    ):
        await drift.contacts.get(15_811_400_007)
        error = await failed(drift, "accounts.create", 228_225)
        assert type(error) is errors.DeadlineError
        assert (error.applied, error.reason, error.attempts) == (False, "deadline", 0)
        assert len(box.seen) == 1


@pytest.mark.anyio
async def test_a_missing_scope_is_named_and_not_tried_again(make: Any) -> None:
    async with Sandbox() as box:
        box.add_token(TOKEN, scopes=["contact_write"])
        async with opened(make, box.url) as drift:
            error = await failed(drift, "contacts.get", 15_811_400_007)
        assert type(error) is errors.ScopeError
        assert (error.scope, error.status, error.type) == (
            "contact_read",
            403,
            "authentication_error",
        )
        assert (error.applied, error.reason, len(box.seen)) == (False, "not_retryable", 1)


# -- the HTTP library's own resend is off


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(("effect", "requests"), [("idempotent", 3), ("once", 1)])
async def test_a_server_that_closes_sees_exactly_the_attempts(
    make: Any, method: str, effect: str, requests: int
) -> None:
    async with Server(None) as server, opened(make, server.url) as drift:
        with pytest.raises(errors.CallError) as caught:
            await drift.request(method, "/x", effect=effect)
        assert len(server.got) == caught.value.attempts == requests


@pytest.mark.anyio
@pytest.mark.parametrize(("switch", "requests"), [(True, 2), (False, 1)])
async def test_the_private_switch_of_the_http_library_still_works(
    switch: bool, requests: int
) -> None:
    async with Server(None) as server, aiohttp.ClientSession() as session:
        session._retry_connection = switch
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.get(server.url)
        assert len(server.got) == requests


# -- errors travel, and take no secrets along


def samples() -> dict[str, errors.DriftError]:
    """Return an error of every public class."""
    call = CallInfo(
        operation="GET /x",
        attempts=2,
        elapsed=0.5,
        status=500,
        request_id="r-1",
        reason="attempts",
    )
    api: dict[str, Any] = {"type": "t", "message": "m"}
    settle: dict[str, Any] = {"failure": "lost", "settle": "x.get", "settle_hint": "look"}
    own: dict[str, Any] = {
        "InputError": errors.InputError("email", "must be a text"),
        "DecodeError": errors.DecodeError("expected int", call, path="$.data.id"),
        "OutcomeUnknownError": errors.OutcomeUnknownError("lost", call, **settle),
        "ScopeError": errors.ScopeError(call, scope="contact_read", **api),
        "RateLimitError": errors.RateLimitError(call, retry_after=1.5, **api),
        "VerificationError": errors.VerificationError("wrong", reason="token"),
    }
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.DriftError) and name not in own:
            if issubclass(kind, errors.APIError):
                own[name] = kind(call, **api)
            elif issubclass(kind, errors.CallError):
                own[name] = kind("broke", call)
            else:
                own[name] = kind("why")
    return own


@pytest.mark.parametrize("error", samples().values(), ids=samples())
def test_every_public_error_pickles_and_copies(error: errors.DriftError) -> None:
    assert getattr(drift_async, type(error).__name__) is type(error)
    assert isinstance(error, errors.DriftError)
    copies = [pickle.loads(pickle.dumps(error, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)]
    for twin in (*copies, copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
        assert twin.applied is error.applied


ECHO = f"<html>{EMAIL}, Bearer {TOKEN}, {SECRET}</html>".encode()
BREAKS: Mapping[str, dict[str, Any]] = {
    "cut": {"cut": "before"},
    "garbage": {"raw": b"Bearer " + TOKEN.encode() + b"\r\n\r\n"},
    "short": {"short": 1, "headers": {"X-Request-Id": "r"}},
    "echoed-no": {"status": 400, "body": ECHO},
    "echoed-yes": {"status": 200, "body": ECHO},
    "redirect": {"status": 302, "headers": {"Location": f"//x.example/{TOKEN}?e={EMAIL}"}},
    "stall": {"delay": 5},
}
PRIVATE_CALLS = {
    "contacts.find_by_email": (EMAIL,),
    "contacts.create": (EMAIL,),
    "gdpr.retrieve": (EMAIL,),
    "gdpr.delete": (EMAIL,),
    "app.token_info": (),
    "app.uninstall": ("client", SECRET),
}


@pytest.mark.anyio
@pytest.mark.parametrize("call", PRIVATE_CALLS)
@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
async def test_no_error_tells_a_secret(
    make: Any, call: str, fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Sandbox(token=TOKEN) as box:
        box.fail(call, **fault, times=None)
        async with opened(make, box.url, attempt_timeout=0.1) as drift:
            try:
                await attrgetter(call)(drift)(*PRIVATE_CALLS[call])
            except errors.DriftError as error:
                said = told(error, with_locals=False) + pickle.dumps(error).decode("latin-1")
            else:  # a deletion and the like make nothing of a strange body of a 2xx reply
                pytest.fail("no error")
    for secret in (TOKEN, SECRET, EMAIL):
        assert secret not in said
        assert secret not in caplog.text


def echo(got: Got) -> bytes:
    """Return an error page that repeats the whole head of a request."""
    lines = [f"{name}: {value}" for name, value in got.headers.items()]
    return "\r\n".join([f"{got.method} {got.target}", *lines, "." * 1000]).encode()


ODD_TOKEN = r"""7~!#$%&'*+-.^_`|<>"@(),:;=?[]{}\/Az"""


def shows(error: errors.DriftError, token: str) -> bool:
    """Return whether any form of an error shows a part of a token."""
    forms = [str(error), repr(error), repr(error.args), repr(vars(error))]
    forms += [form.replace("\\\\", "\\").replace("\\'", "'") for form in forms]
    forms += [pickle.dumps(error, n).decode("latin-1") for n in range(pickle.HIGHEST_PROTOCOL + 1)]
    parts = [token[at : at + 8] for at in range(len(token) - 7)]
    return any(part in form for part in parts for form in forms)


@pytest.mark.anyio
@pytest.mark.parametrize("token", ["aZ4-kq8_Wm2xTb6pRd9c", ODD_TOKEN], ids=["20-signs", "odd"])
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 502])
async def test_a_page_that_repeats_the_request_is_described_by_its_type_and_size(
    make: Any, token: str, status: int
) -> None:
    sizes: list[int] = []

    def answer(n: int, got: Got) -> bytes:
        page = echo(got)
        assert token.encode() in page
        sizes.append(len(page))
        return reply(page, f"{status} X", Content_Type="text/html; charset=utf-8")

    async with (
        Server(answer) as server,
        make(token, base_url=server.url, retry=Retry(attempts=1)) as drift,
    ):
        error = await failed(drift, "contacts.get", 7)
    what = {200: "not JSON "}.get(status, f"{status} ")
    place = {200: " at $"}.get(status, "")
    page = f"{what}(text/html, {sizes[0]:,} bytes){place}"
    assert str(error) == f"GET /contacts/{{contact_id}}: {page}"
    assert sizes[0] > 1000
    assert not shows(error, token)


@pytest.mark.anyio
@pytest.mark.parametrize("token", ["aZ4-kq8_Wm2xTb6pRd9c", ODD_TOKEN], ids=["20-signs", "odd"])
async def test_a_message_that_repeats_the_token_is_shown_without_it(make: Any, token: str) -> None:
    def answer(n: int, got: Got) -> bytes:
        sent = got.headers["authorization"]
        words = {"type": f"no {token}", "message": f"no right to {got.target}: {sent}, as I say"}
        return reply(json.dumps({"error": words}).encode(), "400 No")

    async with Server(answer) as server, make(token, base_url=server.url) as drift:
        error = await failed(drift, "contacts.get", 7)
    assert (error.type, error.message) == (
        "no ***",
        "no right to /contacts/7: Bearer ***, as I say",
    )
    assert str(error) == f"GET /contacts/{{contact_id}}: 400 {error.type} ({error.message})"
    assert not shows(error, token)


@pytest.mark.anyio
async def test_a_token_that_was_replaced_during_the_attempt_is_masked_too(make: Any) -> None:
    def answer(n: int, got: Got) -> bytes:
        core(drift)._caller.state.set_token(Secret(OTHER_TOKEN))
        return reply(
            json.dumps({"message": f"not {got.headers['authorization']}"}).encode(), "400 No"
        )

    async with Server(answer) as server, make(TOKEN, base_url=server.url) as drift:
        first = await failed(drift, "contacts.get", 7)
        second = await failed(drift, "contacts.get", 7)
    assert {first.message, second.message} == {"not Bearer ***"}
    assert [got.headers["authorization"].split()[1] for got in server.got] == [TOKEN, OTHER_TOKEN]


# A text would be seen in the frame that it was handed to; who minds gives a `Secret`.
HIDDEN: Mapping[str, tuple[Any, ...]] = {
    "app.token_info": (),
    "app.uninstall": ("client", Secret(SECRET)),
}
SHOWN = [("contacts.get", fault) for fault in BREAKS]
SHOWN += [("app.token_info", "cut"), ("app.uninstall", "cut")]  # these have one in body and query


@pytest.mark.anyio
@pytest.mark.parametrize(("call", "fault"), SHOWN)
async def test_no_traceback_with_locals_shows_a_credential(
    make: Any, call: str, fault: str
) -> None:
    async with Sandbox(token=TOKEN) as box:
        box.fail(call, **BREAKS[fault], times=None)
        async with opened(make, box.url, attempt_timeout=0.1) as drift:
            error = await failed(drift, call, *HIDDEN.get(call, (7,)))
            said = told(error, with_locals=True)
    assert f"Bearer {TOKEN}" not in said
    assert TOKEN not in said
    assert SECRET not in said
