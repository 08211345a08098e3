"""Cursors of the next page, and saved positions, from whatever text a server or a user gives."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import given, strategies as st

from drift_async import CursorError
from drift_async.core.cursors import next_cursor, read_position, write_position
from drift_async.core.request import Endpoint, Style
from drift_async.resources import accounts, contacts, conversations, scim

ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.text("./\\%2eEfF?#@:;&=+ \ud800\0")
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
