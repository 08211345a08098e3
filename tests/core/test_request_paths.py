"""Any text as an id, a parameter, a cursor: it arrives as it was given, or nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, get_args
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drift_async import CursorError, Drift, DriftError, InputError
from drift_async.core.endpoint import Endpoint
from drift_async.core.pager import Style, next_cursor, read_position, write_position
from drift_async.resources import accounts, contacts, conversations, scim
from tests.support.server import Got, Server, reply

# -- at the server

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


# -- cursors

LISTS: dict[Style, tuple[Endpoint[Any], tuple[tuple[str, ...], ...]]] = {
    "links": (conversations.ALL, (("page_token",), ("next",))),
    "pagination": (conversations.MESSAGES, (("next",),)),
    "next_url": (accounts.ALL, (("index", "size"),)),
    "link_header": (contacts.FIND_BY_EMAIL, (("cursor",),)),
    "scim": (scim.ALL, (("startIndex",),)),
}
KEYS = st.sampled_from(["page_token", "next", "index", "size", "cursor", "startIndex", "x", ""])
ADDRESSES = ANY_TEXT | st.builds(
    lambda start, pairs: start + "&".join(f"{key}={value}" for key, value in pairs),
    st.sampled_from(["?", "/x?", "//evil.example/?", "http://[?", "https://x/y?", "#?"]),
    st.lists(st.tuples(KEYS, st.integers().map(str) | ANY_TEXT), max_size=4),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ADDRESSES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
INSIDE = st.dictionaries(st.sampled_from(["next", "more", "self"]), JSON | st.booleans())
PAGES = JSON | st.fixed_dictionaries(
    {}, optional={"links": INSIDE, "data": INSIDE, "pagination": INSIDE, "totalResults": JSON}
)
LINKS = ANY_TEXT | st.builds(
    "<{}>; rel={}".format, ADDRESSES, st.sampled_from(["next", "'next'", "prev"])
)


def test_every_style_is_here() -> None:
    assert LISTS.keys() == set(get_args(Style))
    assert all(row.pages == style for style, (row, _) in LISTS.items())


@given(st.sampled_from([*LISTS]), PAGES, LINKS, st.integers(1, 10**6), st.integers(0, 200))
def test_any_reply_gives_a_cursor_of_its_row_or_the_end_or_a_value_error(
    style: Style, page: Any, link: str, start: int, got: int
) -> None:
    row, keys = LISTS[style]
    try:
        cursor = next_cursor(style, page, {"Link": link}, {"startIndex": str(start)}, got)
    except ValueError:
        return
    path = row.path.partition("{")[0]
    saved = write_position(path, cursor)
    assert read_position(row, path, saved) == cursor
    if cursor is not None:
        assert tuple(cursor) in keys
        assert all(0 < len(text) <= 2048 and text.isprintable() for text in cursor.values())
        assert row.target({**cursor, "conversation_id": 7}).startswith(path)


@given(st.sampled_from([*LISTS]), ADDRESSES, st.booleans())
def test_any_text_as_a_position_is_one_of_its_list_or_a_cursor_error(
    style: Style, text: str, whole: bool
) -> None:
    row, keys = LISTS[style]
    try:
        cursor = read_position(row, row.path, row.path + text if whole else text)
    except CursorError as error:
        caught = error
    else:
        assert cursor is None or tuple(cursor) in keys
        return
    assert caught.applied is False
    assert len(str(caught)) < 100
