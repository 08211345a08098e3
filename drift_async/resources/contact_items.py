"""What bulks of contacts take, and how upserts of many are planned: found by batches of external
ids, then updated or created one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from ..core.models import FrozenMap, model
from ..core.strict_json import MAX_DEPTH
from ..core.window import Work
from ..errors import InputError

if TYPE_CHECKING:
    from .contacts import Contact, Contacts

T = TypeVar("T")


def _kept(attributes: Any) -> Any:
    """Return a map that the caller's next row does not change; what is none is refused later."""
    return FrozenMap(_own(attributes)) if isinstance(attributes, Mapping) else attributes


def _own(value: Any, depth: int = MAX_DEPTH) -> Any:
    if depth and isinstance(value, Mapping):
        return {key: _own(item, depth - 1) for key, item in value.items()}
    return [_own(item, depth - 1) for item in value] if depth and type(value) is list else value


@model
class NewContact:
    """A contact to create: an item of `contacts.create_many` and `contacts.upsert_many`."""

    email: str
    external_id: str | None = None
    attributes: Mapping[str, Any] | None = attrs.field(default=None, converter=_kept)


@model
class ContactUpdate:
    """Attributes to set: an item of `contacts.update_many`."""

    contact_id: int
    attributes: Mapping[str, Any] = attrs.field(converter=_kept)


def an_item(kind: type[T], item: object) -> T:
    """Return an item if it is of the kind that the bulk takes."""
    if not isinstance(item, kind):
        raise InputError("item", f"must be a {kind.__name__}")
    return item


class Upserts:
    """Plans upserts. Those of one external id are done one after the other, in input order."""

    def __init__(
        self, contacts: Contacts, read: Callable[[NewContact], tuple[str, dict[str, Any]]]
    ) -> None:
        self._contacts = contacts
        self._read = read
        self._last: dict[str, asyncio.Event] = {}

    def plan(self, batch: Sequence[NewContact]) -> list[Work[NewContact, Contact]]:
        """Return what is to be done for each of some contacts that are looked up together."""
        lookup = Lookup(self._contacts)
        works: list[Work[NewContact, Contact]] = []
        for new in batch:
            try:
                external_id, fields = self._read(new)
            except InputError as error:
                works.append(partial(_fail, error))
                continue
            lookup.found[external_id] = []
            before, done = self._last.get(external_id), asyncio.Event()
            self._last[external_id] = done
            works.append(partial(self._upsert, external_id, fields, lookup, before, done))
        return works

    async def _upsert(
        self,
        external_id: str,
        fields: dict[str, Any],
        lookup: Lookup,
        before: asyncio.Event | None,
        done: asyncio.Event,
        _: NewContact,
    ) -> Contact:
        try:
            if before is not None:
                await before.wait()
            found = await lookup.find(external_id)
            contact = await self._contacts._started()._put(external_id, fields, found)
            lookup.found[external_id] = [contact]
            return contact
        finally:
            done.set()
            if self._last.get(external_id) is done:
                del self._last[external_id]


class Lookup:
    """One request for the contacts of a batch, made when the first of them is wanted."""

    def __init__(self, contacts: Contacts) -> None:
        self._contacts = contacts
        self._answered: asyncio.Event | None = None
        self._error: Exception | None = None
        self.found: dict[str, list[Contact]] = {}

    async def find(self, external_id: str) -> list[Contact]:
        """Return the contact with this id, if there is one; raises what the request has met."""
        if self._answered is None:
            self._answered = asyncio.Event()
            await self._ask()
            self._answered.set()
        else:
            await self._answered.wait()
        if self._error is not None:
            raise copy(self._error)  # each item's own: notes are added to it
        return self.found[external_id]

    async def _ask(self) -> None:
        try:
            for contact in await self._contacts.find_by_external_id(*self.found):
                if (known := contact.attributes.external_id) in self.found:
                    self.found[known].append(contact)
        except Exception as error:
            self._error = error


async def _fail(error: InputError, _: NewContact) -> Contact:
    raise error
