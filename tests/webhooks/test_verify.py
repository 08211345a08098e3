"""Whatever did not come with a token is refused, and nothing of it can be read."""

from __future__ import annotations

import copy
import hmac
import json
import pickle
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, strategies as st

from drift_async import (
    DriftError,
    InputError,
    NewMessageEvent,
    Secret,
    UnknownEvent,
    VerificationError,
    WebhookEvent,
    Webhooks,
)
from tests.support.deliveries import (
    BARE,
    FORGERIES,
    HEADER,
    PAYLOADS,
    TOKEN,
    body,
    headers,
)
from tests.support.errors import told

PRIVATE = "ada.lovelace@private.example"

Make = Callable[..., Any]


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("sent_body", "sent_headers"),
    [
        (body(), headers()),
        (body(), {}),
        (BARE, headers()),
        (bytearray(body()), {"x-verification-token": TOKEN}),
        (memoryview(body()), {"X-VERIFICATION-TOKEN": TOKEN, "Other": "1"}),
        (BARE, [(HEADER.encode(), TOKEN.encode()), (b"other", b"\xff")]),
        (BARE, [(HEADER, TOKEN), (HEADER, TOKEN)]),
        (BARE, {HEADER: TOKEN}.items()),
    ],
)
def test_a_delivery_with_the_token_is_an_event(
    make_webhooks: Make, sent_body: bytes, sent_headers: Any
) -> None:
    event = make_webhooks(TOKEN).parse(sent_body, sent_headers)
    assert type(event) is NewMessageEvent
    assert event.data.body == "Hello"
    assert "token" not in event.extra


@pytest.mark.smoke
@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_refused(make_webhooks: Make, forgery: tuple[bytes, Any]) -> None:
    with pytest.raises(VerificationError) as caught:
        make_webhooks(TOKEN).parse(*forgery)
    assert caught.value.reason == "token"
    assert caught.value.applied is False
    assert pickle.loads(pickle.dumps(caught.value)).reason == "token"


@pytest.mark.parametrize(
    "token", [None, 0, 7, True, 1.5, [], [TOKEN], {}, {"token": TOKEN}, [[TOKEN]]]
)
@pytest.mark.parametrize("sent", [{}, headers()], ids=["no-header", "header"])
def test_a_token_of_the_wrong_type_is_refused(
    make_webhooks: Make, token: Any, sent: dict[str, str]
) -> None:
    with pytest.raises(VerificationError, match="token is wrong"):
        make_webhooks(TOKEN).parse(body(token=token), sent)


@pytest.mark.parametrize("value", [None, 7, [TOKEN], b"\xff" * 9])
def test_a_header_of_the_wrong_type_is_refused(make_webhooks: Make, value: Any) -> None:
    with pytest.raises(VerificationError, match="token is wrong"):
        make_webhooks(TOKEN).parse(body(), {HEADER: value})


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"7",
        body() + b"x",
        b"\xef\xbb\xbf" + body(),
        body().decode().encode("utf-16"),
        body().replace(b"1485843811", b"NaN"),
        body().replace(b'"Hello"', b'"\\ud800"'),
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b"[" * 100_000,
        json.dumps([{"token": TOKEN}]).encode(),
    ],
)
@pytest.mark.parametrize("header", [{}, headers()], ids=["no-header", "header"])
def test_a_body_that_is_no_json_object_is_refused(
    make_webhooks: Make, sent: bytes, header: dict[str, str]
) -> None:
    with pytest.raises(VerificationError) as caught:
        make_webhooks(TOKEN).parse(sent, header)
    assert caught.value.reason == "body"
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_body_over_the_limit_is_refused(make_webhooks: Make) -> None:
    sent = body()
    assert make_webhooks(TOKEN, max_body=len(sent)).parse(sent, {})
    with pytest.raises(VerificationError) as caught:
        make_webhooks(TOKEN, max_body=len(sent) - 1).parse(sent, {})
    assert caught.value.reason == "size"
    with pytest.raises(VerificationError, match="over 1048576 bytes"):
        make_webhooks(TOKEN).parse(b"{" + b" " * 1024 * 1024, headers())


