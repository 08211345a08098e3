"""JSON data to typed values: one cattrs converter with strict hooks, and readers of models.

Nothing is coerced. A value of the wrong type raises `StructureError` with the path to the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, get_args, get_origin

import attrs
from cattrs import Converter

T = TypeVar("T")

Hook = Callable[[Any, Any], Any]

NO_EXTRA: Final[dict[str, Any]] = {}
"""The unknown fields of a model that has none; shared, so nobody may change it."""


class StructureError(Exception):
    """JSON data does not fit its type.

    ``path`` leads from ``$``, the whole, to the faulty value; ``detail`` says what was expected.
    """

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path = path
        self.detail = detail

    def under(self, path: str) -> StructureError:
        """Return the error for the container that holds the value of this error at *path*."""
        return StructureError(path + self.path.removeprefix("$"), self.detail)


def wrong_type(expected: str, value: object) -> StructureError:
    """Return the error for *value*; its text has no part of the value, which may be personal."""
    return StructureError("$", f"expected {expected}, got {type(value).__name__}")


def exactly(kind: type[T], value: Any, expected: str) -> T:
    """Return *value* if its type is *kind* itself, so that a bool is no int."""
    if type(value) is not kind:
        raise wrong_type(expected, value)
    result: T = value
    return result


def structure(value: Any, kind: Any) -> Any:
    """Return JSON data as *kind*, or raise `StructureError`."""
    try:
        return converter.get_structure_hook(kind)(value, kind)
    except StructureError:
        raise
    except Exception:  # a class that is not ours may raise anything
        error = StructureError("$", "not valid")
    raise error


class ModelReader:
    """Makes models of one class from JSON maps, by a function that is generated for the class.

    *names* maps the fields to the API's names. Unknown fields go to ``_extra``, the names
    of known fields that are null to ``_nulls``.
    """

    def __init__(self, kind: Any, names: Mapping[str, str]) -> None:
        attrs.resolve_types(kind)
        scope = _SCOPE | {"kind": kind, "mutable": _mutable(kind)}
        fields = [field for field in attrs.fields(kind) if field.name in names]
        times = [
            field.name
            for field in fields
            if _without_none(field.type) is datetime and not field.converter
        ]
        code = _READ.format(
            fields="".join(_field_code(field, names[field.name], scope) for field in fields),
            second_loop=_SECOND_LOOP if times else "",
            times="".join(_TIME.format(name=name, label=name.lstrip("_")) for name in times),
            validate=_VALIDATE.format(number="number" if times else "len(models) - 1")
            if any(field.validator for field in fields)
            else "",
        )
        exec(code, scope)
        self.read_all: Callable[[Sequence[Any]], list[Any]] = scope["read"]
        """Returns the models of all rows; the path of an error begins with its row, as ``$[0]``."""

    def __call__(self, value: Any, _: Any) -> Any:
        """Return the model of one JSON map. This is a hook for cattrs."""
        try:
            return self.read_all((value,))[0]
        except StructureError as error:
            raise StructureError(error.path.replace("[0]", "", 1), error.detail) from None


# A model is filled as an object of a mutable subclass and frozen by a change of its class: the
# constructor of a frozen attrs class takes five times as long. Times are made in a second loop,
# because between the other fields they take half as long again (measured).
_READ = """
def read(rows):
    models = []
    for row in rows:
        if type(row) is not dict:
            raise wrong_type("map", row).under(f"$[{{len(models)}}]")
        rest, nulls, model = row.copy(), (), mutable()
        {fields}
        model._extra, model._nulls = rest or NO_EXTRA, nulls
        models.append(model)
    {second_loop}
        {times}
        model.__class__ = kind
        {validate}
    return models
"""
_SECOND_LOOP = "for number, model in enumerate(models):"
_FIELD = """
        item = rest.pop({wire!r}, ABSENT)
        try:
            if {test}:
                {read}
            elif item is None and {is_optional}:
                model.{name} = None
                nulls += ({wire!r},)
            elif item is ABSENT:
                {absent}
            else:
                model.{name} = {name}_hook(item, {name}_kind)
        except StructureError as error:
            raise error.under(f"$[{{len(models)}}].{label}") from None
"""
_REQUIRED = 'raise StructureError("$", "required field {wire} missing")'
_EXACT_ITEMS = """
                for one in item:
                    if type(one) is not {exact}:
                        {name}_hook(item, {name}_kind)  # raises
                model.{name} = tuple(item)
"""
_TIME = """
        item = model.{name}
        if item is not None:
            try:
                model.{name} = fromtimestamp(item / 1000, UTC)
            except OUTSIDE:
                raise outside(item).under(f"$[{{number}}].{label}") from None
"""
_VALIDATE = """
        try:
            validate(model)
        except Exception:  # validators of attrs raise errors of any kind
            raise StructureError(f"$[{{{number}}}]", "not valid") from None
