"""The strict JSON reader and writer: the same verdict with either library below."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, strategies as st

from drift_async import InputError
from drift_async.core import strict_json
from drift_async.core.strict_json import dumps, loads, to_plain_json
from tests.support.json_corners import (
    NO_NUMBERS,
    NO_STRINGS,
    NO_STRUCTURES,
    NO_UTF_8,
    NUMBERS,
    STRINGS,
    STRUCTURES,
)

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


def corners(*tables: Any) -> list[Any]:
    found = [(text, ...) if isinstance(text, str | bytes) else text for t in tables for text in t]
    found = [(text.encode() if isinstance(text, str) else text, value) for text, value in found]
    assert len(found) == len({text for text, _ in found})
    return [pytest.param(*one, id=f"{n}-{one[0][:20]!r}") for n, one in enumerate(found)]


ACCEPTED = corners(NUMBERS, STRINGS, STRUCTURES)
REFUSED = corners(NO_NUMBERS, NO_STRINGS, NO_STRUCTURES, NO_UTF_8)
NEVER = corners(NO_NUMBERS, NO_STRINGS)


def test_there_are_corners_enough() -> None:
    assert len(ACCEPTED) > 150
    assert len(REFUSED) > 250


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(("text", "value"), ACCEPTED)
def test_json_is_read_exactly(text: bytes, value: Any) -> None:
    read = loads(text, limit_depth=True)
    assert json.dumps(loads(text)) == json.dumps(read)
    if value is not ...:  # which stands for what is only deep
        assert read == value
        # By their JSON, 1 differs from 1.0 and from true, and 0.0 from -0.0.
        assert json.dumps(read) == json.dumps(value)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(("text", "_"), REFUSED)
def test_what_is_not_strict_json_is_a_value_error(text: bytes, _: object) -> None:
    with pytest.raises(ValueError, match="JSON") as caught:
        loads(text, limit_depth=True)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 60


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(("text", "_"), NEVER)
def test_nor_is_it_inside_of_something_else(text: bytes, _: object) -> None:
    for whole in (b"[" + text + b"]", b'{"a":' + text + b"}", b'[0,{"a":[' + text + b"]}]"):
        with pytest.raises(ValueError, match="JSON"):
            loads(whole)


def far_down(frames: int, work: Callable[[], None]) -> None:
    """Run *work* so many frames deep."""
    if frames:
        far_down(frames - 1, work)
    else:
        work()


@pytest.mark.usefixtures("_library")
def test_deep_code_reads_what_nests_and_refuses_a_million_brackets_at_once() -> None:
    spent: list[float] = []

    def work() -> None:
        assert loads(b"[" * 64 + b"]" * 64)
        for hostile in (b"[" * 1_000_000, b'{"a":' * 200_000):
            for limit_depth in (True, False):
                began = time.thread_time()
                with pytest.raises(ValueError, match="levels" if limit_depth else "JSON"):
                    loads(hostile, limit_depth=limit_depth)
                spent.append(time.thread_time() - began)

    assert sys.getrecursionlimit() == 1000
    with ThreadPoolExecutor(1) as fresh:  # where no frame of a test runner is below
        fresh.submit(far_down, 890, work).result()
    assert max(spent) < 0.05


def test_to_tell_the_depth_takes_time_by_size_only() -> None:
    for hostile in (
        b"[" * 65 + b'"' + b'\\"' * 500_000,
        b"[" * 65 + b'"' * 1_000_000,
        b"[" * 65 + b'"' + b"\\" * 1_000_000,
        b"[" + b",".join([b"[" * 63 + b"]" * 63] * 8_000) + b"]",
        b"[" + b",".join([b"[" * 64 + b"]" * 64] * 8_000) + b"]",
        b"[" + b",".join([b'"[",[],"]",{}'] * 70_000) + b"]",
        b'["]",' * 200_000,
        b"]" * 1_000_000,
        b"[" + b"][".join([b'[]""' * 60_000] * 4) + b"]",
        b"[][" + b'[[[[""]]]]""' * 80_000 + b"][" + b"[" * 65,
        b"][" * 500_000,
    ):
        began = time.thread_time()
        strict_json._is_deep(hostile)
        assert time.thread_time() - began < 0.25, hostile[60:80]


@pytest.mark.usefixtures("_library")
def test_a_long_integer_is_refused_also_where_python_would_take_it() -> None:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        assert loads(b"[%s]" % (b"7" * 4300)) == [int("7" * 4300)]
        assert loads(b'["%s"]' % (b"7" * 5000)) == ["7" * 5000]
        for digits in (b"7" * 4301, b"-" + b"7" * 4301, b"7" * 1_000_000):
            with pytest.raises(ValueError, match="not JSON"):
                loads(b"[%s]" % digits)
    finally:
        sys.set_int_max_str_digits(limit)


def levels(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + max(map(levels, inner), default=0)


MARKS = st.text('[]{}"\\a')
NESTED = st.recursive(
    MARKS | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(MARKS, inner),
    max_leaves=12,
)


def is_deep(value: Any, most: int) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "MAX_DEPTH", most)
        return strict_json._is_deep(json.dumps(value).encode())


@given(NESTED, st.integers(0, 6))
def test_the_depth_is_found_without_parsing(value: Any, most: int) -> None:
    assert is_deep(value, most) is (levels(value) > most)


@given(NESTED, NESTED, st.integers(0, 4), st.integers(0, 3), st.integers(0, 9))
def test_rows_that_nest_alike_hide_no_depth(
    row: Any, odd: Any, place: int, level: int, most: int
) -> None:
    value: Any = [odd if n == place else row for n in range(5)]
    for n in range(level):
        value = [row, row, value, row] if n % 2 else {"data": value, "next": row}
    assert is_deep(value, most) is (levels(value) > most)


@pytest.mark.parametrize("place", range(4))
def test_a_deep_row_counts_wherever_it_is(place: int) -> None:
    for depth in (62, 63, 64):
        value = [nested(depth) if n == place else [] for n in range(4)]
        assert is_deep(value, 64) is (depth + 1 > 64)


@pytest.mark.usefixtures("_library")
def test_a_bracket_in_a_text_does_not_make_rows_even() -> None:
    assert loads(b'[["]"],' * 63 + b"1" + b"]" * 63)
    with pytest.raises(ValueError, match="levels"):
        loads(b'[["]"],' * 64 + b"1" + b"]" * 64, limit_depth=True)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("text", ["]", "[", "][", "]]]", '"]', '\\"]', "}{", "],["])
def test_a_large_body_is_refused_from_the_same_depth_on(text: str) -> None:
    row = {"name": text, "tags": [{"name": text}], text: [[text], [1]]}
    for depth, odd in ((64, nested(62)), (65, nested(63))):
        for n in (0, 1, 2, 99, 199):
            body = json.dumps({"data": [odd if i == n else row for i in range(200)]}).encode()
            if depth == 64:
                assert loads(body, limit_depth=True)["data"][n] == odd
            else:
                with pytest.raises(ValueError, match="levels"):
                    loads(body, limit_depth=True)


def test_each_reader_refuses_what_nests_deeper_than_it_can_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for library, most in zip(LIBRARIES, (64, 1024), strict=False):
        monkeypatch.setattr(strict_json, "_fast_loads", library)
        assert loads(b"[" * most + b"]" * most)
        with pytest.raises(ValueError, match="JSON"):
            loads(b"[" * (most + 1) + b"]" * (most + 1))


SMALL_STACK = """
import sys, threading
from drift_async.core import strict_json
from drift_async.errors import CallInfo, error_from_response

