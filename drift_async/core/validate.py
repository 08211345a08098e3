"""Checks of what users give, made before any request leaves.

Each returns the value as the wire wants it, or raises `InputError` that names the field and the
limit, never the value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, TypeVar

from ..errors import InputError
from .secret import Secret, hide, is_visible
from .strict_json import to_ms, to_plain_json

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

MAX_TEXT = 1024 * 1024
MAX_ID = 2**63 - 1


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = ...

    def __repr__(self) -> str:
        return self.name

    def __bool__(self) -> bool:
        return False


UNSET: Final = Unset.UNSET
"""In an update: leave this field as it is. None would be sent as null."""


def text(field: str, value: object, *, most: int = MAX_TEXT) -> str:
    """Return *value* if it is a text of 1 to *most* characters."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(field, "must be a text that is not blank")
    if len(value) > most:
        raise InputError(field, f"must have at most {most} characters")
    checked: str = to_plain_json(field, value)
    return checked


def email(field: str, value: object) -> str:
    """Return *value* if it looks like an e-mail address."""
    address = text(field, value, most=320)
    if "@" not in address[1:-1] or not address.isprintable() or " " in address:
        raise InputError(field, "must be an e-mail address")
    return address


def whole(field: str, value: object, least: int = 0, most: int = MAX_ID) -> int:
    """Return *value* if it is an int, and not a bool, from *least* to *most*."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(field, "must be an int")
    if not least <= value <= most:
        raise InputError(field, f"must be from {least} to {most}")
    return int(value)


def identity(field: str, value: object) -> int:
    """Return *value* if it can be one of Drift's numeric ids."""
    return whole(field, value, 1)


def number(field: str, value: object, *, above: float | None = None) -> float:
    """Return *value* if it is a finite number of 0 or more, or *above* that; at most a billion."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(field, "must be a number")
    if not 0 <= value <= 1e9 or (above is not None and value <= above):
        raise InputError(field, "must be above 0" if above == 0 else "must be 0 or more")
    return float(value)


def each(field: str, value: object, check: Callable[[str, Any], T]) -> list[T]:
    """Return the items of a collection as *check* returns them.

    Generators are refused: on the blocking face they would run on the loop's thread.
    """
    if not isinstance(value, Collection) or isinstance(value, str | bytes | Mapping):
        raise InputError(field, "must be a list or another collection")
    return [check(f"{field}[{n}]", item) for n, item in enumerate(value)]


def flag(field: str, value: object) -> bool:
    """Return *value* if it is a bool."""
    if not isinstance(value, bool):
        raise InputError(field, "must be a bool")
    return value


def word(field: str, value: object, allowed: type[E], among: Iterable[E] | None = None) -> str:
    """Return *value* as a word that the API knows: any of *allowed*, or of those *among*."""
    words = [member.value for member in (allowed if among is None else among)]
    given = value.value if isinstance(value, Enum) else value
    if given not in words:
        raise InputError(field, f"must be one of {', '.join(words)}")
    return str(given)


def moment(field: str, value: datetime | None) -> int | None:
    """Return an aware datetime as epoch milliseconds; None stays None."""
    return None if value is None else to_ms(field, value)


def attributes(field: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a map of contact attributes: JSON data, and none of them null."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(field, "must be a mapping")
    checked: dict[str, Any] = to_plain_json(field, value)
    for key, item in checked.items():
        if item is None:
            raise InputError(f"{field}.{key}", "must not be None: the API takes no null here")
    return checked


def optional(check: Callable[[str, Any], T], field: str, value: Any) -> T | Unset | None:
    """Return *value* as *check* returns it; None and `UNSET` pass."""
    return value if value is None or value is UNSET else check(field, value)


def given(**fields: Any) -> dict[str, Any]:
    """Return those of *fields* that are not None, for a JSON body in which absent means absent."""
    for name, value in fields.items():
        if value is UNSET:
            raise InputError(name, "UNSET is for updates; leave the argument out")
    return {name: value for name, value in fields.items() if value is not None}


def changes(**fields: Any) -> dict[str, Any]:
    """Return those of *fields* that are not `UNSET`; at least one must be."""
    body = {name: value for name, value in fields.items() if value is not UNSET}
    if not body:
        raise InputError("changes", "give at least one field to change")
    return body


def token_secret(field: str, value: str | Secret) -> Secret:
    """Return *value* as a secret, or raise `InputError` if no header could carry it."""
    value = hide(value)
    if not isinstance(value, Secret) or not value.reveal():
        raise InputError(field, "must be a text that is not empty")
    if not is_visible(value.reveal()):
        raise InputError(field, "must be visible ASCII without blanks or line ends")
    return value
