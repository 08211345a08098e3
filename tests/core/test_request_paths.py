"""Any text as an id or a parameter: it arrives as it was given, or nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import example, given, settings, strategies as st

from drift_async import Drift, DriftError, InputError
from tests.support.server import Got, Server, reply

Call = Callable[[Drift], Awaitable[Any]]
Send = Callable[[Call], "list[Got] | None"]
ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.text("./\\%2eEfF?#@:;&=+ \ud800\0")


@pytest.fixture(scope="module")
def send() -> Iterator[Send]:
    """What makes a call, and returns the requests that arrived; None if it was refused as input."""

    async def made(call: Call) -> list[Got] | None:
        server.got.clear()
        try:
            await call(drift)
        except InputError:
            assert server.got == []
            return None
        except DriftError:
            pass  # the empty object is not what every call wants
        return server.got

    with asyncio.Runner() as runner:
        server = Server(reply(b"{}"))
        runner.run(server.__aenter__())
        drift = Drift("t", base_url=server.url)
        runner.run(drift.open())
        yield lambda call: runner.run(made(call))
        runner.run(drift.close())
        runner.run(server.__aexit__())


def check_segment(send: Send, text: str) -> None:
    calls: dict[str, Call] = {
        "GET /accounts/": lambda drift: drift.accounts.get(text),
        "DELETE /accounts/": lambda drift: drift.accounts.delete(text),
        "GET /scim/Users/": lambda drift: drift.scim.get(text),
        "DELETE /scim/Users/": lambda drift: drift.scim.delete(text),
    }
    for start, call in calls.items():
        sent = send(call)
        if sent is not None:
            (got,) = sent
            method, path = start.split(" ")
            before, _, last = got.target.rpartition("/")
            assert (got.method, before + "/") == (method, path)
            assert unquote(last, errors="strict") == text
            assert last not in ("", ".", "..")
            assert not set(last) & set("?#\\ ;")


@given(ANY_TEXT)
@example("..")
@example("\ud800")
def test_any_text_as_an_id_is_one_segment_at_the_server_or_refused(send: Send, text: str) -> None:
    check_segment(send, text)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(ANY_TEXT)
def test_ten_thousand_texts_as_an_id(send: Send, text: str) -> None:
    check_segment(send, text)


@given(
    st.lists(st.tuples(ANY_TEXT, ANY_TEXT | st.integers()), max_size=3, unique_by=lambda p: p[0])
)
def test_any_text_as_a_parameter_arrives_as_it_is_or_is_refused(
    send: Send, pairs: list[tuple[str, str | int]]
) -> None:
    sent = send(lambda drift: drift.request("GET", "/x", params=dict(pairs)))
    if sent is None:
        texts = [str(text) for pair in pairs for text in pair]
        assert any("\ud800" <= sign <= "\udfff" for text in texts for sign in text)
        return
    (got,) = sent
    path, _, query = got.target.partition("?")
    assert path == "/x"
    found = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    assert found == [(key, str(value)) for key, value in pairs]


@given(ANY_TEXT)
def test_any_text_as_a_filter_arrives_as_it_is_or_is_refused(send: Send, text: str) -> None:
    sent = send(lambda drift: drift.scim.all(filter=text).collect())
    if sent is not None:
        assert dict(parse_qsl(sent[0].target.partition("?")[2], errors="strict"))["filter"] == text