def work():
    for hostile in (b"[" * n + b"]" * n for n in (65, 1_000, 1_024, 20_000, 500_000)):
        for inner in (b"", b"9" * 20):
            try:
                strict_json.loads(hostile.replace(b"[]", b"[" + inner + b"]"))
            except ValueError:
                pass
    error_from_response(CallInfo(operation="GET /", status=400), {}, b"[" * 60_000)
    done.append(True)

if sys.argv[1] == "json":
    strict_json._fast_loads = None
done = []
threading.stack_size(128 * 1024)
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert done
"""


@pytest.mark.parametrize("library", ["json", "orjson"])
def test_no_depth_overflows_the_stack_of_a_small_thread(library: str) -> None:
    subprocess.run([sys.executable, "-c", SMALL_STACK, library], check=True)


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**19, 10**20, 10**4299])
def test_a_long_integer_is_exact_wherever_it_is(number: int) -> None:
    for before in range(16):
        assert loads(b'["%s",%d]' % (b"x" * before, number)) == ["x" * before, number]
    for like in (
        "-" * 60,
        "2022-09-30 2022-10-01 2022-10-02",
        "0f4c1d22-1234-1234-1234-123456789012",
    ):
        assert loads(json.dumps([like, number]).encode()) == [like, number]
        assert loads(json.dumps([like, 1.5]).encode()) == [like, 1.5]


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
    assert to_plain_json("value", value) == value


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
    assert to_plain_json("field", value) == expected
    assert json.loads(dumps(to_plain_json("field", value))) == expected


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
        to_plain_json("at", value)
    assert caught.value.field == field


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InputError, match="nested"):
        to_plain_json("at", value)
