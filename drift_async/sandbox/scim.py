"""SCIM users; each stands for one user of the org and changes with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from . import scim_filter
from .call import Call, bad, listed, mapped, text, whole
from .seed import USER_ID
from .store import SCIM_USER
from .types import SCIM_TYPE, Json, Refusal, Reply

LIST: Final = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
_ROLE: Final = re.compile(r"(ADMIN|MEMBER|OWNER|role-ids=\[[0-9]+\])\Z")


def _found(call: Call, user_id: str) -> Json:
    row = call.store.scim.get(user_id)
    if row is None:
        raise Refusal(404, "no such user")
    return row


def _reply(row: Json, status: int = 200) -> Reply:
    return Reply(row, status, content_type=SCIM_TYPE)


def get(call: Call) -> Reply:
    return _reply(_found(call, call.params[0]))


def all(call: Call) -> Reply:
    rows = sorted(call.store.scim.values(), key=lambda row: int(row["id"]))
    if given := call.one("filter"):
        fits = scim_filter.parse(given)
        rows = [row for row in rows if fits(row)]
    # RFC 7644 3.4.2.4: numbers below the least count as the least.
    start = max(1, whole(call.one("startIndex") or 1, "startIndex"))
    asked = call.one("count")
    count = min(200, max(0, whole(100 if asked is None else asked, "count")))
    page = {
        "schemas": [LIST],
        "id": None,
        "externalId": None,
        "meta": None,
        "totalResults": len(rows),
        "Resources": rows[start - 1 : start - 1 + count],
        "startIndex": start,
        "itemsPerPage": 0,  # as in the documented sample, whatever the page holds
    }
    return Reply(page, content_type=SCIM_TYPE)


def _entries(value: Any, field: str) -> list[Json]:
    return [mapped(one, f"{field}[{i}]") for i, one in enumerate(listed(value, field))]


def _valued(value: Any, field: str) -> list[Json]:
    entries = _entries(value, field)
    for i, one in enumerate(entries):
        if one.get("value") is not None:
            text(one["value"], f"{field}[{i}].value", blank=True)
    return entries


def _roles(value: Any, field: str) -> list[Json]:
    roles = _entries(value, field)
    for i, role in enumerate(roles):
        if not isinstance(role.get("value"), str) or not _ROLE.match(role["value"]):
            raise bad(f"{field}[{i}].value", "must be ADMIN, MEMBER, OWNER or role-ids=[number]")
    return roles


FIELDS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "userName": text,
    "displayName": text,
    "name": mapped,
    "emails": _valued,
    "phoneNumbers": _valued,
    "photos": _valued,
    "roles": _roles,
    "locale": text,
}


def _checked(given: Json) -> Json:
    fields = FIELDS.items()
    return {key: check(given[key], key) for key, check in fields if given.get(key) is not None}


def _check_name(call: Call, name: str, own_id: str | None) -> None:
    """Raise a 409 if another user has or had this name; deleted users keep theirs."""
    wanted, store = name.lower(), call.store
    same = [row["id"] for row in store.scim.values() if row["userName"].lower() == wanted]
    if wanted in store.retired or any(user_id != own_id for user_id in same):
        raise Refusal(409, "userName: is or was in use", scim_type="uniqueness")


def _stored(call: Call, row: Json) -> Json:
    """Save the SCIM user and the user it stands for."""
    row = {**row, "emails": row.get("emails") or [{"value": row["userName"], "primary": True}]}
    user_id = int(row["id"])
    phone = next((one["value"] for one in row["phoneNumbers"] if one.get("value")), None)
    role = next((one["value"] for one in row["roles"]), "MEMBER")
    new = {"id": user_id, "orgId": call.store.seed.org_id, "availability": "OFFLINE"}
    new |= {"verified": False, "bot": False, "createdAt": call.now}
    user = call.store.users.get(user_id, new) | {
        "name": row["displayName"],
        "email": row["userName"],
        "role": "admin" if role in ("ADMIN", "OWNER") else "member",
        "updatedAt": call.now,
    }
    for key, value in (("phone", phone), ("locale", row.get("locale"))):
        user = {name: old for name, old in user.items() if name != key}
        if value is not None:
            user[key] = value
    call.store.users[user_id] = user
    call.store.scim[row["id"]] = row
    return row


def _new(given: Json, user_id: str) -> Json:
    display = given["displayName"]
    role = {"value": "MEMBER", "display": "MEMBER", "primary": True}
    fixed = {"schemas": [SCIM_USER], "id": user_id, "active": True}
    empty: Json = {"phoneNumbers": [], "photos": [], "roles": [role]}
    return {**fixed, "name": {"formatted": display}, **empty, **given}


def create(call: Call) -> Reply:
    given = _checked(call.object(["userName", "displayName"]))
    _check_name(call, given["userName"], None)
    user_id = str(max((USER_ID, *call.store.users, *call.store.retired_ids)) + 1)
    reply = _reply(_stored(call, _new(given, user_id)), 201)
    reply.headers.append(("Location", f"{call.origin}/scim/Users/{user_id}"))
    return reply


def replace(call: Call) -> Reply:
    given = call.object(["userName", "displayName"])
    user_id = call.params[0] if call.params else given.get("id")
    if user_id is None:  # an older form has no id in the path
        name = text(given["userName"], "userName").lower()
        rows = call.store.scim.values()
        user_id = next((row["id"] for row in rows if row["userName"].lower() == name), "")
    old = _found(call, str(user_id))
    values = _checked(given)
    _check_name(call, values["userName"], old["id"])
    if _switched_off(given):
        return _removed(call, old)
    return _reply(_stored(call, _new(values, old["id"])))


def update(call: Call) -> Reply:
    old = _found(call, call.params[0])
    given = call.object()
    if "Operations" in given:
        given = _applied(old, _entries(given["Operations"], "Operations"))
    values = _checked(given)
    if "userName" in values:
        _check_name(call, values["userName"], old["id"])
        values.setdefault("emails", [{"value": values["userName"], "primary": True}])
    if _switched_off(given):
        return _removed(call, old)
    cleared = {key for key in FIELDS if key in given and given[key] is None}
    if cleared & {"userName", "displayName"}:
        raise bad(min(cleared & {"userName", "displayName"}), "must not be null")
    kept = {key: value for key, value in old.items() if key not in cleared}
    empty: Json = {key: [] for key in cleared & {"phoneNumbers", "photos", "roles"}}
    return _reply(_stored(call, {**kept, **empty, **values}))


def _switched_off(given: Json) -> bool:
    for key in ("isActive", "active"):
        value = given.get(key)
        if value is not None and not isinstance(value, bool):
            raise bad(key, "must be true or false")
    return given.get("isActive") is False or given.get("active") is False


def _applied(old: Json, operations: list[Json]) -> Json:
    """Return RFC 7644 operations as plain fields with their new values; None clears."""
    values: Json = {}
    new: Any
    for i, operation in enumerate(operations):
        field = f"Operations[{i}]"
        kind = text(operation.get("op"), f"{field}.op").lower()
        if kind not in ("add", "replace", "remove"):
            raise bad(f"{field}.op", "must be add, replace or remove", scim_type="invalidSyntax")
        path = operation.get("path")
        if path is None and kind != "remove":
            values.update(mapped(operation.get("value"), f"{field}.value"))
            continue
        key, _, inner = text(path, f"{field}.path").partition(".")
        if key not in (*FIELDS, "active", "isActive") or (inner and key != "name"):
            raise bad(f"{field}.path", "is not supported", scim_type="invalidPath")
        new = None if kind == "remove" else operation.get("value")
        if inner:
            name = mapped(values.get(key, old.get(key, {})), f"{field}.value")
            values[key] = {**name, inner: new}
        elif kind == "add" and isinstance(old.get(key), list):
            known = _entries(values.get(key, old[key]), f"{field}.value")
            values[key] = [*known, *_entries(new, f"{field}.value")]
        else:
            values[key] = new
    return values


def _removed(call: Call, row: Json) -> Reply:
    store = call.store
    store.retired.add(row["userName"].lower())
    store.retired_ids.add(int(row["id"]))
    del store.scim[row["id"]]
    store.users.pop(int(row["id"]), None)
    return _reply({**row, "active": False})


def delete(call: Call) -> Reply:
    if not call.params:
        raise bad("id", "is required in the path")
    _removed(call, _found(call, call.params[0]))
    return Reply(status=204)
