"""Straight-line readers of models, written for the keys that the rows of a class come with.

They replace what cattrs writes for the same classes, which calls a function for each field, and
build the frozen object as a mutable one that is frozen when it is done. A page of conversations
takes a sixth of the time (measured). They only read or fail; what was wrong and where is found by
cattrs' detailed pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import attrs

MOST_SHAPES = 32  # of a class: no server makes us write readers for ever
LONGEST_SHAPE = 2_000  # characters in all keys, which its reader keeps

Hook = Callable[[Any, Any], Any]
Read = Callable[[Iterable[Any], list[Any]], Any]

# It returns a row with other keys, at which it stops, and None at the end. What has no such keys is
# such a row or fails, so no look at the type is needed: a map has keys.
_READ = """
def read(values, models):
    for value in values:
        if len(value) != {count}: return value
        try:
            {items}
        except KeyError:
            return value
        model, nulls = mutable(), NO_NULLS
        {fields}
        model._nulls = nulls
        {freeze}
        models.append(model)
"""
_NULL = """
        elif {item} is None:
            nulls = nulls | {name}_null if nulls else {name}_null
            model.{name} = None"""
_MISFIT = """
        else: raise misfit"""
_PLAIN = "if type({item}) is {kind}: model.{name} = {item}"
_MAP = """if type({item}) is dict:
            model.{name} = data = mutable_{kind}()
            data._data = {item}
            data.__class__ = {kind}"""
_WORD = """if type({item}) is str:
            try: model.{name} = {kind}_words[{item}]
            except KeyError: model.{name} = {kind}({item})"""
_PLAIN_TUPLE = """if type({item}) is list:
            for one in {item}:
                if type(one) is not {kind}: raise misfit
            model.{name} = tuple({item})"""
_TUPLE = """if type({item}) is list:
            items = []
            for one in {item}: items.append({kind}_read(one, {kind}))
            model.{name} = tuple(items)"""
_MODELS = """if type({item}) is list:
            items = []
            rest = {kind}_read.read({item}, items)
            if rest is not None: {kind}_read.go_on(rest, {item}, items)
            model.{name} = tuple(items)"""
_OTHER = "if {item} is not None: model.{name} = {kind}_read({item}, {kind})"

# Among the rest of the work a time takes half as long again to make (measured), so times are made
# when all rows are read, and models with times are frozen then.
_FREEZE = "model.__class__ = kind"
_FINISH = """
def finish(models):
    for model in models:
        {moments}
        model.__class__ = kind