@pytest.mark.parametrize(
    ("sent_body", "sent_headers", "field"),
    [("text", {}, "body"), (None, {}, "body"), (body(), 7, "headers"), (body(), [7], "headers")],
)
def test_what_no_server_gives_is_bad_input(
    make_webhooks: Make, sent_body: Any, sent_headers: Any, field: str
) -> None:
    with pytest.raises(InputError) as caught:
        make_webhooks(TOKEN).parse(sent_body, sent_headers)
    assert caught.value.field == field


def test_several_tokens_are_good_while_one_is_changed(make_webhooks: Make) -> None:
    webhooks = make_webhooks([TOKEN, Secret("the-new-one")])
    assert webhooks.parse(body(), headers())
    assert webhooks.parse(body(token="the-new-one"), headers("the-new-one"))
    assert webhooks.parse(body(token="the-new-one"), headers())
    with pytest.raises(VerificationError):
        webhooks.parse(body(token="a-third"), headers())


@pytest.mark.parametrize(
    "token", ["", " ", "a b", "é", "a\r\nb", None, 7, b"token", [], [""], [None], {"a": "b"}]
)
def test_a_token_that_no_header_could_carry_is_bad_input(make_webhooks: Make, token: Any) -> None:
    with pytest.raises(InputError) as caught:
        make_webhooks(token)
    assert caught.value.field == "verification_token"


@pytest.mark.parametrize(
    "setting",
    [
        {"tolerance": 0},
        {"tolerance": float("nan")},
        {"dedup_window": -1},
        {"dedup_size": 0},
        {"max_body": 0},
        {"body_timeout": 0},
        {"max_running": 0},
        {"max_waiting": -1},
    ],
)
def test_a_bad_setting_is_bad_input(make_webhooks: Make, setting: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        make_webhooks(TOKEN, **setting)
    assert [caught.value.field] == list(setting)


MOMENT = 1578390083.0


@pytest.mark.parametrize(
    ("now", "fresh"),
    [
        (MOMENT, True),
        (MOMENT + 300, True),
        (MOMENT - 300, True),
        (MOMENT + 300.1, False),
        (MOMENT - 300.1, False),
        (MOMENT + 1e8, False),
    ],
)
def test_an_event_far_from_now_is_refused_when_asked_for(
    make_webhooks: Make, now: float, fresh: bool
) -> None:
    webhooks = make_webhooks(TOKEN, tolerance=300, clock=lambda: now)
    if fresh:
        assert webhooks.parse(body(), {})
    else:
        with pytest.raises(VerificationError) as caught:
            webhooks.parse(body(), {})
        assert caught.value.reason == "time"
        assert str(caught.value) == "the event is more than 300 s away from now"
    assert webhooks.parse(body("conversation_inactive"), {})  # tells no time of its own
    assert make_webhooks(TOKEN, clock=lambda: now).parse(body(), {})  # not asked for


@pytest.mark.parametrize("case", [*FORGERIES.values(), (body(token=7, body=PRIVATE), headers())])
def test_a_refusal_tells_neither_token_nor_payload(
    make_webhooks: Make, case: tuple[bytes, Any]
) -> None:
    sent, sent_headers = case
    with pytest.raises(VerificationError) as caught:
        make_webhooks(TOKEN).parse(sent.replace(b"Hello", PRIVATE.encode()), sent_headers)
    said = told(caught.value, with_locals=True)
    assert TOKEN not in said
    assert PRIVATE not in said


def test_the_tokens_show_nowhere(make_webhooks: Make) -> None:
    webhooks = make_webhooks([TOKEN, TOKEN + "2"])
    said = f"{webhooks} {webhooks!r} {vars(webhooks)} {vars(webhooks._verifier)}"
    assert TOKEN not in said
    with pytest.raises(TypeError):
        pickle.dumps(webhooks._verifier)
    with pytest.raises(TypeError):
        copy.deepcopy(webhooks._verifier)


@pytest.mark.parametrize(
    ("sent", "sent_headers"),
    [
        (body(), headers("x")),
        (body().decode(), headers()),
        (body(), [(HEADER, TOKEN), 5]),
        (body(), [(HEADER, TOKEN), None]),
        (body()[:-1], headers()),
    ],
)
def test_a_refusal_leaves_no_token_in_a_traceback(
    make_webhooks: Make, sent: Any, sent_headers: Any
) -> None:
    with pytest.raises(DriftError) as caught:
        make_webhooks(TOKEN).parse(sent, sent_headers)
    assert TOKEN not in told(caught.value, with_locals=True)


@pytest.mark.parametrize(
    ("token", "settings"),
    [(f"{TOKEN} ", {}), ([TOKEN, f"{TOKEN}é"], {}), (TOKEN, {"dedup_window": -1})],
)
def test_bad_settings_leave_no_token_in_a_traceback(
    make_webhooks: Make, token: Any, settings: Any
) -> None:
    with pytest.raises(InputError) as caught:
        make_webhooks(token, **settings)
    assert TOKEN not in told(caught.value, with_locals=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(TOKEN),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("token"), inner),
    max_leaves=8,
)
BODIES = st.one_of(
    st.binary(),
    st.text().map(lambda text: text.encode(errors="surrogatepass")),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"type": st.sampled_from(sorted(PAYLOADS)) | JSON, "data": JSON},
        optional={"token": st.just(TOKEN) | JSON, "orgId": JSON},
    ).map(lambda value: json.dumps(value).encode()),
)
TEXTS = st.text() | st.binary() | st.sampled_from([TOKEN, HEADER, HEADER.lower(), ""])
HEADERS = st.one_of(
    st.dictionaries(TEXTS, TEXTS | st.none() | st.integers()),
    st.lists(st.tuples(TEXTS, TEXTS)),
    st.lists(st.tuples(TEXTS) | st.integers() | TEXTS),
    st.none() | st.integers() | TEXTS,
)


