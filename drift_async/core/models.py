"""Base classes of the models, and their way to JSON and back.

Nothing that the API sends is lost: unknown fields are kept in ``extra``, unknown words in open
enums, and a null is written back as null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, TypeVar, dataclass_transform

import attrs

from ..errors import InputError
from . import validate
from .converter import (
    NO_EXTRA,
    ModelReader,
    StructureError,
    converter,
    exactly,
    structure,
)
from .secret import Secret
from .strict_json import EPOCH, MILLISECOND, to_plain_json

T = TypeVar("T")


class FrozenMap(Mapping[str, Any]):
    """A map that does not change: attributes, unknown fields and other free-form data.

    Maps inside of it are returned as frozen maps too, and lists as copies.
    """

    __slots__ = ("_data",)
    _data: Mapping[str, Any]

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        object.__setattr__(self, "_data", dict(data or {}))

    @classmethod
    def _around(cls, data: Mapping[str, Any]) -> FrozenMap:
        """Return a map that owns *data* without a copy; nobody else may change *data*."""
        self = object.__new__(cls)
        object.__setattr__(self, "_data", data)
        return self

    def __getitem__(self, key: str) -> Any:
        value = self._data[key]
        if type(value) is list:
            return _copied(value)
        return FrozenMap._around(value) if type(value) is dict else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenMap):
            return self._data == other._data
        return self._data == other if isinstance(other, dict) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a value may be a list

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("this map does not change")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._data,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._data)})"


def _copied(value: Any) -> Any:
    """Return *value* with its lists and dicts copied, at all levels."""
    if type(value) is list:
        return [_copied(one) for one in value]
    if type(value) is dict:
        return {key: _copied(one) for key, one in value.items()}
    return value


class OpenEnum(StrEnum):
    """An open set of words: a word that this release does not know is kept as it came."""

    @classmethod
    def _missing_(cls, value: object) -> OpenEnum | None:
        if not isinstance(value, str):
            return None
        word = str.__new__(cls, value)
        word._name_ = value
        word._value_ = value
        return word


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(attrs.field,))
def model(cls: type[T]) -> type[T]:
    """Declare a model: frozen, slotted, keyword-only, unhashable, with a short repr."""
    return attrs.define(cls, frozen=True, kw_only=True, repr=False, unsafe_hash=False)


@model
class Model:
    """Base of the models. ``extra`` holds the fields that this release does not know."""

    # A plain dict, because a FrozenMap for each row would slow down reading.
    _extra: Mapping[str, Any] = attrs.field(default=NO_EXTRA, alias="extra", converter=dict)
    # Wire names of the fields that came as null, so that they are not written as absent.
    _nulls: tuple[str, ...] = attrs.field(default=(), eq=False)

    wire: ClassVar[Mapping[str, str]] = {}
    """The API's names of fields, where they are not the camel case of ours."""

    @property
    def extra(self) -> Mapping[str, Any]:
        """The fields that this release does not know."""
        return FrozenMap._around(self._extra)

    def __repr__(self) -> str:
        key = getattr(self, "id", None)
        return f"{type(self).__name__}({'' if key is None else f'id={key!r}'})"

    def __rich_repr__(self) -> Iterator[tuple[str, Any, None]]:
        """Yield the id only: without this method, rich's tracebacks show every field of attrs."""
        yield "id", getattr(self, "id", None), None


@cache
def wire_names(kind: Any) -> dict[str, str]:
    """Return the API's name for each field of a model: its camel case, or the one in ``wire``."""
    names = {}
    for field in attrs.fields(kind):
        if field.name not in ("_extra", "_nulls"):
            head, *rest = field.name.split("_")
            camel = head + "".join(part.capitalize() for part in rest)
            names[field.name] = kind.wire.get(field.name, camel)
    return names


def to_json(value: Model) -> dict[str, Any]:
    """Return the JSON value of a model in Drift's own spelling, with nothing lost.

    Secrets (the token in a `TokenInfo`) are revealed.
    """
    data: dict[str, Any] = {}
    kind: Any = type(value)
    for name, wire in wire_names(kind).items():
        item = getattr(value, name)
        if item is not None:
            data[wire] = _to_json(item)
        elif wire in value._nulls:
            data[wire] = None
    data.update(_to_json(value.extra))
    return data


def _to_json(value: Any) -> Any:
    if isinstance(value, Model):
        return to_json(value)
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return round((value - EPOCH) / MILLISECOND)
    if isinstance(value, Secret):
        return value.reveal()
    return value.value if isinstance(value, OpenEnum) else value


def from_json(kind: type[T], value: Any) -> T:
    """Return the model that plain JSON data describes; the reverse of `to_json`.

    Raises `InputError` with the path of the field that does not fit.
    """
    try:
        result: T = structure(deepcopy(value), kind)
    except StructureError as error:
        raise InputError(error.path, error.detail) from None
    return result


def body_of(field: str, value: object, kind: type[Model]) -> dict[str, Any]:
    """Return the JSON of a model that a user made, or raise `InputError` with the faulty field."""
    given = validate.require_type(field, value, kind)
    data: dict[str, Any] = to_plain_json(field, to_json(given))
    try:
        structure(data, kind)
    except StructureError as error:
        raise InputError(field + error.path.removeprefix("$"), error.detail) from None
    return data


def _structure_map(value: Any, kind: type[FrozenMap]) -> FrozenMap:
    return kind._around(exactly(dict, value, "map"))


def _structure_word(value: Any, kind: type[OpenEnum]) -> Any:
    return kind(exactly(str, value, "str"))


def _structure_secret(value: Any, _: Any) -> Secret:
    return Secret(exactly(str, value, "str"))


def _is_subclass_of(parent: type) -> Callable[[Any], bool]:
    return lambda kind: isinstance(kind, type) and issubclass(kind, parent)


converter.register_structure_hook(OpenEnum, _structure_word)
converter.register_structure_hook(Secret, _structure_secret)
converter.register_structure_hook_func(_is_subclass_of(FrozenMap), _structure_map)
converter.register_structure_hook_factory(
    _is_subclass_of(Model), lambda kind: ModelReader(kind, wire_names(kind))
)


def choose_class(kind: type[Model], choose: Callable[[dict[str, Any]], type[Model]]) -> None:
    """Have *choose* return the subclass of exactly this *kind* that JSON data is read as."""

    def structure_chosen(value: Any, _: Any) -> Model:
        chosen = choose(exactly(dict, value, "map"))
        result: Model = converter.get_structure_hook(chosen)(value, chosen)
        return result

    converter.register_structure_hook_func(lambda wanted: wanted is kind, structure_chosen)