"""


def _field_code(field: attrs.Attribute[Any], wire: str, scope: dict[str, Any]) -> str:
    """Return the code that reads one field, and put the objects that it uses into *scope*.

    The code checks the most frequent types itself, and leaves the others and all errors to the
    hook of the field's type.
    """
    name, kind = field.name, _without_none(field.type)
    hook = converter.get_structure_hook(kind)
    item_kind = get_args(kind)[0] if get_origin(kind) is tuple else None
    test, read = "False", "pass"
    if field.converter:
        hook = _converted(hook, field.converter)
    elif kind in _EXACT:
        test, read = f"type(item) is {_EXACT[kind]}", f"model.{name} = item"
    elif isinstance(kind, type) and issubclass(kind, Enum):
        scope[f"{name}_members"] = kind._value2member_map_
        test = f"type(item) is str and item in {name}_members"
        read = f"model.{name} = {name}_members[item]"
    elif item_kind in (int, str, bool):
        test, read = "type(item) is list", _EXACT_ITEMS.format(name=name, exact=item_kind.__name__)
    elif item_kind:
        item_hook = converter.get_structure_hook(item_kind)
        if isinstance(item_hook, ModelReader):
            scope[f"{name}_read"] = item_hook.read_all
            test, read = "type(item) is list", f"model.{name} = tuple({name}_read(item))"
    scope |= {f"{name}_kind": kind, f"{name}_hook": hook, f"{name}_default": field.default}
    return _FIELD.format(
        name=name,
        wire=wire,
        label=name.lstrip("_"),
        test=test,
        read=read,
        is_optional=kind is Any or kind is not field.type,
        absent=_REQUIRED.format(wire=wire)
        if field.default is attrs.NOTHING
        else f"model.{name} = {name}_default",
    )


def _without_none(kind: Any) -> Any:
    """Return the type *X* of ``X | None``, and any other type as it is."""
    kinds = [one for one in get_args(kind) if one is not NoneType]
    return kinds[0] if isinstance(kind, UnionType) and len(kinds) == 1 else kind


def _converted(hook: Hook, convert: Any) -> Hook:
    return lambda value, kind: convert(hook(value, kind))


def _mutable(kind: Any) -> Any:
    """Return a subclass whose objects start empty, take any value and can become a *kind*."""
    plain = {name: getattr(object, name) for name in ("__init__", "__setattr__", "__delattr__")}
    return type(kind)(kind.__name__, (kind,), {"__slots__": (), **plain})


def _float(value: Any, _: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise wrong_type("number", value)
    return value


def _datetime(value: Any, _: Any) -> datetime:
    try:
        return datetime.fromtimestamp(exactly(int, value, "int milliseconds") / 1000, UTC)
    except _OUTSIDE:
        raise _outside(value) from None


def _outside(value: int) -> StructureError:
    return wrong_type("milliseconds within the calendar", value)


def _sequence_hook(kind: Any) -> Hook:
    """Return a hook that makes a tuple or list of a JSON list."""
    item_kind, build = get_args(kind)[0], get_origin(kind)
    hook = converter.get_structure_hook(item_kind)

    def structure_items(value: Any, _: Any) -> Any:
        rows = exactly(list, value, "list")
        if isinstance(hook, ModelReader):
            return build(hook.read_all(rows))
        items: list[Any] = []
        try:
            for item in rows:
                items.append(hook(item, item_kind))  # noqa: PERF401  # the length is the place of the fault
        except StructureError as error:
            raise error.under(f"$[{len(items)}]") from None
        return build(items)

    return structure_items


def _mapping_hook(kind: Any) -> Hook:
    """Return a hook that makes a dict of a JSON map."""
    item_kind = get_args(kind)[1]
    hook = converter.get_structure_hook(item_kind)

    def structure_mapping(value: Any, _: Any) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, item in exactly(dict, value, "map").items():
            try:
                result[key] = hook(item, item_kind)
            except StructureError as error:
                raise error.under(f"$[{key!r}]") from None
        return result

    return structure_mapping


def _has_origin(*origins: Any) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) in origins


_OUTSIDE = (OverflowError, ValueError, OSError)  # raised by fromtimestamp
_EXACT: dict[Any, str] = {int: "int", str: "str", bool: "bool", datetime: "int"}
_SCOPE: dict[str, Any] = {
    "ABSENT": object(),
    "NO_EXTRA": NO_EXTRA,
    "OUTSIDE": _OUTSIDE,
    "StructureError": StructureError,
    "UTC": UTC,
    "fromtimestamp": datetime.fromtimestamp,
    "outside": _outside,
    "validate": attrs.validate,
    "wrong_type": wrong_type,
}

converter = Converter(detailed_validation=False)
for _kind in (int, str, bool):  # cattrs' own hook makes the text None of None
    converter.register_structure_hook(
        _kind, lambda value, kind: exactly(kind, value, kind.__name__)
    )
converter.register_structure_hook(float, _float)
converter.register_structure_hook(datetime, _datetime)
converter.register_structure_hook_factory(_has_origin(tuple, list), _sequence_hook)
converter.register_structure_hook_factory(_has_origin(dict, Mapping), _mapping_hook)
