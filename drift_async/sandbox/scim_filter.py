"""SCIM filters (RFC 7644 3.4.2.2): eq, sw, co, pr, and, or, brackets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from .types import Json, Refusal

Test = Callable[[Json], bool]

NAMES: Final = {
    name.lower(): name for name in ("id", "userName", "displayName", "active", "emails.value")
}
DEEPEST: Final = 50
_WORD: Final = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[()]|[^\s()"]+)')


def _wrong(why: str) -> Refusal:
    return Refusal(400, f"filter: {why}", scim_type="invalidFilter")


def parse(text: str) -> Test:
    """Return a test of SCIM users; raise a 400 `invalidFilter` if the text is not a filter."""
    words, position = [], 0
    text = text.rstrip()
    while position < len(text):
        found = _WORD.match(text, position)
        if found is None:
            raise _wrong("cannot be read")
        words.append(found[1])
        position = found.end()
    test = _either(words, 0)
    if words:
        raise _wrong("has words after its end")
    return test


def _next_is(words: list[str], word: str) -> bool:
    if words and words[0].lower() == word:
        del words[0]
        return True
    return False


def _either(words: list[str], depth: int) -> Test:
    tests = [_both(words, depth)]
    while _next_is(words, "or"):
        tests.append(_both(words, depth))
    return lambda row: any(test(row) for test in tests)


def _both(words: list[str], depth: int) -> Test:
    tests = [_term(words, depth)]
    while _next_is(words, "and"):
        tests.append(_term(words, depth))
    return lambda row: all(test(row) for test in tests)


def _term(words: list[str], depth: int) -> Test:
    if _next_is(words, "("):
        if depth == DEEPEST:
            raise _wrong("is nested too deeply")
        test = _either(words, depth + 1)
        if not _next_is(words, ")"):
            raise _wrong("lacks a closing bracket")
        return test
    name = NAMES.get(words.pop(0).lower()) if words else None
    if name is None:
        raise _wrong("names no known attribute")
    operator = words.pop(0).lower() if words else ""
    if operator == "pr":
        return lambda row: any(value not in (None, "") for value in _values(row, name))
    if operator not in ("eq", "sw", "co"):
        raise _wrong("has an operator other than eq, sw, co, pr")
    try:
        wanted = json.loads(words.pop(0))
    except (IndexError, ValueError, RecursionError):
        raise _wrong("lacks a value in quotes, a number, true or false") from None
    return _comparison(name, operator, wanted)


def _values(row: Json, name: str) -> list[Any]:
    if name == "emails.value":
        return [one.get("value") for one in row["emails"]]
    return [row.get(name)]


def _comparison(name: str, operator: str, wanted: Any) -> Test:
    if operator != "eq" and not isinstance(wanted, str):
        raise _wrong("compares a part with something that is not text")

    def fold(value: Any) -> Any:
        return value.lower() if isinstance(value, str) and name != "id" else value

    wanted = fold(wanted)

    def test(row: Json) -> bool:
        for value in map(fold, _values(row, name)):
            if operator == "eq":
                if type(value) is type(wanted) and value == wanted:
                    return True
            elif isinstance(value, str) and (
                value.startswith(wanted) if operator == "sw" else wanted in value
            ):
                return True
        return False

    return test
