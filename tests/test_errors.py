"""What an error says: its class, whether the request was applied, why it was not tried again."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import re
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any

import aiohttp
import pytest

import drift_async
from drift_async import Rate, Retry, Secret, errors
from drift_async.errors import reply_error
from drift_async.sandbox import Sandbox

from .flavours import core
from .server import Got, Server, dead_url

AT_ONCE = Retry(base=0, throttled_base=0)
TOKEN = "drift-secret-token-0123456789abcdefghijklmnop"
SECRET = "client-secret-0123456789abcdefghijklmnopqrst"
EMAIL = "ada.lovelace@private.example"
CALLS: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "safe": ("contacts.get", (15_811_400_007,)),
    "idempotent": ("contacts.update", (15_811_400_007, {"plan": "pro"})),
    "once": ("accounts.create", (228_225,)),
}


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
    ({"error": {"type": 5, "message": None}}, None, ""),
    ({"errors": [{"type": "v", "message": "m", "param": "p"}, {"type": "w"}]}, "v", "m"),
    ({"errors": ["text"]}, None, "text"),
    ({"error": "not found"}, None, "not found"),
    ({"error": "invalid_token", "error_description": "it ended"}, "invalid_token", "it ended"),
    ({"message": "API rate limit exceeded"}, None, "API rate limit exceeded"),
    ({"status": "409", "scimType": "uniqueness", "detail": "taken"}, "uniqueness", "taken"),
    ({"schemas": ["e"], "status": "404", "detail": "gone"}, None, "gone"),
    ("a text", None, "a text"),
    (["x"], None, '["***"]'),
    (None, None, "null"),
    (b"<html><h1>Bad\r\n\tGateway</h1></html>", None, "<html><h1>Bad Gateway</h1></html>"),
    (b"", None, ""),
    (b"\xff\xfe\x00", None, ""),
    (b"x " * 600, None, ("x " * 256).strip()),
)


@pytest.mark.parametrize(("body", "kind", "message"), BODIES)
def test_every_shape_of_an_error_body_is_read(body: Any, kind: str | None, message: str) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = reply_error(418, {}, raw, operation="GET /x", attempts=1)
    assert type(error) is errors.APIError
    assert error.type == kind
    assert error.message.strip("\ufffd ") == message
    assert (error.status, error.operation, error.attempts) == (418, "GET /x", 1)
    assert str(error).isprintable()


def test_an_error_is_one_line_that_a_person_can_act_on() -> None:
    body = b'{"error": {"type": "not_found", "message": "no such contact"}}'
    error = reply_error(404, {}, body, operation="GET /contacts/{contact_id}")
    assert str(error) == "GET /contacts/{contact_id}: 404 not_found (no such contact)"


LONG = ("[" * 200_000, "[ " * 100_000, "ö" * 9000, "☂ " * 9000, "a!" * 2000, "a!" * 9000)


@pytest.mark.parametrize(
    "text", [*LONG, "a%4" * 1300, "a@" * 2000, "a" * 4000], ids=lambda s: s[:3]
)
def test_a_long_body_gives_a_short_excerpt_soon(text: str) -> None:
    began = time.process_time()
    error = reply_error(418, {}, text.encode(), operation="GET /x")
    assert len(error.message.encode()) <= 512
    assert time.process_time() - began < 0.05


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
        assert type(reply_error(status, {}, body, operation="GET /x")).__name__ == kind


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
    error = reply_error(status, {}, body, operation="GET /x", scope=scope)
    assert type(error).__name__ == kind
    assert getattr(error, "scope", None) == (scope if kind == "ScopeError" else None)


@pytest.mark.parametrize(
    "text",
    [
        f"no contact {EMAIL} here",
        f'{{"error": {{"type": "{EMAIL}", "message": "<{EMAIL}>"}}}}',
        f'{{"errors": ["{EMAIL}: taken", "{TOKEN}"]}}',
        f'{{"error": "{TOKEN}", "error_description": "bearer {TOKEN}"}}',
        f'{{"detail": "{TOKEN}", "scimType": "{TOKEN}"}}',
        f"<html>GET /contacts?email={EMAIL.replace('@', '%40')}&limit=25 not found</html>",
        f"<html>POST /app/uninstall?clientId=a&clientSecret={SECRET}</html>",
        "x@y.example " * 83 + f"{' ' * 10}{EMAIL} and {TOKEN}",
        *("x@y.example " * 83 + "." * n + EMAIL for n in range(12, 36, 3)),
        *("x@y.example " * 80 + "." + " " * n + TOKEN for n in range(20, 62, 6)),
    ],
)
def test_an_excerpt_has_neither_addresses_nor_tokens(text: str) -> None:
    error = reply_error(400, {}, text.encode(), operation="GET /x")
    said = f"{error} {error.type} {error.message}"
    assert not re.search(r"ada|love|private|drift-sec|client-sec", said), said


# -- failures on the wire: class, applied, reason, requests seen

LOST = {"safe": ("ConnectionLostError", None, "attempts", 3)}
LOST |= {
    "idempotent": LOST["safe"],
    "once": ("OutcomeUnknownError", None, "ConnectionLostError", 1),
}


def same(kind: str, applied: bool | None, reason: str, requests: int) -> dict[str, Any]:
    return dict.fromkeys(CALLS, (kind, applied, reason, requests))


def unless_once(kind: str, applied: bool | None) -> dict[str, Any]:
    again = (kind, applied, "attempts", 3)
    return {"safe": again, "idempotent": again, "once": (kind, applied, "not_retryable", 1)}


PROTOCOL = unless_once("ProtocolError", None) | {
    "once": ("OutcomeUnknownError", None, "ProtocolError", 1)
}
STALLED = same("DeadlineError", None, "deadline", 1) | {
    "once": ("OutcomeUnknownError", None, "DeadlineError", 1)
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
    "stalled-head": ({"delay": 5}, SLOW, LOST),
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
        assert (type(error).__name__, error.applied, error.reason, len(box.seen)) == literal
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
            assert "accounts.all" in error.settle
            assert error.settle in str(error)
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
        core(drift)._caller.site.sleep = wait
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
    call: dict[str, Any] = {"operation": "GET /x", "applied": None, "attempts": 2, "elapsed": 0.5}
    call |= {"status": 500, "request_id": "r-1", "reason": "attempts"}
    api = {**call, "type": "t", "message": "m"}
    own: dict[str, Any] = {
        "InputError": errors.InputError("email", "must be a text"),
        "DecodeError": errors.DecodeError("expected int", path="$.data.id", **call),
        "OutcomeUnknownError": errors.OutcomeUnknownError("lost", settle="look", **call),
        "ScopeError": errors.ScopeError(scope="contact_read", **api),
        "RateLimitError": errors.RateLimitError(retry_after=1.5, **api),
        "VerificationError": errors.VerificationError("wrong", reason="token"),
    }
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.DriftError) and name not in own:
            if issubclass(kind, errors.APIError):
                own[name] = kind(**api)
            elif issubclass(kind, errors.CallError):
                own[name] = kind("broke", **call)
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


def told(error: BaseException, *, with_locals: bool) -> str:
    """Return all that can be read off an error, its chain and the library's frames."""
    texts = [repr(error), str(error), repr(error.args), repr(vars(error))]
    texts += getattr(error, "__notes__", [])
    trace = traceback.TracebackException.from_exception(error, capture_locals=with_locals)
    for frame in trace.stack:
        if "/drift_async/" in frame.filename:
            texts += [str(frame.line), repr(frame.locals)]
    for linked in (error.__cause__, error.__context__):
        if linked is not None:
            texts.append(told(linked, with_locals=with_locals))
    return "\n".join(texts)


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
