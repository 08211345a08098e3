"""Users, teams and meetings."""

from __future__ import annotations

import re
from typing import Final

from .call import Call, bad, data, text, whole
from .seed import DAY
from .types import Json, Refusal, Reply

SETTABLE: Final = ("name", "alias", "email", "phone", "locale", "avatarUrl", "availability")
_PHONE: Final = re.compile(r"[0-9]{3}-[0-9]{3}-[0-9]{4}\Z")


def _found(call: Call, user_id: int) -> Json:
    row = call.store.users.get(user_id)
    if row is None:
        raise Refusal(404, "no such user")
    return row


def get(call: Call) -> Reply:
    return data(_found(call, call.number()))


def get_many(call: Call) -> Reply:
    ids = [whole(given, "userId") for given in call.query["userId"]]
    if len(ids) > 20:
        raise bad("userId", "at most 20 a call")
    users = call.store.users
    return data({str(i): users[i] for i in ids if i in users})


def all(call: Call) -> Reply:
    return data([row for _, row in sorted(call.store.users.items())])


def update(call: Call) -> Reply:
    row = _found(call, whole(call.need("userId"), "userId"))
    given = call.object()
    values = {key: text(given[key], key) for key in SETTABLE if given.get(key) is not None}
    cleared = [key for key in SETTABLE if key in given and given[key] is None]
    for key in ("name", "email", "availability"):
        if key in cleared:
            raise bad(key, "must not be null")
    if values.get("availability") not in (None, "AVAILABLE", "OFFLINE"):
        raise bad("availability", "must be AVAILABLE or OFFLINE")
    if "phone" in values and not _PHONE.match(values["phone"]):
        raise bad("phone", "must be three, three and four digits with hyphens between")
    kept = {key: value for key, value in row.items() if key not in cleared}
    row = {**kept, **values, "updatedAt": call.now}
    call.store.put_user(row)
    if "availability" in values:
        word = {"AVAILABLE": "ONLINE"}.get(row["availability"], row["availability"])
        told = {"userId": row["id"], "updatedAt": call.now, "availability": word}
        call.state.webhooks.send("user_availability_updated", told)
    return data(row)


def meetings(call: Call) -> Reply:
    low = whole(call.need("min_start_time"), "min_start_time")
    high = whole(call.need("max_start_time"), "max_start_time")
    if low > high:
        raise bad("max_start_time", "lies before min_start_time")
    given = call.one("limit")
    limit = 100 if given is None else whole(given, "limit") or 100
    if not 1 <= limit <= 1000:
        raise bad("limit", "must be 0 to 1000")
    seed, low = call.store.seed, max(low, call.now - 30 * DAY)
    rows: list[Json] = []
    for n in range(seed.meetings):
        row = seed.meeting(n, call.state.today)
        if row["slotStart"] > high or len(rows) == limit:
            break
        if row["slotStart"] >= low:
            rows.append(row)
    return data(rows)


def _teams(call: Call) -> list[Json]:
    rows = [call.store.seed.team(n) for n in range(3)]
    users = call.store.users
    return [{**row, "members": [i for i in row["members"] if i in users]} for row in rows]


def teams(call: Call) -> Reply:
    return data(_teams(call))


def teams_of_user(call: Call) -> Reply:
    user_id = _found(call, call.number())["id"]
    return data([row for row in _teams(call) if user_id in row["members"]])
