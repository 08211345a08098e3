"""Conversations: reading, listing in both paging styles, starting one, transcripts."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from itertools import islice
from typing import Final
from urllib.parse import parse_qsl, urlencode

from .call import Call, bad, data, mapped, text, whole
from .contacts import new_contact
from .messages import conversation_of, new_message
from .seed import INBOX_ID, STATUSES, USER_ID
from .types import Json, Reply

PATH: Final = "/conversations/list"
ROW: Final = ("status", "contactId", "createdAt", "id", "inboxId", "updatedAt")
NUMBERS: Final = {"1": "open", "2": "closed", "3": "pending"}
MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"  # strftime would follow the locale


def get(call: Call) -> Reply:
    return data(conversation_of(call))


def _statuses(call: Call) -> list[str] | None:
    wanted = []
    for given in call.query.get("statusId", ()):
        status = NUMBERS.get(given, given.lower())  # older clients send the words
        if status not in STATUSES:
            raise bad("statusId", "must be 1, 2 or 3")
        wanted.append(status)
    return list(dict.fromkeys(wanted)) or None


def _write_token(statuses: list[str] | None, updated: int, last_id: int, limit: int) -> str:
    words = {status: number for number, status in NUMBERS.items()}
    pairs = [("statusIds", words.get(status, status)) for status in statuses or ()]
    pairs += [
        ("highestUpdatedAt", str(updated)),
        ("highestId", str(last_id)),
        ("limit", str(limit)),
    ]
    return base64.urlsafe_b64encode(urlencode(pairs).encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[list[str] | None, tuple[int, int], int]:
    try:
        padded = token.replace("+", "-").replace("/", "_") + "=" * (-len(token) % 4)
        pairs = parse_qsl(base64.b64decode(padded, b"-_", validate=True).decode("ascii"))
        keys = dict(pairs)
        statuses = [NUMBERS.get(value, value) for key, value in pairs if key == "statusIds"]
        after = int(keys["highestUpdatedAt"]), int(keys["highestId"])
        limit = int(keys["limit"])
    except (binascii.Error, ValueError, KeyError):
        raise bad("page_token", "is not one of ours") from None
    if limit < 1 or not set(statuses) <= set(STATUSES):
        raise bad("page_token", "is not one of ours")
    return statuses or None, after, min(limit, 100)


def all(call: Call) -> Reply:
    limit, statuses = call.size("limit", 25, 100), _statuses(call)
    after, offset = None, 0
    if token := call.one("page_token"):  # blank means the first page
        statuses, after, limit = _read_token(token)
    elif given := call.one("next"):
        offset = whole(given, "next")
        if offset < 0:
            raise bad("next", "must not be negative")
    conversations = call.store.conversations
    ids = list(islice(conversations.walk(after, statuses, offset), limit + 1))
    rows = [row for i in ids[:limit] if (row := conversations.get(i))]
    base = f"https://{call.state.links_host}" if call.state.links_host else call.origin

    def link(updated: int, last_id: int) -> str:
        return f"{base}{PATH}?page_token={_write_token(statuses, updated, last_id, limit)}"

    # The token of a page itself lies just before its first row.
    here = (rows[0]["updatedAt"], rows[0]["id"] - 1) if rows else after or (call.now, 0)
    body: Json = {
        "data": [{key: row[key] for key in ROW} for row in rows],
        "links": {"self": link(*here)},
    }
    if len(ids) > limit:
        body["links"]["next"] = link(rows[-1]["updatedAt"], rows[-1]["id"])
        if after is not None:
            offset = conversations.position(after, statuses)
        body["pagination"] = {"more": True, "next": str(offset + limit)}
    return Reply(body)


def stats(call: Call) -> Reply:
    counts = call.store.conversations.counts
    keys = ("closed", "open", "pending")
    return Reply({"conversationCount": {key.upper(): counts[key] for key in keys}})


def create(call: Call) -> Reply:
    given = call.object(["email", "message"])
    email = text(given["email"], "email")
    message = mapped(given["message"], "message")
    text(message.get("body"), "message.body")
    attributes = {}
    if message.get("attributes") is not None:
        attributes = mapped(message["attributes"], "message.attributes")
    participants = []
    if attributes.get("autoAssigneeId") is not None:
        field = "message.attributes.autoAssigneeId"
        participants = [whole(attributes["autoAssigneeId"], field)]
        if participants[0] not in call.store.users:
            raise bad(field, "no such user")
    contacts, conversations = call.store.contacts, call.store.conversations
    known = contacts.by_email(email)
    contact_id = known[0] if known else new_contact(call, {"email": email})["id"]
    row: Json = {
        "status": "open",
        "participants": participants,
        "contactId": contact_id,
        "createdAt": call.now,
        "id": conversations.next_id,
        "inboxId": INBOX_ID,
        "updatedAt": call.now,
    }
    conversations.put(row)
    first = new_message(call, row, {"type": "chat", "body": message["body"]}, USER_ID)
    first["attributes"] |= attributes
    conversations.put_messages(row["id"], [first])
    call.state.webhooks.send("new_message", first)  # not new_conversation: no visitor
    return Reply({key: value for key, value in row.items() if value != []})


def _author(call: Call, message: Json) -> str:
    author = message["author"]
    if author["type"] == "user":
        user = call.store.users.get(author["id"])
        return f"{user['name'] if user else author['id']} (Agent)"
    contact = call.store.contacts.get(author["id"])
    attributes = contact["attributes"] if contact else {}
    return str(attributes.get("name") or attributes.get("email") or "null")


def transcript(call: Call) -> Reply:
    lines = []
    for message in call.store.conversations.messages(conversation_of(call)["id"]):
        when = datetime.fromtimestamp(message["createdAt"] // 1000, UTC)
        month = MONTHS[when.month * 3 - 3 : when.month * 3]
        stamp = f"{month} {when.day:02d}, {when.hour % 12 or 12:02d}:"
        stamp += f"{when:%M:%S} {'AM' if when.hour < 12 else 'PM'} UTC"
        body = " ".join(message.get("body", "").splitlines())
        lines.append(f"{stamp} {_author(call, message)}: {body}\n")
    return Reply(content="".join(lines).encode(), content_type="text/plain; charset=utf-8")


def json_transcript(call: Call) -> Reply:
    keys = ("id", "body", "type", "author", "createdAt")
    messages = call.store.conversations.messages(conversation_of(call)["id"])
    return data({"messages": [{key: row[key] for key in keys if key in row} for row in messages]})
