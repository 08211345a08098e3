"""Accounts."""

from __future__ import annotations

import uuid
from typing import Any, Final

from .call import Call, bad, data, listed, mapped, ok, text, whole
from .types import Json, Refusal, Reply

KINDS: Final = (
    *("STRING", "EMAIL", "NUMBER", "TEAMMEMBER", "ENUM", "ENUMARRAY", "DATE", "DATETIME"),
    *("LATLON", "LAT", "LON", "PHONE", "URL"),
)


def _found(call: Call, account_id: str) -> Json:
    row = call.store.accounts.get(account_id)
    if row is None:
        raise Refusal(404, "no such account")
    return row


def _property(given: Any, field: str) -> Json:
    one = mapped(given, field)
    text(one.get("name"), f"{field}.name")
    if one.get("type") is not None and one["type"] not in KINDS:
        raise bad(f"{field}.type", f"must be one of {', '.join(sorted(KINDS))}")
    return one


def _values(call: Call, given: Json) -> Json:
    owner = given.get("ownerId")
    if owner is None:
        owner = given.get("owner_id")  # as an older description has it
    if owner is None:
        raise bad("ownerId", "is required")
    values: Json = {"ownerId": whole(owner, "ownerId")}
    if values["ownerId"] not in call.store.users:
        raise bad("ownerId", "no such user")
    for key in ("name", "domain"):
        if given.get(key) is not None:
            values[key] = text(given[key], key)
    if given.get("customProperties") is not None:
        custom = listed(given["customProperties"], "customProperties")
        values["customProperties"] = [
            _property(one, f"customProperties[{i}]") for i, one in enumerate(custom)
        ]
    if given.get("targeted") is not None:
        if not isinstance(given["targeted"], bool):
            raise bad("targeted", "must be true or false")
        values["targeted"] = given["targeted"]
    return values


def _taken() -> Refusal:
    return Refusal(409, "domain: another account has it")


def create(call: Call) -> Reply:
    values = _values(call, call.object())
    accounts, org_id = call.store.accounts, call.store.seed.org_id
    old = accounts.by_domain(values["domain"]) if "domain" in values else None
    if old and not old["deleted"]:
        raise _taken()
    account_id = old["accountId"] if old else f"{org_id}_{values.get('domain', '')}"
    if not old and ("domain" not in values or accounts.get(account_id)):
        name = f"account {accounts.total()} {call.now}"
        while accounts.get(account_id) or account_id == f"{org_id}_":
            name += "+"
            account_id = f"{org_id}_{uuid.uuid5(uuid.NAMESPACE_URL, name)}"
    row: Json = {
        "customProperties": [],
        "targeted": False,
        **values,
        "accountId": account_id,
        "deleted": False,
        "createDateTime": call.now,
        "updateDateTime": call.now,
    }
    accounts.put(row)
    return data(row)


def get(call: Call) -> Reply:
    return data(_found(call, call.params[0]))


def all(call: Call) -> Reply:
    given = call.one("index")
    index = 0 if given is None else whole(given, "index")
    if index < 0:
        raise bad("index", "must not be negative")
    size = call.size("size", 10, 65)
    accounts = call.store.accounts
    total = accounts.total()
    body: Json = {"accounts": accounts.page(index, size), "total": total}
    if index + size < total:
        body["next"] = f"/accounts?index={index + size}&size={size}"
    return data(body)


def update(call: Call) -> Reply:
    given = call.object(["accountId"])
    row = _found(call, text(given["accountId"], "accountId"))
    values = _values(call, given)
    other = call.store.accounts.by_domain(values["domain"]) if "domain" in values else None
    if other and other["accountId"] != row["accountId"]:
        raise _taken()
    row = {**row, **values, "updateDateTime": call.now}
    call.store.accounts.put(row)
    return data(row)


def delete(call: Call) -> Reply:
    row = _found(call, call.params[0])
    call.store.accounts.put({**row, "deleted": True, "updateDateTime": call.now})
    return ok()
