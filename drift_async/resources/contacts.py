"""Contacts: the people known to Drift."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from types import NoneType
from typing import Any, ClassVar, Unpack
from urllib.parse import quote

import attrs

from ..core import validate
from ..core.bulk import Bulk, BulkOptions, Items, batched
from ..core.models import FrozenMap, Model, model
from ..core.request import Endpoint
from ..core.resource import Resource
from ..core.strict_json import MAX_DEPTH, to_ms
from ..errors import ConflictError, DriftError, InputError
from .attributes import NO_ATTRIBUTES, AttributeDefinition, ContactAttributes
from .upserts import Upserts

IDS_PER_REQUEST = 50
BYTES_OF_IDS = 4096  # servers and proxies take addresses of 8 KiB

EMAILS_PER_REQUEST = 500
"""No limit is documented: so many stay below a mebibyte, however long the addresses are."""


@model
class Contact(Model):
    """A person known to Drift: https://devdocs.drift.com/docs/contact-model"""

    id: int
    created_at: datetime | None = None
    # Absent or null is written back as such, though it reads as an empty map.
    _attributes: ContactAttributes | None = attrs.field(default=None, alias="attributes")

    wire: ClassVar[Mapping[str, str]] = {"_attributes": "attributes"}

    @property
    def attributes(self) -> ContactAttributes:
        """The attributes of the contact; empty when the API sent none."""
        return NO_ATTRIBUTES if self._attributes is None else self._attributes

    @property
    def app_url(self) -> str:
        """The contact's page in the Drift app."""
        return f"https://app.drift.com/contacts/details/{self.id}"


@model
class TimelineEvent(Model):
    """An event in the timeline of a contact."""

    event: str | None = None
    contact_id: int | None = None
    created_at: datetime | None = None
    attributes: FrozenMap | None = None


def _kept(attributes: Any) -> Any:
    """Return a copy of a map, so that its owner can reuse it; other values are refused later."""
    return FrozenMap(_copied(attributes)) if isinstance(attributes, Mapping) else attributes


def _copied(value: Any, depth: int = MAX_DEPTH) -> Any:
    if depth and isinstance(value, Mapping):
        return {key: _copied(item, depth - 1) for key, item in value.items()}
    if depth and type(value) is list:
        return [_copied(item, depth - 1) for item in value]
    return value


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


class IdType(Enum):
    """The kind of the id by which a contact is found."""

    EXTERNAL = "external"
    DRIFT = "drift"
    INTERNAL = "internal"


CREATE = Endpoint(
    "POST",
    "/contacts",
    Contact,
    effect="once",
    scope="contact_write",
    settle="contacts.find_by_external_id",
    settle_hint="or contacts.find_by_email",
)
GET = Endpoint("GET", "/contacts/{contact_id:int}", Contact, scope="contact_read")
FIND_BY_EMAIL = Endpoint(
    "GET", "/contacts", list[Contact], pages="link_header", scope="contact_read"
)
FIND_BY_EXTERNAL_ID = Endpoint("GET", "/contacts", list[Contact], scope="contact_read")
UPDATE = Endpoint(
    "PATCH", "/contacts/{contact_id:int}", Contact, effect="idempotent", scope="contact_write"
)
UPDATE_BY_EXTERNAL_ID = Endpoint(
    "PATCH", "/contacts/normalize", Contact, effect="idempotent", scope="contact_write"
)
DELETE = Endpoint(
    "DELETE",
    "/contacts/{contact_id:int}",
    NoneType,
    effect="idempotent",
    envelope="ok",
    scope="contact_write",
)
ADD_TIMELINE_EVENT = Endpoint(
    "POST",
    "/contacts/timeline",
    TimelineEvent,
    effect="once",
    scope="contact_write",
    settle_hint="look at the contact's timeline in the app: no call reads it",
)
ATTRIBUTES = Endpoint(
    "GET",
    "/contacts/attributes",
    list[AttributeDefinition],
    under="properties",
    scope="all_contact_read",
)
UNSUBSCRIBE = Endpoint(
    "POST",
    "/emails/unsubscribe",
    NoneType,
    effect="idempotent",
    envelope="ok",
    scope="contact_write",
)


