"""Checks of the arguments that users pass, made before any request is sent.

Each check returns the value in the form that the API takes, or raises `InputError` with the name
of the field and the limit. No message contains the value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from typing import Any, Final, TypeVar

from ..errors import InputError
from .secret import Secret, hide, is_visible
from .strict_json import to_plain_json

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


def require_type(field: str, value: object, kind: type[T]) -> T:
    """Return *value* if it is an instance of *kind*."""
    if not isinstance(value, kind):
        raise InputError(field, f"must be a {kind.__name__}")
    return value


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


def integer(field: str, value: object, least: int = 0, most: int = MAX_ID) -> int:
    """Return *value* if it is an int from *least* to *most*, and not a bool."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(field, "must be an int")
    if not least <= value <= most:
        raise InputError(field, f"must be from {least} to {most}")
    return int(value)


def identity(field: str, value: object) -> int:
    """Return *value* if it can be one of Drift's numeric ids."""
    return integer(field, value, 1)


def number(field: str, value: object, *, above: float | None = None) -> float:
    """Return *value* if it is a number from 0 to a billion, and greater than *above* if given."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(field, "must be a number")
    if not 0 <= value <= 1e9 or (above is not None and value <= above):
        raise InputError(field, "must be above 0" if above == 0 else "must be 0 or more")
    return float(value)


def boolean(field: str, value: object) -> bool:
    """Return *value* if it is a bool."""
    if not isinstance(value, bool):
        raise InputError(field, "must be a bool")
    return value


def choice(field: str, value: object, allowed: type[E], among: Iterable[E] | None = None) -> str:
    """Return the text of a member of *allowed*, or only of one of the members *among*.

    The value may be the member or its text.
    """
    texts = [member.value for member in (allowed if among is None else among)]
    given = value.value if isinstance(value, Enum) else value
    if given not in texts:
        raise InputError(field, f"must be one of {', '.join(texts)}")
    return str(given)


def items(field: str, value: object, check: Callable[[str, Any], T]) -> list[T]:
    """Return the items of a collection, each as *check* returns it.

    Generators are refused: on the blocking face they would run on the loop's thread.
    """
    if not isinstance(value, Collection) or isinstance(value, str | bytes | Mapping):
        raise InputError(field, "must be a list or another collection")
    return [check(f"{field}[{n}]", item) for n, item in enumerate(value)]


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
    """Return None and `UNSET` as they are, and any other *value* as *check* returns it."""
    return value if value is None or value is UNSET else check(field, value)


def without_none(**fields: Any) -> dict[str, Any]:
    """Return the *fields* that are not None, for a JSON body in which absent means absent."""
    for name, value in fields.items():
        if value is UNSET:
            raise InputError(name, "UNSET is for updates; leave the argument out")
    return {name: value for name, value in fields.items() if value is not None}


def without_unset(**fields: Any) -> dict[str, Any]:
    """Return the *fields* that are not `UNSET`; at least one must be given."""
    body = {name: value for name, value in fields.items() if value is not UNSET}
    if not body:
        raise InputError("changes", "give at least one field to change")
    return body


def token_secret(field: str, value: str | Secret) -> Secret:
    """Return *value* as a secret, or raise `InputError` if no header could carry it."""
    secret: Secret | None
    value = secret = hide(value)
    if secret is None or not isinstance(secret.reveal(), str) or not secret.reveal():
        raise InputError(field, "must be a text that is not empty")
    if not is_visible(secret.reveal()):
        raise InputError(field, "must be visible ASCII without blanks or line ends")
    return secret
