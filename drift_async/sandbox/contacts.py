"""Contacts, their timeline, attributes, tags and unsubscriptions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from itertools import islice
from typing import Final
from urllib.parse import urlencode

from .call import Call, bad, data, listed, mapped, ok, parse, text, whole
from .payloads import contact_updated
from .types import Json, Refusal, Reply

VERSIONS: Final = ("_END_USER_VERSION", "_end_user_version", "_calculated_version")
KEPT: Final = frozenset({*VERSIONS, "start_date", "external_id"})  # the service sets these


def _found(call: Call, contact_id: int) -> Json:
    row = call.store.contacts.get(contact_id)
    if row is None:
        raise Refusal(404, "no such contact")
    return row


def _attributes(call: Call) -> Json:
    given = mapped(call.object(["attributes"])["attributes"], "attributes")
    if given.get("externalId", "") is None:
        given = {key: value for key, value in given.items() if key != "externalId"}
    for key, value in given.items():
        if value is None:
            raise bad(f"attributes.{key}", "must not be null")
    if "email" in given:
        text(given["email"], "attributes.email")
    if isinstance(given.get("externalId", ""), bool | float | list | dict):
        raise bad("attributes.externalId", "must be text")
    if "tags" in given:
        listed(given["tags"], "attributes.tags")
    return {key: value for key, value in given.items() if key not in KEPT}


def _check_free(call: Call, attributes: Json, own_id: int | None) -> None:
    """Raise a 409 if another contact has the external id, or, without one, the e-mail."""
    contacts = call.store.contacts
    if "externalId" in attributes:
        field, taken = "externalId", contacts.by_external_id(str(attributes["externalId"]))
    else:
        field, taken = "email", contacts.by_email(attributes["email"])
    if any(i != own_id for i in taken):
        raise Refusal(409, f"attributes.{field}: another contact has it")


def new_contact(call: Call, attributes: Json) -> Json:
    """Add a contact with these attributes and the ones the service sets."""
    contacts = call.store.contacts
    fixed = {**dict.fromkeys(VERSIONS, 1), "socialProfiles": {}, "events": {}}
    row: Json = {
        "id": contacts.next_id,
        "createdAt": call.now,
        "attributes": {**fixed, **attributes, "start_date": call.now},
    }
    contacts.put(row)
    return row


def changed(call: Call, row: Json, attributes: Json) -> Json:
    """Set attributes of a contact; its version counters rise by one."""
    old = row["attributes"]
    version = old[VERSIONS[0]] + 1
    merged = {**old, **attributes, **dict.fromkeys(VERSIONS, version)}
    row = {**row, "attributes": merged}
    call.store.contacts.put(row)
    if diff := [*_differences(old, merged, "attributes")]:
        data = contact_updated(call.store.seed.org_id, row["id"], call.now, diff)
        call.state.webhooks.send("contact_updated", data)
    return row


def _differences(old: Json, new: Json, where: str) -> Iterator[Json]:
    for name, value in new.items():
        before = old.get(name)
        if name == "socialProfiles" and isinstance(before, dict) and isinstance(value, dict):
            yield from _differences(before, value, name)
        elif before != value and name not in VERSIONS:
            yield {"name": f"{where}.{name}", "previous": before, "updated": value}


def create(call: Call) -> Reply:
    attributes = _attributes(call)
    if "email" not in attributes:
        raise bad("attributes.email", "is required")
    _check_free(call, attributes, None)
    row = new_contact(call, attributes)
    if "externalId" in attributes:  # only the reply of a create also holds it as external_id
        twin = {"external_id": attributes["externalId"]}
        row = {**row, "attributes": row["attributes"] | twin}
    return data(row)


def get(call: Call) -> Reply:
    return data(_found(call, call.number()))


def find_by_email(call: Call) -> Reply:
    email, contacts = call.one("email"), call.store.contacts
    limit = call.size("limit", 25, 100)
    after = _read_cursor(call.one("cursor") or "")
    if email is None and call.state.strict:
        raise bad("email", "is required")
    if email is not None and not email.strip():
        raise bad("email", "must not be empty")
    ids = (
        contacts.after(after)
        if email is None
        else (i for i in contacts.by_email(email) if i > after)
    )
    page = list(islice(ids, limit + 1))
    reply = data([contacts.get(i) for i in page[:limit]])
    if len(page) > limit:
        cursor = base64.urlsafe_b64encode(b"after=%d" % page[limit - 1]).decode().rstrip("=")
        keys = {} if email is None else {"email": email}
        query = urlencode({**keys, "limit": limit, "cursor": cursor})
        reply.headers.append(("Link", f"<{call.origin}/contacts?{query}>; rel='next'"))
    return reply


def _read_cursor(cursor: str) -> int:
    if not cursor:
        return 0
    try:
        decoded = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        name, _, number = decoded.partition("=")
        if name == "after" and number.isdecimal():
            return int(number)
    except (binascii.Error, ValueError):
        pass  # refused below
    raise bad("cursor", "is not one of ours")


def find_by_external_id(call: Call) -> Reply:
    if call.need("idType") != "external":
        raise bad("idType", "must be external")
    call.need("id")
    wanted, contacts = call.query["id"], call.store.contacts
    if len(wanted) > 100:
        raise bad("id", "at most 100 a call")
    return data(
        [contacts.get(i) for one in dict.fromkeys(wanted) for i in contacts.by_external_id(one)]
    )


def _update(call: Call, row: Json) -> Reply:
    attributes = _attributes(call)
    if "email" in attributes or "externalId" in attributes:
        identity = {**row["attributes"], **attributes}
        _check_free(call, identity, row["id"])
    return data(changed(call, row, attributes))


def update(call: Call) -> Reply:
    return _update(call, _found(call, call.number()))


def update_by_external_id(call: Call) -> Reply:
    kind, given = call.need("idType"), call.need("id")
    if kind not in ("drift", "external", "internal"):
        raise bad("idType", "must be drift, external or internal")
    if kind == "external":
        found = call.store.contacts.by_external_id(given)
        return _update(call, _found(call, found[0] if found else 0))
    return _update(call, _found(call, whole(given, "id")))


def delete(call: Call) -> Reply:
    if call.method == "POST" and call.body.strip():
        raise bad("body", "must be empty")
    contact_id = _found(call, call.number())["id"]
    call.store.contacts.drop(contact_id)
    return ok(202)


def add_timeline_event(call: Call) -> Reply:
    given = call.object(["event"])
    event = text(given["event"], "event")
    contact_id, external_id = given.get("contactId"), given.get("externalId")
    created = call.now if given.get("createdAt") is None else whole(given["createdAt"], "createdAt")
    if given.get("attributes") is not None:
        mapped(given["attributes"], "attributes")
    if contact_id is not None:
        contact_id = whole(contact_id, "contactId")
    elif external_id is not None:
        if isinstance(external_id, bool | float | list | dict):
            raise bad("externalId", "must be text")
        contact_id = next(iter(call.store.contacts.by_external_id(str(external_id))), 0)
    else:
        raise bad("contactId", "is required, or externalId")
    contact_id = _found(call, contact_id)["id"]
    # The service gives names back in lower case and, whatever was sent, no attributes.
    body = {"event": event.lower(), "createdAt": created, "contactId": contact_id}
    return data({"attributes": {}, **body})


def attributes(call: Call) -> Reply:
    kinds = call.store.contacts.kinds
    rows = [{"type": kinds[name], "displayName": name, "name": name} for name in sorted(kinds)]
    return data({"properties": rows})


def unsubscribe(call: Call) -> Reply:
    emails = parse(call.body)
    if not isinstance(emails, list) or not emails:
        raise bad("body", "must be a list of e-mail addresses")
    for i, email in enumerate(emails):
        text(email, f"body[{i}]")
    contacts = call.store.contacts
    for contact_id in [i for email in emails for i in contacts.by_email(email)]:
        call.state.webhooks.send("user_unsubscribed", contacts.get(contact_id))
    return ok()


def _retag(call: Call, row: Json, tags: list[Json]) -> Reply:
    return data(changed(call, row, {"tags": tags}))


def add_tags(call: Call) -> Reply:
    row = _found(call, call.number())
    tags = list(row["attributes"].get("tags", ()))
    for i, given in enumerate(listed(parse(call.body), "body")):
        name = text(mapped(given, f"body[{i}]").get("name"), f"body[{i}].name")
        tag = {"name": name}
        if given.get("color") is not None:
            tag["color"] = text(given["color"], f"body[{i}].color")
        if all(_tag_name(old) != name for old in tags):
            tags.append(tag)
    return _retag(call, row, tags)


def _tag_name(tag: object) -> str | None:
    name = tag.get("name") if isinstance(tag, dict) else tag
    return name if isinstance(name, str) else None


def remove_tag(call: Call) -> Reply:
    row = _found(call, call.number())
    tags = row["attributes"].get("tags", ())
    return _retag(call, row, [tag for tag in tags if _tag_name(tag) != call.params[1]])


def remove_tags(call: Call) -> Reply:
    row = _found(call, call.number())
    names = {text(name, f"body[{i}]") for i, name in enumerate(listed(parse(call.body), "body"))}
    tags = row["attributes"].get("tags", ())
    return _retag(call, row, [tag for tag in tags if _tag_name(tag) not in names])
