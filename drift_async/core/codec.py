"""Models and their JSON: one cattrs converter, strict about types and generous about the rest.

What the API sends beyond the documentation is kept: unknown fields in ``extra``, unknown words in
open enums, an explicit null as null. What has the wrong type is an error that names the place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from types import GenericAlias
from typing import Any, ClassVar, Final, TypeVar, dataclass_transform, get_args, get_origin

import attrs
from cattrs import BaseConverter, Converter, transform_error
from cattrs.errors import BaseValidationError
from cattrs.gen import make_dict_structure_fn, mapping_structure_factory, override

from ..errors import InputError
from .discreet import discreet
from .secret import Secret
from .straight import StraightReader, can_be_straight
from .strict_json import EPOCH, MILLISECOND, plain

T = TypeVar("T")

StructureHook = Callable[[Any, Any], Any]


class Frozen(Mapping[str, Any]):
    """A map that does not change: attributes, unknown fields and other free-form data.

    Maps inside of it come out as such maps too, and lists as copies.
    """

    __slots__ = ("_data",)
    _data: Mapping[str, Any]

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        object.__setattr__(self, "_data", dict(data or {}))

    @classmethod
    def _around(cls, data: Mapping[str, Any]) -> Frozen:
        """Take over *data*, which nobody else holds, without a copy."""
        self = object.__new__(cls)
        _set_data(self, data)
        return self

    def __getitem__(self, key: str) -> Any:
        value = self._data[key]
        if type(value) is list:
            return _copied(value)
        return Frozen._around(value) if type(value) is dict else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Frozen):
            return self._data == other._data
        return self._data == other if isinstance(other, dict) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it may hold lists

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("this map does not change")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._data,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._data)})"


def _copied(value: Any) -> Any:
    """Return a copy of the lists and maps in *value*; all else is taken as it is."""
    if type(value) is list:
        return [_copied(one) for one in value]
    if type(value) is dict:
        return {key: _copied(one) for key, one in value.items()}
    return value


_set_data = vars(Frozen)["_data"].__set__
_NOTHING: Final[dict[str, Any]] = {}


class Word(StrEnum):
    """An open set of words: a word that this release does not know is kept as it came."""

    @classmethod
    def _missing_(cls, value: object) -> Word | None:
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

    # Wrapped when asked for, not for each row that is read.
    _extra: Mapping[str, Any] = attrs.field(default=_NOTHING, alias="extra", converter=dict)
    # Fields that came as null, which reads like absent but is written back as it came.
    _nulls: frozenset[str] = attrs.field(default=frozenset(), eq=False)

    wire: ClassVar[Mapping[str, str]] = {}
    """Names on the wire that are not the camel case of ours."""

    @property
    def extra(self) -> Mapping[str, Any]:
        """The fields that this release does not know."""
        return Frozen._around(self._extra)

    def __repr__(self) -> str:
        key = getattr(self, "id", None)
        return f"{type(self).__name__}({'' if key is None else f'id={key!r}'})"

    def __rich_repr__(self) -> Iterator[tuple[str, Any, None]]:
        """Tell rich no more than that: left alone, its tracebacks show every field of attrs."""
        yield "id", getattr(self, "id", None), None


def to_json(value: Model) -> dict[str, Any]:
    """Return the JSON value of a model in Drift's own spelling, with nothing lost.

    Secrets (the token in a `TokenInfo`) are revealed.
    """
    data: dict[str, Any] = {}
    kind: Any = type(value)
    for name, wire in _wire_names(kind).items():
        item = getattr(value, name)
        if item is not None:
            data[wire] = _written(item)
        elif wire in value._nulls:
            data[wire] = None
    data.update(_written(value.extra))
    return data


def _written(value: Any) -> Any:
    if isinstance(value, Model):
        return to_json(value)
    if isinstance(value, Mapping):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_written(item) for item in value]
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return round((value - EPOCH) / MILLISECOND)
    if isinstance(value, Secret):
        return value.reveal()
    return value.value if isinstance(value, Word) else value


@discreet
def from_json(kind: type[T], value: Any) -> T:
    """Return the model that plain JSON data describes; the reverse of `to_json`.

    Raises `InputError` with the path of the field that does not fit.
    """
    try:
        result: T = structure(deepcopy(value), kind)
    except MisfitError as error:
        raise InputError(error.path, error.detail) from None
    return result


def body_of(field: str, value: object, kind: type[Model]) -> dict[str, Any]:
    """Return the JSON of a model that a user made, or raise `InputError` with the faulty field."""
    if not isinstance(value, kind):
        raise InputError(field, f"must be a {kind.__name__}")
    data: dict[str, Any] = plain(field, to_json(value))
    try:
        structure(data, kind)
    except MisfitError as error:
        raise InputError(field + error.path.removeprefix("$"), error.detail) from None
    return data


class MisfitError(Exception):
    """JSON data does not fit its type: where, and what was wanted."""

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path = path
        self.detail = detail


def structure(value: Any, kind: Any) -> Any:
    """Return JSON data as *kind*, or raise `MisfitError`."""
    try:
        return _hook(kind)(value, kind)
    except Exception:  # whatever a hook raises; the detailed converter then says where it was
        return _explain(value, kind)


@cache
def _hook(kind: Any) -> StructureHook:
    return _FAST.get_structure_hook(kind)


def _explain(value: Any, kind: Any) -> Any:
    try:
        return _DETAILED.structure(value, kind)
    except BaseValidationError as group:
        line = transform_error(group, path="$", format_exception=_wanted)[0]
        detail, _, path = line.rpartition(" @ ")
        path = path.replace("._", ".")  # a private field is known by its public name
    except Exception as fault:  # raised at the top, where there is no path yet
        detail, path = _wanted(fault, kind), "$"
    raise MisfitError(path, detail)


def _wanted(fault: BaseException, _: object) -> str:
    """Say what is wrong without the value, which may be personal."""
    if isinstance(fault, KeyError):
        return f"required field {fault.args[0]} missing"
    return str(fault) if isinstance(fault, _WrongTypeError) else "not valid"


class _WrongTypeError(ValueError):
    def __init__(self, wanted: str, value: object) -> None:
        super().__init__(f"expected {wanted}, got {type(value).__name__}")


def _exactly(kind: type[T]) -> Callable[[Any, Any], T]:
    """Return a hook that takes values of *kind* only: left alone, cattrs makes 'None' of None."""

    def hook(value: Any, _: Any) -> T:
        if type(value) is not kind:
            raise _WrongTypeError(kind.__name__, value)
        result: T = value
        return result

    return hook


def _float(value: Any, _: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise _WrongTypeError("number", value)
    return value


def _datetime(value: Any, _: Any) -> datetime:
    if type(value) is not int:
        raise _WrongTypeError("int milliseconds", value)
    try:
        return datetime.fromtimestamp(value / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        raise _WrongTypeError("milliseconds within the calendar", value) from None


def _word(value: Any, kind: type[Word]) -> Word:
    if type(value) is not str:
        raise _WrongTypeError("str", value)
    return kind(value)


def _map(value: Any, kind: type[Frozen]) -> Frozen:
    if type(value) is not dict:
        raise _WrongTypeError("map", value)
    return kind._around(value)


def _secret(value: Any, _: Any) -> Secret:
    if type(value) is not str:
        raise _WrongTypeError("str", value)
    return Secret(value)


def _tuple_hook(kind: Any, converter: BaseConverter) -> StructureHook:
    item_kind = get_args(kind)[0]
    items = GenericAlias(list, (item_kind,))
    # The list's own hook is slower, and says where the fault was.
    hook = converter.get_structure_hook(items if converter.detailed_validation else item_kind)

    def structure_items(value: Any, _: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _WrongTypeError("list", value)
        if converter.detailed_validation:
            return tuple(hook(value, items))
        if isinstance(hook, StraightReader):
            return hook.read_all(value)
        return tuple([hook(item, item_kind) for item in value])

    return structure_items


def _mapping_hook(kind: Any, converter: BaseConverter) -> StructureHook:
    hook = mapping_structure_factory(kind, converter)

    def structure_mapping(value: Any, _: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise _WrongTypeError("map", value)
        result: dict[Any, Any] = hook(value, kind)
        return result

    return structure_mapping


def _model_hook(kind: Any, converter: BaseConverter) -> StructureHook:
    names = _wire_names(kind)
    if not converter.detailed_validation and can_be_straight(kind):
        return StraightReader(kind, names, converter.get_structure_hook, Frozen)
    known = frozenset(names.values())
    overrides: dict[str, Any] = {name: override(rename=wire) for name, wire in names.items()}
    overrides |= {"_extra": override(omit=True), "_nulls": override(omit=True)}
    build: Callable[[Any, Any], Model] = make_dict_structure_fn(kind, converter, **overrides)

    def structure_model(value: Any, _: Any) -> Model:
        if type(value) is not dict:
            raise _WrongTypeError("map", value)
        result = build(value, kind)
        nulls = frozenset(key for key in known if key in value and value[key] is None)
        object.__setattr__(result, "_nulls", nulls)
        unknown = {key: item for key, item in value.items() if key not in known}
        if unknown:
            object.__setattr__(result, "_extra", unknown)
        return result

    return structure_model


@cache
def _wire_names(kind: Any) -> dict[str, str]:
    """Return what the API calls each field: the camel case of ours, but for ``wire``."""
    names = {}
    for field in attrs.fields(kind):
        if field.name not in ("_extra", "_nulls"):
            head, *rest = field.name.split("_")
            camel = head + "".join(part.capitalize() for part in rest)
            names[field.name] = kind.wire.get(field.name, camel)
    return names


def _converter(*, detailed: bool) -> Converter:
    converter = Converter(detailed_validation=detailed)
    for kind in (int, str, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(float, _float)
    converter.register_structure_hook(datetime, _datetime)
    converter.register_structure_hook(Secret, _secret)
    converter.register_structure_hook(Word, _word)
    converter.register_structure_hook_func(_is_subclass_of(Frozen), _map)
    converter.register_structure_hook_factory(_is_subclass_of(Model), _model_hook)
    converter.register_structure_hook_factory(_has_origin(tuple), _tuple_hook)
    converter.register_structure_hook_factory(_has_origin(dict), _mapping_hook)
    return converter


def _has_origin(wanted: object) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) is wanted


def _is_subclass_of(parent: type) -> Callable[[Any], bool]:
    return lambda kind: isinstance(kind, type) and issubclass(kind, parent)


_FAST = _converter(detailed=False)
_DETAILED = _converter(detailed=True)


def choose_class(kind: type[Model], choose: Callable[[dict[str, Any]], type[Model]]) -> None:
    """Have *choose* return the subclass of exactly this *kind* that JSON data is read as."""
    for converter in (_FAST, _DETAILED):

        def hook(value: Any, _: Any, converter: Converter = converter) -> Model:
            if type(value) is not dict:
                raise _WrongTypeError("map", value)
            return converter.structure(value, choose(value))

        converter.register_structure_hook_func(lambda wanted: wanted is kind, hook)
