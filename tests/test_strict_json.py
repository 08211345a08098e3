"""The strict JSON reader and writer: the same verdict with either library below."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_async import InputError
from drift_async.core import strict_json
from drift_async.core.strict_json import MAX_DEPTH, dumps, loads, plain

pytestmark = pytest.mark.smoke

LIBRARIES: list[Callable[[bytes], Any] | None] = [None]
try:
    import orjson
except ImportError:
    pass
else:
    LIBRARIES.append(orjson.loads)


@pytest.fixture(params=LIBRARIES, ids=lambda library: "orjson" if library else "json")
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "_fast_loads", request.param)


def nested(levels: int, open_: bytes = b"[", close: bytes = b"]") -> bytes:
    return open_ * levels + b"1" + close * levels


ACCEPTED: list[tuple[bytes, Any]] = [
    (b"null", None),
    (b" {} ", {}),
    (b'{"a": 1, "a": 2}', {"a": 2}),
    (b"18446744073709551616", 2**64),
    (b"-9223372036854775809", -(2**63) - 1),
    (b"1" * 4000, int("1" * 4000)),
    (b'{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
    (b"1.5e300", 1.5e300),
    (b"-0", 0),
    (b'"\\ud83d\\ude00"', "\U0001f600"),
    (b'"\\\\ud800"', "\\ud800"),
    ('"ü\U0001f600"'.encode(), "ü\U0001f600"),
    (b'"\\u0000"', "\x00"),
    (nested(MAX_DEPTH), "deep"),
    (nested(MAX_DEPTH, b'{"a":', b"}"), "deep"),
    (b"[" + b",".join([b'{"a":[1]}'] * 500) + b"]", [{"a": [1]}] * 500),
    (b'["' + b"[{" * 500 + b'"]', ["[{" * 500]),
    (b'["\\"' + b"[" * 500 + b'"]', ['"' + "[" * 500]),
]
REFUSED = [
    b"",
    b"  ",
    b"NaN",
    b"[Infinity]",
    b"-Infinity",
    b"1e400",
    b"-1e400",
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    "{}".encode("utf-32"),
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'{"\\uDBFF": 1}',
    b'"\\ud800x"',
    b"1" * 5000,
    nested(MAX_DEPTH + 1),
    nested(MAX_DEPTH + 1, b'{"a":', b"}"),
    nested(1100),
    nested(100_000),
    b"[" * 100,
    b"{]" * 100,
    b"[1,]",
    b"{'a': 1}",
    b"01",
    b"+1",
    b".5",
    b"1.",
    b'"\t"',
    b"// x\n1",
    b"{} {}",
    b"<html>",
    b"undefined",
]


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(("text", "value"), ACCEPTED, ids=lambda value: repr(value)[:30])
def test_json_is_read_exactly(text: bytes, value: Any) -> None:
    read = loads(text)
    if value != "deep":
        assert read == value
        assert type(read) is type(value)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("text", REFUSED, ids=lambda value: repr(value)[:30])
def test_what_is_not_strict_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="JSON"):
        loads(text)


@pytest.mark.usefixtures("_library")
def test_a_million_brackets_are_refused_quickly_from_deep_code() -> None:
    def at_depth(frames: int) -> None:
        if frames:
            at_depth(frames - 1)
        else:
            with pytest.raises(ValueError, match="JSON"):
                loads(b"[" * 1_000_000)

    began = time.process_time()
    at_depth(max(0, sys.getrecursionlimit() - 200 - len(__import__("inspect").stack())))
    assert time.process_time() - began < 0.5


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('abc[]{}\\"'), inner),
    max_leaves=30,
)


@given(JSON)
def test_what_is_written_reads_back_equal(value: Any) -> None:
    assert loads(dumps(value)) == value
    assert plain("value", value) == value


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()[:-1]))
def test_no_bytes_make_the_reader_fail_otherwise(text: bytes) -> None:
    with contextlib.suppress(ValueError):  # anything else would be a fault
        loads(text)


class Plan(StrEnum):
    PRO = "pro"


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": (1, [2.5, None, True])}, {"a": [1, [2.5, None, True]]}),
        ({"plan": Plan.PRO, "name": Name("Ada")}, {"plan": "pro", "name": "Ada"}),
        (datetime(2020, 1, 1, tzinfo=UTC), 1_577_836_800_000),
        (datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC), 253_402_300_799_999),
    ],
)
def test_what_users_give_becomes_plain_json(value: Any, expected: Any) -> None:
    assert plain("field", value) == expected
    assert json.loads(dumps(plain("field", value))) == expected


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (float("nan"), "at"),
        ([1, float("-inf")], "at[1]"),
        ({"a": {"b": b"x"}}, "at.a.b"),
        ({"a": {1: 2}}, "at.a"),
        ({"a": {1, 2}}, "at.a"),
        ({"a": object()}, "at.a"),
        ({"a": 1j}, "at.a"),
        ({"a": "\ud800"}, "at.a"),
        ({"\udfff": 1}, "at (a key)"),
        ({"a": datetime(2020, 1, 1)}, "at.a"),  # noqa: DTZ001  # naive is what is refused
    ],
)
def test_what_is_not_json_is_refused_with_its_path(value: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        plain("at", value)
    assert caught.value.field == field


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InputError, match="nested"):
        plain("at", value)
