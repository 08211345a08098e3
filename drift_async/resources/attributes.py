"""Attributes of contacts: the map, the documented keys in it, and their definitions."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Self, TypeVar, overload

from ..core.converter import StructureError, structure
from ..core.models import FrozenMap, Model, OpenEnum, model
from ..errors import InputError

T = TypeVar("T")


class _Attribute(Generic[T]):
    """A documented key of the map, read as one type: None when absent or null."""

    def __init__(self, kind: type[T], *keys: str) -> None:
        self._kind = kind
        self._keys = keys

    def __set_name__(self, owner: type, name: str) -> None:
        self._keys = self._keys or (name,)

    @overload
    def __get__(self, attributes: None, owner: type) -> Self: ...
    @overload
    def __get__(self, attributes: ContactAttributes, owner: type) -> T | None: ...
    def __get__(self, attributes: ContactAttributes | None, owner: type) -> Self | T | None:
        if attributes is None:
            return self
        for key in self._keys:
            value = attributes._data.get(key)
            if value is not None:
                return self._read(key, value)
        return None

    def _read(self, key: str, value: Any) -> T:
        try:
            result: T = structure(value, self._kind)
        except StructureError as fault:
            detail = fault.detail
        else:
            return result
        raise InputError(f"attributes.{key}", detail)


class _ExternalId(_Attribute[str]):
    """The API sends it as text, and at times as a bare number."""

    def _read(self, key: str, value: Any) -> str:
        return super()._read(key, str(value) if type(value) is int else value)


class ContactAttributes(FrozenMap):
    """The attributes of a contact: a map, with accessors for the keys that are documented.

    An accessor is None when the key is absent or null; a value of another type than the documented
    raises `InputError`. ``attributes["plan"]`` reads any key as it came.
    https://devdocs.drift.com/docs/contact-model
    """

    __slots__ = ()

    name = _Attribute(str)
    email = _Attribute(str)
    phone = _Attribute(str)
    first_name = _Attribute(str)
    external_id = _ExternalId(str, "externalId", "external_id")
    events = _Attribute(FrozenMap)
    social_profiles = _Attribute(FrozenMap, "socialProfiles")
    tags = _Attribute(tuple[Any, ...])
    end_user_version = _Attribute(int, "_end_user_version", "_END_USER_VERSION")
    calculated_version = _Attribute(int, "_calculated_version")
    start_date = _Attribute(datetime)
    last_active = _Attribute(datetime)
    last_contacted = _Attribute(datetime)
    ip = _Attribute(str)
    original_ip = _Attribute(str)
    classification = _Attribute(str, "_classification")
    employment_name = _Attribute(str)
    last_context_location = _Attribute(str)
    recent_medium = _Attribute(str)
    recent_source = _Attribute(str)
    recent_referer_url = _Attribute(str)
    original_referer_url = _Attribute(str)
    original_entrance_page_url = _Attribute(str)
    original_entrance_page_title = _Attribute(str)
    original_conversation_started_page_url = _Attribute(str)
    original_conversation_started_page_title = _Attribute(str)
    recent_entrance_page_url = _Attribute(str)
    recent_entrance_page_title = _Attribute(str)
    recent_conversation_started_page_url = _Attribute(str)
    recent_conversation_started_page_title = _Attribute(str)


NO_ATTRIBUTES = ContactAttributes()


class AttributeType(OpenEnum):
    """The type of a contact attribute."""

    STRING = "STRING"
    NUMERIC = "NUMERIC"
    BOOLEAN = "BOOLEAN"
    DATETIME = "DATETIME"
    DATE = "DATE"


@model
class AttributeDefinition(Model):
    """A contact attribute that the organisation has in use."""

    name: str | None = None
    display_name: str | None = None
    type: AttributeType | None = None
