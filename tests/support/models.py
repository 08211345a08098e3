"""The documented payloads, and JSON values that fit a model."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import attrs

from drift_async.core.models import FrozenMap, Model, wire_names
from drift_async.core.request import Response
from drift_async.core.secret import Secret

PAYLOADS = Path(__file__).parents[1] / "payloads"


def payload(name: str) -> Any:
    return json.loads((PAYLOADS / f"{name}.json").read_bytes())


def reply(value: Any) -> Response:
    return Response(200, {}, json.dumps(value).encode())


def unknown_fields(value: Any, path: str = "$") -> Iterator[str]:
    """Give the paths of all that models keep in ``extra``."""
    if isinstance(value, Model):
        yield from (f"{path}.{key}" for key in value.extra)
        for field in attrs.fields(cast(Any, type(value))):
            if field.name != "extra":
                yield from unknown_fields(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, list | tuple):
        for n, item in enumerate(value):
            yield from unknown_fields(item, f"{path}[{n}]")
    elif type(value) is dict:
        for key, item in value.items():
            yield from unknown_fields(item, f"{path}[{key}]")


PERSONAL = "ada.lovelace@example.com"

MOMENT = 1664572604326


def fields(kind: type[Model]) -> Iterator[tuple[str, str, Any, bool]]:
    """Give name, wire name, type without None, and whether None is taken, of each field."""
    hints = get_type_hints(kind)
    for name, wire in wire_names(cast(Any, kind)).items():
        hint, optional = hints[name], False
        if get_origin(hint) in (Union, types.UnionType):
            (hint,) = (arg for arg in get_args(hint) if arg is not types.NoneType)
            optional = True
        yield name, wire, hint, optional


def good(kind: Any, name: str = "") -> Any:
    """Return a JSON value that fits; texts but ids are personal."""
    if kind is Any:
        return {"email": [PERSONAL, None]}
    if get_origin(kind) in (list, tuple):
        return [1, "NaN"] if name == "raw_metrics" else [good(get_args(kind)[0])]
    if get_origin(kind) is not None and issubclass(get_origin(kind), Mapping):
        return {"key": good(get_args(kind)[1])}
    if issubclass(kind, Model):
        return {wire: good(hint, name) for name, wire, hint, _ in fields(kind)}
    if issubclass(kind, FrozenMap):
        return {"email": PERSONAL, "null": None, "map": {"list": [1]}}
    if issubclass(kind, str | Secret):
        return "id-1" if name.endswith("id") else PERSONAL
    return {int: 2**53, bool: False, float: 1.5, datetime: MOMENT}[kind]
