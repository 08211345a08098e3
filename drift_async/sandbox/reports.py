"""Conversation reports: filters and metrics over every conversation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from .call import Call, bad, listed, mapped, text, whole
from .types import Json, Reply

Property = Callable[[Json, list[Json]], Any]
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")


def _agent(messages: list[Json]) -> list[Json]:
    return [row for row in messages if row["author"]["type"] == "user" and not row["author"]["bot"]]


def _contact(messages: list[Json]) -> list[Json]:
    return [row for row in messages if row["author"]["type"] == "contact"]


def _closed(row: Json) -> int | None:
    return row["updatedAt"] if row["status"] == "closed" else None


def _response(messages: list[Json]) -> int | None:
    asked, agent = _contact(messages), _agent(messages)
    return agent[0]["createdAt"] - asked[0]["createdAt"] if asked and agent else None


NUMERIC: Final[Mapping[str, Property]] = {
    "lastAgentId": lambda _, m: a[-1]["author"]["id"] if (a := _agent(m)) else None,
    "firstCloseAt": lambda row, _: _closed(row),
    "createdAt": lambda row, _: row["createdAt"],
    "updatedAt": lambda row, _: row["updatedAt"],
    "firstAgentMessageAt": lambda _, m: a[0]["createdAt"] if (a := _agent(m)) else None,
    "timeToCloseMillis": lambda row, _: c - row["createdAt"] if (c := _closed(row)) else None,
    "timeToAgentResponseMillis": lambda _, m: _response(m),
    "numAgentMessages": lambda _, m: len(_agent(m)),
    "numBotMessages": lambda _, m: sum(row["author"]["bot"] for row in m),
    "numEndUserMessages": lambda _, m: len(_contact(m)),
    "endUserId": lambda row, _: row["contactId"],
    "relatedPlaybookId": lambda row, _: row.get("relatedPlaybookId"),
    "meaningfulConversation": lambda _, m: int(bool(_contact(m))),
}
PROPERTIES: Final[Mapping[str, Property]] = {
    **NUMERIC,
    "status": lambda row, _: row["status"],
    "botStatus": lambda _, m: None if _agent(m) else "BOT_ONLY",
}


def _moment(value: Any, field: str, *, end: bool) -> int:
    """Return milliseconds; a day counts from its first or to its last one, in UTC."""
    if not (isinstance(value, str) and _DAY.match(value)):
        return whole(value, field)
    try:
        day = datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC)
        return int((day + timedelta(days=end)).timestamp()) * 1000 - end
    except (ValueError, OverflowError):
        raise bad(field, "is not a day") from None


def _filter(given: Any, field: str) -> tuple[Property, Callable[[Any], bool]]:
    one = mapped(given, field)
    name, operation = one.get("property"), one.get("operation")
    if not isinstance(name, str) or name not in PROPERTIES:
        raise bad(f"{field}.property", "is not known")
    if operation == "HAS_PROPERTY":
        return PROPERTIES[name], lambda value: value is not None
    if operation not in ("BETWEEN", "IN"):
        raise bad(f"{field}.operation", "must be HAS_PROPERTY, BETWEEN or IN")
    values = listed(one.get("values"), f"{field}.values")
    if operation == "IN":
        wanted = {str(value) for value in values}
        return PROPERTIES[name], lambda value: str(value) in wanted
    if len(values) != 2:
        raise bad(f"{field}.values", "must be two")
    if name not in NUMERIC:
        raise bad(f"{field}.property", "is text, which BETWEEN cannot compare")
    low = _moment(values[0], f"{field}.values[0]", end=False)
    high = _moment(values[1], f"{field}.values[1]", end=True)
    return PROPERTIES[name], lambda value: value is not None and low <= value <= high


def _metric(name: Any, field: str) -> Property:
    if text(name, field) not in NUMERIC:
        raise bad(field, "is not a numeric property")
    return NUMERIC[name]


def _matches(call: Call, filters: Any) -> Iterator[tuple[Json, list[Json]]]:
    checks = [_filter(one, f"filters[{i}]") for i, one in enumerate(listed(filters, "filters"))]
    conversations = call.store.conversations
    for conversation_id in conversations.walk():
        row, messages = conversations.get(conversation_id), conversations.messages(conversation_id)
        if row and all(fits(value(row, messages)) for value, fits in checks):
            yield row, messages


def conversations(call: Call) -> Reply:
    given = call.object(["filters", "metrics"])
    names = listed(given["metrics"], "metrics")
    metrics = [_metric(name, f"metrics[{i}]") for i, name in enumerate(names)]
    rows = []
    for row, messages in _matches(call, given["filters"]):
        values = [metric(row, messages) for metric in metrics]
        values = ["NaN" if value is None else value for value in values]
        rows.append({"conversationId": row["id"], "metrics": values})
    return Reply({"count": len(rows), "data": rows})


def conversation_summary(call: Call) -> Reply:
    given = call.object(["metrics"])
    asked = []
    for i, one in enumerate(listed(given["metrics"], "metrics")):
        if mapped(one, f"metrics[{i}]").get("type") != "AVG":
            raise bad(f"metrics[{i}].type", "must be AVG")
        name = one.get("property")
        asked.append((name, _metric(name, f"metrics[{i}].property")))
    filters = given.get("filters")
    found = list(_matches(call, [] if filters is None else filters))
    out = []
    for name, metric in asked:
        values = [value for row in found if (value := metric(*row)) is not None]
        mean = sum(values) / len(values) if values else "NaN"
        out.append({"type": "AVG", "property": name, "value": mean})
    return Reply({"data": {"count": len(found), "metrics": out}})
