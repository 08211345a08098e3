"""Straight-line readers of models, written for each class when it is first read.

They replace what cattrs writes for the same classes, which calls a function for each field, and
build the frozen object as a mutable one that is frozen when it is done. A page of conversations
takes a third of the time (measured). They only read or fail; what was wrong and where is found by
cattrs' detailed pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import attrs

_HEAD = """
def read(value, _=None):
    if type(value) is not dict: raise misfit
    get, model, known, nulls = value.get, mutable(), {fields}, NO_NULLS
"""
_FIELD = """
    item = get({wire!r}, ABSENT)
    {read}
"""
_OPTIONAL = """
    elif item is None:
        nulls = nulls | {name}_null if nulls else {name}_null
        model.{name} = None
    elif item is ABSENT:
        known -= 1
        model.{name} = None
"""
_MISFIT = """
    else: raise misfit
"""
_TAIL = """
    if len(value) > known:
        data = {}
        for key in rest.seen:
            if key in value: data[key] = value[key]
        if len(data) != len(value) - known: data = rest.of(value)
        model.extra = item = mutable_map()
        item._data = data
        item.__class__ = FROZEN
    else:
        model.extra = NOTHING
    model._nulls = nulls
    model.__class__ = kind
    return model
"""
_PLAIN = "if type(item) is {kind}: model.{name} = item"
_MOMENT = "if type(item) is int: model.{name} = moment(item / 1000, UTC)"
_MAP = """if type(item) is dict:
        model.{name} = data = mutable_{kind}()
        data._data = item
        data.__class__ = {kind}"""
_WORD = """if type(item) is str: model.{name} = {kind}_words.get(item) or {kind}(item)"""
_PLAIN_TUPLE = """if type(item) is list:
        for one in item:
            if type(one) is not {kind}: raise misfit
        model.{name} = tuple(item)"""
_TUPLE = """if type(item) is list:
        items = []
        for one in item: items.append({kind}_read(one, {kind}))
        model.{name} = tuple(items)"""
_OTHER = "if item is not None and item is not ABSENT: model.{name} = {kind}_read(item, {kind})"


class _Rest:
    """Finds the fields that are not known. Rows mostly have the same ones, so a reader first takes
    those of the row before: with one such field a page takes a tenth less (measured)."""

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known
        self.seen: list[str] = []

    def of(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return them, and keep their names."""
        self.seen = [key for key in value if key not in self._known]
        return {key: value[key] for key in self.seen}


def can_be_straight(kind: Any) -> bool:
    """Tell whether making one runs no code but its constructor, with None for what is absent."""
    return not hasattr(kind, "__attrs_post_init__") and not any(
        field.validator or field.converter or field.default not in (None, attrs.NOTHING)
        for field in attrs.fields(kind)
        if field.name not in ("extra", "_nulls")
    )


def straight_reader(
    kind: Any,
    names: Mapping[str, str],
    hook_for: Callable[[Any], Callable[[Any, Any], Any]],
    frozen: type,
) -> Callable[[Any, Any], Any]:
    """Return a function that makes a *kind* of JSON data.

    *names* says what the API calls each field, *hook_for* how a type is read, *frozen* is the
    class of the maps.
    """
    attrs.resolve_types(kind)
    scope: dict[str, Any] = {
        "kind": kind,
        "mutable": _mutable(kind),
        "misfit": ValueError,  # made when raised: a single one would keep all that it ever met
        "moment": datetime.fromtimestamp,
        "ABSENT": object(),
        "FROZEN": frozen,
        "mutable_map": _mutable(frozen),
        "rest": _Rest(frozenset(names.values())),
        "UTC": UTC,
        "NOTHING": attrs.fields(kind).extra.default,
        "NO_NULLS": frozenset(),
    }
    lines = [_HEAD.format(fields=len(names))]
    for field in attrs.fields(kind):
        if field.name in names:
            scope[f"{field.name}_null"] = frozenset([names[field.name]])
            read = _reading(_without_none(field.type), field.name, scope, hook_for, frozen)
            lines.append(_FIELD.format(wire=names[field.name], read=read))
            if field.default is not attrs.NOTHING:
                lines.append(_OPTIONAL.format(name=field.name))
            lines.append(_MISFIT)
    exec("".join([*lines, _TAIL]), scope)
    reader: Callable[[Any, Any], Any] = scope["read"]
    return reader


def _mutable(kind: Any) -> Any:
    """Return a class whose objects are made empty, can be filled, and then turned into a *kind*."""
    plain = {name: getattr(object, name) for name in ("__init__", "__setattr__", "__delattr__")}
    return type(kind)(kind.__name__, (kind,), {"__slots__": (), **plain})


def _reading(
    wanted: Any,
    name: str,
    scope: dict[str, Any],
    hook_for: Callable[[Any], Callable[[Any, Any], Any]],
    frozen: type,
) -> str:
    """Return the lines that set field *name* from ``item`` if it is what is *wanted*.

    What they need is put into *scope*.
    """
    if wanted in (int, str, bool):
        return _PLAIN.format(name=name, kind=wanted.__name__)
    if wanted is datetime:
        return _MOMENT.format(name=name)
    kind, template = f"{name}_", _OTHER
    if get_origin(wanted) is tuple and get_args(wanted)[1:] == (...,):
        wanted, template = get_args(wanted)[0], _TUPLE
        if wanted in (int, str, bool):
            return _PLAIN_TUPLE.format(name=name, kind=wanted.__name__)
    elif isinstance(wanted, type) and issubclass(wanted, frozen):
        scope[f"mutable_{kind}"] = _mutable(wanted)
        template = _MAP
    elif isinstance(wanted, type) and issubclass(wanted, Enum):
        scope[f"{kind}_words"] = {str(word.value): word for word in wanted}
        template = _WORD
    scope[kind] = wanted
    if template in (_TUPLE, _OTHER):
        scope[f"{kind}_read"] = hook_for(wanted)
    return template.format(name=name, kind=kind)


def _without_none(kind: Any) -> Any:
    """Return what `X | None` wants when it is not None."""
    wanted = [item for item in get_args(kind) if item is not NoneType]
    return wanted[0] if isinstance(kind, UnionType) and len(wanted) == 1 else kind
