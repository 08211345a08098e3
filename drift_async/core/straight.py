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
    model, known, nulls = new(mutable), {fields}, NO_NULLS
"""
_FIELD = """
    if {wire!r} in value:
        item = value[{wire!r}]
        if item is not None:
            {read}
        else:
            {null}
            nulls = nulls | {name}_null if nulls else {name}_null
        model.{name} = item
    else:
        {absent}
        known -= 1
"""
_TAIL = """
    if len(value) > known:
        data = {}
        try:
            for key in rest.seen: data[key] = value[key]
        except KeyError: pass
        if len(data) != len(value) - known: data = rest.of(value)
        model.extra = item = new(FROZEN)
        put_data(item, data)
    else:
        model.extra = NOTHING
    model._nulls = nulls
    model.__class__ = kind
    return model
"""
_PLAIN = "if type(item) is not {kind}: raise misfit"
_MOMENT = """if type(item) is not int: raise misfit
            item = moment(item / 1000, UTC)"""
_MAP = """if type(item) is not dict: raise misfit
            data, item = item, new({kind})
            put_data(item, data)"""
_WORD = """if type(item) is not str: raise misfit
            item = {kind}_words.get(item) or {kind}(item)"""
_PLAIN_TUPLE = """if type(item) is not list: raise misfit
            for one in item:
                if type(one) is not {kind}: raise misfit
            item = tuple(item)"""
_TUPLE = """if type(item) is not list: raise misfit
            items = []
            for one in item: items.append({kind}_read(one, {kind}))
            item = tuple(items)"""
_OTHER = "item = {kind}_read(item, {kind})"


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
        "new": object.__new__,
        "put_data": vars(frozen)["_data"].__set__,
        "FROZEN": frozen,
        "rest": _Rest(frozenset(names.values())),
        "UTC": UTC,
        "NOTHING": attrs.fields(kind).extra.default,
        "NO_NULLS": frozenset(),
    }
    lines = [_HEAD.format(fields=len(names))]
    for field in attrs.fields(kind):
        if field.name in names:
            scope[f"{field.name}_null"] = frozenset([names[field.name]])
            read = _reading(_without_none(field.type), f"{field.name}_", scope, hook_for, frozen)
            needed = field.default is attrs.NOTHING
            lines.append(
                _FIELD.format(
                    name=field.name,
                    wire=names[field.name],
                    read=read,
                    null="raise misfit" if needed else "pass",
                    absent="raise misfit" if needed else f"model.{field.name} = None",
                )
            )
    exec("".join([*lines, _TAIL]), scope)
    reader: Callable[[Any, Any], Any] = scope["read"]
    return reader


def _mutable(kind: Any) -> Any:
    """Return a class whose objects can be filled, and then be turned into a *kind*."""
    changes = {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    return type(kind.__name__, (kind,), {"__slots__": (), **changes})


def _reading(
    wanted: Any,
    name: str,
    scope: dict[str, Any],
    hook_for: Callable[[Any], Callable[[Any, Any], Any]],
    frozen: type,
) -> str:
    """Return the lines that turn ``item`` into what is *wanted*, and put what they need in reach.

    *name* begins the names of what they need.
    """
    if wanted in (int, str, bool):
        return _PLAIN.format(kind=wanted.__name__)
    if wanted is datetime:
        return _MOMENT
    template = _OTHER
    if get_origin(wanted) is tuple and get_args(wanted)[1:] == (...,):
        wanted, template = get_args(wanted)[0], _TUPLE
        if wanted in (int, str, bool):
            return _PLAIN_TUPLE.format(kind=wanted.__name__)
    elif isinstance(wanted, type) and issubclass(wanted, frozen):
        template = _MAP
    elif isinstance(wanted, type) and issubclass(wanted, Enum):
        scope[f"{name}_words"] = {str(word.value): word for word in wanted}
        template = _WORD
    scope[name] = wanted
    if template in (_TUPLE, _OTHER):
        scope[f"{name}_read"] = hook_for(wanted)
    return template.format(kind=name)


def _without_none(kind: Any) -> Any:
    """Return what `X | None` wants when it is not None."""
    wanted = [item for item in get_args(kind) if item is not NoneType]
    return wanted[0] if isinstance(kind, UnionType) and len(wanted) == 1 else kind