"""
_MOMENT = """item = model.{name}
        if item is not None: model.{name} = moment(item / 1000, UTC)"""


def can_be_straight(kind: Any) -> bool:
    """Tell whether making one runs no code but its constructor, with None for what is absent."""
    return not hasattr(kind, "__attrs_post_init__") and not any(
        field.validator or field.converter or field.default not in (None, attrs.NOTHING)
        for field in attrs.fields(kind)
        if field.name not in ("_extra", "_nulls")
    )


class StraightReader:
    """Makes a *kind* of JSON data; a hook for cattrs.

    Rows mostly have the same keys. A function that takes them for granted reads a page in seven
    tenths of the time of one that asks for each field whether it is there (measured), so one is
    written for each set of keys, up to a limit. It reads rows up to one with other keys.

    *names* says what the API calls each field, *hook_for* how a type is read, *frozen* is the
    class of the maps.
    """

    def __init__(
        self,
        kind: Any,
        names: Mapping[str, str],
        hook_for: Callable[[Any], Hook],
        frozen: type[Any],
    ) -> None:
        attrs.resolve_types(kind)
        self.read: Read = _stop
        """What read the value before. Models with times are not done before `finish`."""
        self._names = names
        self._shapes: dict[tuple[str, ...], Read] = {}
        self._scope: dict[str, Any] = {
            "kind": kind,
            "mutable": _mutable(kind),
            "misfit": ValueError,  # made when raised: a single one would keep all that it ever met
            "moment": datetime.fromtimestamp,
            "UTC": UTC,
            "NOTHING": attrs.fields(kind)._extra.default,
            "NO_NULLS": frozenset(),
        }
        self._required: set[str] = set()
        self._lines: dict[str, str] = {}
        moments = []
        for field in attrs.fields(kind):
            name = field.name
            if name in names:
                wanted = _without_none(field.type)
                lines = _reading(wanted, name, self._scope, hook_for, frozen)
                if field.default is attrs.NOTHING:
                    self._required.add(name)
                else:
                    self._scope[f"{name}_null"] = frozenset([names[name]])
                    lines += _NULL.format(name=name, item=f"item_{name}")
                self._lines[name] = lines + _MISFIT
                if wanted is datetime:
                    moments.append(_MOMENT.format(name=name))
        exec(_FINISH.format(moments="\n        ".join(moments)), self._scope)
        self.finish: Callable[[Iterable[Any]], None] | None
        self.finish = self._scope["finish"] if moments else None

    def __call__(self, value: Any, _: Any = None) -> Any:
        """Return the model of one value."""
        return self.read_all((value,))[0]

    def read_all(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Return the models of all values."""
        models: list[Any] = []
        other = self.read(values, models)
        if other is not None:
            self.go_on(other, values, models)
        if self.finish:
            self.finish(models)
        return tuple(models)

    def go_on(self, other: Any, values: Sequence[Any], models: list[Any]) -> None:
        """Read on at the *other* of the values, which has other keys than the one before."""
        rest = iter(values[len(models) + 1 :])
        while other is not None:
            self._read_other(other, models)
            other = self.read(rest, models)

    def _read_other(self, value: Any, models: list[Any]) -> None:
        if type(value) is not dict:
            raise ValueError
        keys = (*value,)
        read = self._shapes.get(keys)
        if read is None:
            if len(self._shapes) >= MOST_SHAPES or not 0 < len("".join(keys)) <= LONGEST_SHAPE:
                self._read_rare(value, models)
                return
            read = self._shapes[keys] = self._written(keys)
        self.read = read
        read((value,), models)

    def _read_rare(self, value: dict[str, Any], models: list[Any]) -> None:
        """Read a value with keys that no function is written for by the one for all fields."""
        known = {wire: value.get(wire) for wire in self._names.values()}
        self._whole((known,), models)
        model, set_field = models[-1], object.__setattr__
        set_field(model, "_nulls", model._nulls.intersection(value))
        unknown = {key: item for key, item in value.items() if key not in known}
        if unknown:
            set_field(model, "_extra", unknown)

    @cached_property
    def _whole(self) -> Read:
        return self._written((*self._names.values(),))

    def _written(self, keys: tuple[str, ...]) -> Read:
        """Return a function for values with these keys, in any order."""
        items, fields = [], []
        for name, wire in self._names.items():
            if wire in keys:
                items.append(f"item_{name} = value[{wire!r}]")
                fields.append(self._lines[name])
            elif name in self._required:
                raise ValueError
            else:
                fields.append(f"model.{name} = None")
        # What the server chose is never written into code.
        unknown = [key for key in keys if key not in self._names.values()]
        if unknown:
            pairs = [f"unknown_{n}: value[unknown_{n}]" for n in range(len(unknown))]
            items.append(f"unknown = {{{', '.join(pairs)}}}")
        fields.append(f"model._extra = {'unknown' if unknown else 'NOTHING'}")
        lines = _READ.format(
            count=len(keys),
            items="\n            ".join(items),
            fields="\n        ".join(fields),
            freeze="" if self.finish else _FREEZE,
        )
        scope = self._scope | {f"unknown_{n}": key for n, key in enumerate(unknown)}
        exec(lines, scope)
        read: Read = scope["read"]
        return read


def _stop(values: Iterable[Any], _: list[Any]) -> Any:
    """Stop at the first of the values, before any has been read."""
    for value in values:
        if value is None:
            raise ValueError
        return value
    return None


def _mutable(kind: Any) -> Any:
    """Return a class whose objects are made empty, can be filled, and then turned into a *kind*."""
    plain = {name: getattr(object, name) for name in ("__init__", "__setattr__", "__delattr__")}
    return type(kind)(kind.__name__, (kind,), {"__slots__": (), **plain})


def _reading(
    wanted: Any,
    name: str,
    scope: dict[str, Any],
    hook_for: Callable[[Any], Hook],
    frozen: type,
) -> str:
    """Return the lines that set field *name* from its item if it is what is *wanted*.

    What they need is put into *scope*.
    """
    item, kind, template = f"item_{name}", f"{name}_", _OTHER
    if wanted in (int, str, bool):
        return _PLAIN.format(name=name, item=item, kind=wanted.__name__)
    if wanted is datetime:  # for now the milliseconds
        return _PLAIN.format(name=name, item=item, kind="int")
    if get_origin(wanted) is tuple and get_args(wanted)[1:] == (...,):
        wanted, template = get_args(wanted)[0], _TUPLE
        if wanted in (int, str, bool):
            return _PLAIN_TUPLE.format(name=name, item=item, kind=wanted.__name__)
    elif isinstance(wanted, type) and issubclass(wanted, frozen):
        scope[f"mutable_{kind}"] = _mutable(wanted)
        template = _MAP
    elif isinstance(wanted, type) and issubclass(wanted, Enum):
        scope[f"{kind}_words"] = {str(word.value): word for word in wanted}
        template = _WORD
    scope[kind] = wanted
    if template in (_TUPLE, _OTHER):
        hook = scope[f"{kind}_read"] = hook_for(wanted)
        if template is _TUPLE and isinstance(hook, StraightReader) and not hook.finish:
            template = _MODELS
    return template.format(name=name, item=item, kind=kind)


def _without_none(kind: Any) -> Any:
    """Return what `X | None` wants when it is not None."""
    wanted = [item for item in get_args(kind) if item is not NoneType]
    return wanted[0] if isinstance(kind, UnionType) and len(wanted) == 1 else kind
