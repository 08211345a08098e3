"""What users give becomes JSON that every library reads alike, or is refused by its place."""

from __future__ import annotations

import json
import types
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given, strategies as st

from drift_async import UNSET, Contact, FrozenMap, InputError, Secret
from drift_async.core import validate
from drift_async.core.strict_json import dumps, loads, to_plain_json

try:
    import orjson
except ImportError:  # one of the three that may not be there
    orjson = None  # type: ignore[assignment]

pytestmark = pytest.mark.smoke


class Plan(StrEnum):
    PRO = "pro"


class Level(IntEnum):
    HIGH = 3


class Odd(Enum):
    NAN = float("nan")
    PAIR = (1, "x")
    NONE = None


class Name(str):
    __slots__ = ()


class Number(int):
    pass


class Point(NamedTuple):
    x: Any
    y: Any


ANY_TEXT = st.text(st.characters(exclude_categories=()))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**4400), 10**4400),
    st.floats(),
    ANY_TEXT,
    ANY_TEXT.map(Name),
    st.integers().map(Number),
    st.sampled_from([*Plan, *Level, *Odd, UNSET, ..., NotImplemented, int, print]),
    st.binary(),
    st.binary().map(bytearray),
    st.datetimes(timezones=st.just(UTC) | st.none()),
    st.dates(),
    st.timedeltas(),
    st.decimals(),
    st.complex_numbers(),
    st.uuids(),
    st.frozensets(st.integers()),
    st.builds(Secret, st.text()),
    st.builds(range, st.integers(0, 5)),
    st.builds(object),
    st.builds(Contact, id=st.integers()),
)
KEYS = ANY_TEXT | ANY_TEXT.map(Name) | st.sampled_from([*Plan, *Level, 1, None, (), b"x", 1.5])


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    maps = st.dictionaries(KEYS, inner, max_size=4)
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.builds(Point, inner, inner),
        maps,
        maps.map(OrderedDict),
        maps.map(types.MappingProxyType),
        st.dictionaries(ANY_TEXT, inner, max_size=3).map(FrozenMap),
        st.lists(inner, max_size=3).map(iter),
    )


def numbers(value: Any) -> list[int]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] if isinstance(value, int) else [n for one in inner for n in numbers(one)]


def written(work: Callable[..., Any], *args: Any) -> tuple[Any, str]:
    """Return what comes of it, or the place at which it was refused."""
    try:
        return work(*args), ""
    except InputError as error:
        return None, str(error)


@given(st.recursive(SCALARS, containers, max_leaves=8))
@example({"a": [1, {"b": float("nan")}]})
@example({"a": {"\ud800": 1}})
@example({"a": 2**14280 - 1, "b": 1 - 2**14280})
@example({"a": -0.0, "b": 5e-324, "c": 1.7976931348623157e308, "d": 2**63, "e": -(2**63)})
def test_any_value_is_refused_by_its_place_or_reads_back_equal_everywhere(value: Any) -> None:
    data, place = written(to_plain_json, "at", value)
    if place:
        assert place.startswith(("at:", "at.", "at[", "at (a key)"))
        return
    body = dumps(data)
    assert json.loads(body) == loads(body) == msgspec.json.decode(body) == data
    if orjson is not None and all(-(2**63) <= n < 2**64 for n in numbers(data)):
        assert orjson.loads(body) == data
    assert json.dumps(loads(body)) == json.dumps(data)  # 1, 1.0 and true are not the same here


@given(st.dictionaries(ANY_TEXT, st.recursive(SCALARS, containers, max_leaves=4)))
def test_attributes_hold_no_null_of_their_own(value: dict[str, Any]) -> None:
    fields, place = written(validate.attributes, "attributes", value)
    if place:
        assert place.startswith("attributes")
        return
    assert None not in fields.values()
    assert fields.keys() == value.keys()
    assert loads(dumps(fields)) == fields


def test_a_secret_in_a_list_of_a_frozen_map_is_refused_with_its_place() -> None:
    value = {"a": FrozenMap({"b": [1, {"c": Secret("token")}]})}
    with pytest.raises(InputError) as caught:
        validate.attributes("attributes", value)
    assert caught.value.field.startswith("attributes")


@pytest.mark.parametrize(
    "value",
    [
        *(b"x", bytearray(b"x"), memoryview(b"x"), {1}, frozenset(), iter([1]), range(3), object()),
        *(1j, Decimal(1), UUID(int=0), timedelta(1), date(2026, 1, 1), datetime(2026, 1, 1)),  # noqa: DTZ001
        *(float("nan"), float("inf"), 10**4300, "\ud800", Odd.NAN, UNSET, ..., int, Contact(id=7)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_json_is_refused(value: Any) -> None:
    for whole, place in ((value, "at"), ([0, value], "at[1]"), ({"a": {"b": value}}, "at.a.b")):
        with pytest.raises(InputError) as caught:
            to_plain_json("at", whole)
        assert caught.value.field == place
