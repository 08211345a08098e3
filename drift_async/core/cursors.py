"""Cursors: where the next page of a list is, in five styles, and as a text that can be saved.

Of the address that a server gives for the next page, only the cursor keys of the style are used.
The request is built anew on the endpoint's own path, so a response cannot lead elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from ..errors import CallInfo, CursorError
from .request import Endpoint, Style

Cursor = dict[str, str]
"""Query parameters that select a page; none for the first one."""

_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_REL_NEXT = re.compile(r";\s*rel\s*=\s*(?:'next'|\"next\"|next)\s*(?:[;,]|$)", re.IGNORECASE)
_MAYBE_NEXT = re.compile(r"\brel\b[^;,]*\bnext\b", re.IGNORECASE)
_KEYS: Mapping[Style, tuple[str, ...]] = {
    "links": ("page_token",),
    "pagination": ("next",),
    "next_url": ("index", "size"),
    "link_header": ("cursor",),
    "scim": ("startIndex",),
}
# Besides its own key, the list of conversations may page by the older `next`.
_POSITION_KEYS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    style: (keys, ("next",)) if style == "links" else (keys,) for style, keys in _KEYS.items()
}
_NUMBERS = frozenset({"index", "size", "startIndex"})


def next_cursor(
    style: Style | None, value: Any, headers: Mapping[str, str], at: Cursor, count: int
) -> Cursor | None:
    """Return the cursor of the next page, or None at the end.

    *value* is the JSON of the page at cursor *at*, which holds *count* items. Raises ValueError if
    there are more pages and the response does not say where.
    """
    match style:
        case "links":
            links = _inner_map(value, "links")
            if links.get("next") is not None:
                return _from_address(style, links["next"])
            return _from_pagination(value)
        case "pagination":
            return _from_pagination(value)
        case "next_url":
            address = _inner_map(value, "data").get("next")
            return None if address is None else _from_address(style, address)
        case "link_header":
            # A header may come several times; a plain mapping has only one of them.
            get_all = getattr(headers, "getall", None)
            return _from_link(
                ", ".join(get_all("Link", ())) if get_all else headers.get("Link", "")
            )
        case "scim":
            return _after_scim(value, at, count)
    return None


def _inner_map(value: Any, key: str) -> Mapping[str, Any]:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _from_address(style: Style, address: object) -> Cursor:
    if not isinstance(address, str):
        raise ValueError("the address of the next page is not a text")
    found = parse_qs(
        urlsplit(address).query, keep_blank_values=True, errors="strict", max_num_fields=100
    )
    cursor = {}
    for key in _KEYS[style]:
        match found.get(key):
            case [str(text)]:
                cursor[key] = text
            case _:
                raise ValueError(f"the address of the next page has not one {key}")
    return _checked(cursor)


def _from_pagination(value: Any) -> Cursor | None:
    pagination = _inner_map(value, "pagination")
    more = pagination.get("more", False)
    if more is not True and more is not False:
        raise ValueError("more is neither true nor false")
    if not more:
        return None
    following = pagination.get("next")
    if not isinstance(following, str):
        raise ValueError("there are more pages, and no text says where")
    return _checked({"next": following})


def _from_link(header: str) -> Cursor | None:
    for address, parameters in _LINK.findall(header):
        if _REL_NEXT.search(parameters):
            return _from_address("link_header", address)
    if _MAYBE_NEXT.search(header):
        raise ValueError("the Link header cannot be read")
    return None


def _after_scim(value: Any, at: Cursor, count: int) -> Cursor | None:
    total = value.get("totalResults") if isinstance(value, dict) else None
    if type(total) is not int:
        raise ValueError("totalResults is not a number")
    start = int(at.get("startIndex", "1")) + count
    if start > total:
        return None
    if count == 0:
        raise ValueError("there are more results, and the page is empty")
    return {"startIndex": str(start)}


def _checked(cursor: Cursor) -> Cursor:
    for key, text in cursor.items():
        if not 0 < len(text) <= 2048 or not text.isprintable() or not text.isascii():
            raise ValueError(f"{key} is empty, too long or not printable")
        if key in _NUMBERS and not (text.isdecimal() and len(text) < 19):
            raise ValueError(f"{key} is not a number")
    return cursor


def write_position(path: str, cursor: Cursor | None) -> str:
    """Return the text to save for a cursor, or for the end of the list if *cursor* is None."""
    return f"{path}{'#end' if cursor is None else '?' + urlencode(cursor)}"


def read_position(endpoint: Endpoint[Any], path: str, text: object) -> Cursor | None:
    """Return the cursor of a saved position, None for the end; raise `CursorError` if it is bad."""
    if isinstance(text, str) and len(text) <= 8192:
        if text == f"{path}#end":
            return None
        found, _, rest = text.partition("?")
        cursor = dict(parse_qsl(rest, keep_blank_values=True))
        if found == path and tuple(cursor) in _POSITION_KEYS.get(endpoint.pages or "", ()):
            try:
                return _checked(cursor)
            except ValueError:
                pass
    info = CallInfo(operation=endpoint.name, applied=False)
    raise CursorError("not a position of this list", info)