@given(sent=BODIES, sent_headers=HEADERS)
def test_any_delivery_gives_an_event_or_a_typed_error(sent: bytes, sent_headers: Any) -> None:
    try:
        event = Webhooks(TOKEN).parse(sent, sent_headers)
    except (VerificationError, InputError):
        return
    assert isinstance(event, WebhookEvent)
    assert TOKEN.encode() in sent or TOKEN in str(sent_headers)
    assert event.key
    if isinstance(event, UnknownEvent):
        assert "token" not in event.raw


@given(token=TEXTS | st.none() | st.integers() | st.lists(TEXTS))
def test_any_token_is_taken_or_bad_input(token: Any) -> None:
    try:
        webhooks = Webhooks(token)
    except InputError:
        return
    one = token if isinstance(token, str) else token[0]
    assert webhooks.parse(body(token=one), headers(one)).org_id == 1351205
    with pytest.raises(DriftError):
        webhooks.parse(body(token=one + "x" * 50), headers(one))


@pytest.mark.parametrize("sent", [TOKEN, "a", "b", "c", "x" * len(TOKEN)])
def test_every_token_is_compared_whole_whichever_it_is(
    monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    webhooks = Webhooks(["a", TOKEN, "b"])
    monkeypatch.setattr(hmac, "compare_digest", compare)
    with suppress(VerificationError):
        webhooks.parse(BARE, headers(sent))
    assert compared == [b"a", TOKEN.encode(), b"b"]


@pytest.mark.slow
def test_the_time_taken_does_not_tell_where_a_token_is_wrong() -> None:
    token = "t" * 20_000  # so long that a comparison which ends early would show
    verifier = Webhooks(token)._verifier
    sent = {"first": "X" + token[1:], "last": token[:-1] + "X"}
    taken: dict[str, list[int]] = {where: [] for where in sent}
    for _ in range(20_000):
        for where, wrong in sent.items():  # in turns, so that both see the same machine
            began = time.perf_counter_ns()
            accepted = verifier._accepts(wrong)
            taken[where].append(time.perf_counter_ns() - began)
            assert not accepted
    medians = {where: statistics.median(times) for where, times in taken.items()}
    assert max(medians.values()) < 1.05 * min(medians.values()), medians