class Contacts(Resource):
    """People known to Drift: https://devdocs.drift.com/docs/contact-model

    >>> contact = await drift.contacts.upsert("u-8c1f", email="ada@example.com")
    """

    async def create(
        self,
        email: str,
        *,
        external_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Contact:
        """Create a contact, and return it.

        A second contact with the same *email* raises `ConflictError`, unless it has an
        *external_id*, which then must be new instead. Choose external ids that cannot be guessed:
        anybody who knows one can act as the contact. A lost reply raises `OutcomeUnknownError`;
        nothing is created twice. https://devdocs.drift.com/docs/creating-a-contact
        """
        fields = _merged(attributes, email, external_id)
        return await self._call(CREATE, {"attributes": fields})

    async def get(self, contact_id: int) -> Contact:
        """Return a contact; `NotFoundError` if there is none.

        https://devdocs.drift.com/docs/retrieving-contact
        """
        return await self._call(GET, contact_id=contact_id)

    async def find_by_email(self, email: str, *, limit: int = 25) -> list[Contact]:
        """Return the contacts with just this e-mail address, at most *limit*; maybe none.

        https://devdocs.drift.com/docs/retrieving-contact
        """
        most = validate.integer("limit", limit, 1)
        pager = self._with_deadline()._pages(
            FIND_BY_EMAIL, email=validate.email("email", email), limit=min(max(most, 25), 100)
        )
        return await pager.collect(limit=most)

    async def find_by_external_id(self, *external_ids: str) -> list[Contact]:
        """Return the contacts with these ids of yours; unknown ones are left out.

        Takes one request for each 50 ids, or fewer where they are long.
        https://devdocs.drift.com/docs/retrieving-contact
        """
        ids = [validate.text(f"external_ids[{n}]", one) for n, one in enumerate(external_ids)]
        if not ids:
            raise InputError("external_ids", "give at least one")
        contacts = self._with_deadline()
        found: list[Contact] = []
        for batch in _batches(dict.fromkeys(ids)):
            came = await contacts._call(FIND_BY_EXTERNAL_ID, idType="external", id=batch)
            found += came
        return found

    async def update(self, contact_id: int, attributes: Mapping[str, Any]) -> Contact:
        """Set the given attributes, and return the contact; the others stay as they are.

        An unknown key makes a custom attribute. The API takes no null: None raises `InputError`.
        https://devdocs.drift.com/docs/contact-model
        """
        return await self._call(UPDATE, _changes(attributes), contact_id=contact_id)

    async def update_by_external_id(
        self, external_id: str, attributes: Mapping[str, Any], *, id_type: str = "external"
    ) -> Contact:
        """Set attributes of the contact with this id of yours, and return the contact.

        With *id_type* ``drift`` or ``internal`` the id is read as Drift's own.
        https://devdocs.drift.com/docs/contact-model
        """
        return await self._call(
            UPDATE_BY_EXTERNAL_ID,
            _changes(attributes),
            idType=validate.choice("id_type", id_type, IdType),
            id=validate.text("external_id", external_id),
        )

    async def upsert(
        self, external_id: str, *, email: str, attributes: Mapping[str, Any] | None = None
    ) -> Contact:
        """Update the contact with this id of yours, or create it, and return it.

        One ``timeout`` covers the two or more requests this takes. If somebody else creates the
        contact in between, it is updated. A lost reply to the creation raises
        `OutcomeUnknownError`. https://devdocs.drift.com/docs/creating-a-contact
        """
        contacts = self._with_deadline()
        fields = _merged(attributes, email, validate.text("external_id", external_id))
        found = await contacts.find_by_external_id(external_id)
        return await contacts._put(external_id, fields, found)

    async def _find_all(self, external_ids: Collection[str]) -> dict[str, list[Contact]]:
        """Return the contacts with each of these ids of yours; an id that has none is left out."""
        found: dict[str, list[Contact]] = {}
        for contact in await self.find_by_external_id(*external_ids):
            known = contact.attributes.external_id
            if known is not None and known in external_ids:
                found.setdefault(known, []).append(contact)
        return found

    async def _put(
        self, external_id: str, fields: dict[str, Any], found: Sequence[Contact]
    ) -> Contact:
        """Update the contact that was found, or create it."""
        if not found:
            try:
                return await self._call(CREATE, {"attributes": fields})
            except ConflictError:
                found = await self.find_by_external_id(external_id)
                if not found:
                    raise
        return await self.update(found[0].id, fields)

    async def delete(self, contact_id: int) -> None:
        """Take a contact out of the contacts view; erasure is `drift.gdpr.delete`.

        https://devdocs.drift.com/docs/removing-a-contact
        """
        await self._call(DELETE, contact_id=contact_id)

    def get_many(
        self, contact_ids: Items[int], **options: Unpack[BulkOptions]
    ) -> Bulk[int, Contact]:
        """Read many contacts, with an outcome for each; options as for `Drift.bulk`.

        https://devdocs.drift.com/docs/retrieving-contact
        """
        return self._bulk(Contacts.get, contact_ids, **options)

    def create_many(
        self, contacts: Items[NewContact], **options: Unpack[BulkOptions]
    ) -> Bulk[NewContact, Contact]:
        """Create many contacts, with an outcome for each; options as for `Drift.bulk`.

        A second run meets the contacts of the first: `ConflictError`. With external ids of yours,
        `upsert_many` can be run again. https://devdocs.drift.com/docs/creating-a-contact
        """
        return self._bulk(_create, contacts, **options)

    def update_many(
        self, updates: Items[ContactUpdate], **options: Unpack[BulkOptions]
    ) -> Bulk[ContactUpdate, Contact]:
        """Set attributes of many contacts, with an outcome for each; options as for `Drift.bulk`.

        https://devdocs.drift.com/docs/contact-model
        """
        return self._bulk(_update, updates, **options)

    def upsert_many(
        self, contacts: Items[NewContact], **options: Unpack[BulkOptions]
    ) -> Bulk[NewContact, Contact]:
        """Update or create many contacts by ids of yours; options as for `Drift.bulk`.

        One request finds up to 50 of them; if it fails, all these do. Items with the same
        ``external_id`` are done in order. Run again after a crash, it ends in the same state as
        one run. https://devdocs.drift.com/docs/creating-a-contact
        """
        caller = self._caller.for_bulk()
        each = type(self)(caller)
        upserts = Upserts(
            _upserted,
            find=each._find_all,
            put=lambda external_id, fields, found: each._with_deadline()._put(
                external_id, fields, found
            ),
        )
        return Bulk(caller, contacts, upserts.plan, batch=IDS_PER_REQUEST, **options)

    def delete_many(
        self, contact_ids: Items[int], **options: Unpack[BulkOptions]
    ) -> Bulk[int, None]:
        """Take many contacts out of the contacts view; options as for `Drift.bulk`.

        https://devdocs.drift.com/docs/removing-a-contact
        """
        return self._bulk(Contacts.delete, contact_ids, **options)

    async def add_timeline_event(
        self,
        event: str,
        *,
        contact_id: int | None = None,
        external_id: str | None = None,
        created_at: datetime | None = None,
    ) -> TimelineEvent:
        """Put an event into the timeline of a contact, and return it; its name in lower case.

        The contact is named by one of the two ids. Without *created_at* the event is of now. A lost
        reply raises `OutcomeUnknownError`. https://devdocs.drift.com/docs/posting-timeline-events
        """
        if (contact_id is None) == (external_id is None):
            raise InputError("contact_id", "give either contact_id or external_id")
        body = validate.without_none(
            event=validate.text("event", event),
            contactId=validate.optional(validate.identity, "contact_id", contact_id),
            externalId=validate.optional(validate.text, "external_id", external_id),
            createdAt=validate.optional(to_ms, "created_at", created_at),
        )
        return await self._call(ADD_TIMELINE_EVENT, body)

    async def attributes(self) -> list[AttributeDefinition]:
        """Return the definitions of the contact attributes in use.

        https://devdocs.drift.com/docs/listing-custom-attributes
        """
        return await self._call(ATTRIBUTES)

    async def unsubscribe(self, emails: Collection[str]) -> None:
        """Send no more mail to these addresses; unknown ones do no harm.

        Takes one request for each 500 addresses, in their order, under one ``timeout``. Where some
        are done and the rest fails, the error's ``applied`` is None, and a note says how many are
        done; to repeat them does no harm. https://devdocs.drift.com/docs/contact-model
        """
        addresses = validate.items("emails", emails, validate.email)
        if not addresses:
            raise InputError("emails", "must hold at least one address")
        contacts = self._with_deadline()
        done, total = 0, len(addresses)
        for batch in batched(addresses, EMAILS_PER_REQUEST):
            try:
                await contacts._call(UNSUBSCRIBE, batch)
            except DriftError as error:
                done += len(batch) if error.applied else 0
                if done:
                    error.applied = True if done == total else None
                    error.add_note(f"the first {done} of {total} addresses are unsubscribed")
                raise
            done += len(batch)


async def _create(contacts: Contacts, item: NewContact) -> Contact:
    new = validate.require_type("item", item, NewContact)
    return await contacts.create(new.email, external_id=new.external_id, attributes=new.attributes)


async def _update(contacts: Contacts, item: ContactUpdate) -> Contact:
    change = validate.require_type("item", item, ContactUpdate)
    return await contacts.update(change.contact_id, change.attributes)


def _upserted(item: NewContact) -> tuple[str, dict[str, Any]]:
    """Return external id and attributes of a contact to upsert, or raise `InputError`."""
    new = validate.require_type("item", item, NewContact)
    external_id = validate.text("external_id", new.external_id)
    return external_id, _merged(new.attributes, new.email, external_id)


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    """Cut ids into requests, by their number and by the length of the address."""
    batch: list[str] = []
    length = 0
    for one in ids:
        size = len("&id=") + len(quote(one, safe=""))
        if len(batch) == IDS_PER_REQUEST or (batch and length + size > BYTES_OF_IDS):
            yield batch
            batch, length = [], 0
        batch.append(one)
        length += size
    yield batch


def _changes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    checked = validate.attributes("attributes", attributes)
    if not checked:
        raise InputError("attributes", "must not be empty")
    return {"attributes": checked}


def _merged(
    attributes: Mapping[str, Any] | None, email: str, external_id: str | None
) -> dict[str, Any]:
    """Return all attributes with the two that have arguments of their own."""
    checked = validate.attributes("attributes", attributes)
    named = validate.without_none(
        email=validate.email("email", email),
        externalId=validate.optional(validate.text, "external_id", external_id),
    )
    for key, value in named.items():
        if checked.setdefault(key, value) != value:
            raise InputError(f"attributes.{key}", "must not differ from the argument")
    return checked
