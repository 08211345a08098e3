"""Messages of a conversation, and attachments."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from .call import Call, bad, data, listed, mapped, text, whole
from .seed import USER_ID
from .types import Json, Refusal, Reply

PAGE: Final = 50
TYPES: Final = ("chat", "private_note", "private_prompt", "suggestion", "edit")
BUTTONS: Final = ("reply", "compose", "action", "noop")
EDITS: Final = ("delete", "replace", "replace_body", "replace_buttons")
# int() reads 4,300 digits at most.
_RANGE: Final = re.compile(r"bytes=([0-9]{0,4000})-([0-9]{0,4000})\s*\Z")


def conversation_of(call: Call) -> Json:
    """Return the conversation that the path names; raise a 404 if there is none."""
    row = call.store.conversations.get(call.number())
    if row is None:
        raise Refusal(404, "no such conversation")
    return row


def new_message(call: Call, conversation: Json, content: Json, author: int) -> Json:
    """Return a new message as the API makes it; the caller stores it."""
    conversations = call.store.conversations
    message_id = conversations.next_message_id
    conversations.next_message_id += 1
    return {
        "id": message_id,
        "orgId": call.store.seed.org_id,
        "conversationId": conversation["id"],
        **content,
        "author": {"id": author, "type": "user", "bot": call.store.users[author]["bot"]},
        "createdAt": call.now,
        "context": {"ip": "127.0.0.1", "location": {}},
        "attributes": {"developer_app_id": "00000000-0000-0000-0000-000000000000"},
    }


def list_page(call: Call) -> Reply:
    conversation_id = conversation_of(call)["id"]
    page = whole(call.one("next") or 1, "next")
    if page < 1:
        raise bad("next", "must be at least 1")
    conversations = call.store.conversations
    rows = conversations.messages(conversation_id, (page - 1) * PAGE, page * PAGE)
    more = conversations.message_count(conversation_id) > page * PAGE
    # An older client walks on while `next` is there, so the last page has none.
    pagination = {"more": True, "next": str(page + 1)} if more else {"more": False}
    return Reply({"data": {"messages": rows}, "pagination": pagination})


def _button(given: object, field: str, kind: str) -> Json:
    button = mapped(given, field)
    text(button.get("label"), f"{field}.label")
    text(button.get("value"), f"{field}.value", blank=True)
    if button.get("type") not in BUTTONS:
        raise bad(f"{field}.type", f"must be one of {', '.join(BUTTONS)}")
    if kind == "chat" and button["type"] != "reply":
        raise bad(f"{field}.type", "must be reply in a chat message")
    if button.get("style") not in (None, "primary", "danger"):
        raise bad(f"{field}.style", "must be primary or danger")
    if button.get("reaction") is not None:
        reaction = mapped(button["reaction"], f"{field}.reaction")
        if reaction.get("type") not in ("replace", "delete"):
            raise bad(f"{field}.reaction.type", "must be replace or delete")
        if reaction["type"] == "replace":
            text(reaction.get("message"), f"{field}.reaction.message", blank=True)
    return button


def _content(given: Json, kind: str) -> Json:
    content: Json = {}
    if given.get("body") is not None:
        content["body"] = text(given["body"], "body", blank=True)
    if given.get("buttons") is not None:
        buttons = listed(given["buttons"], "buttons")
        content["buttons"] = [_button(one, f"buttons[{i}]", kind) for i, one in enumerate(buttons)]
    return content


def create(call: Call) -> Reply:
    conversation = conversation_of(call)
    given = call.object(["type"])
    kind = given["type"]
    if kind not in TYPES:
        raise bad("type", f"must be one of {', '.join(TYPES)}")
    if given.get("orgId") is not None:
        whole(given["orgId"], "orgId")
    author = USER_ID if given.get("userId") is None else whole(given["userId"], "userId")
    if author not in call.store.users:
        raise bad("userId", "no such user")
    content = _content(given, kind)
    conversations = call.store.conversations
    messages = conversations.messages(conversation["id"])
    if kind == "edit":
        message, messages = _edited(given, content, messages)
    else:
        if not content.get("body") and not content.get("buttons"):
            raise bad("body", "is required, or buttons")
        message = new_message(call, conversation, {"type": kind, **content}, author)
        messages = [*messages, message]
    conversations.put_messages(conversation["id"], messages)
    conversations.put({**conversation, "updatedAt": max(call.now, conversation["updatedAt"])})
    if kind != "edit":
        call.state.webhooks.send("new_message", message)
        if message.get("body", "").startswith("/"):
            call.state.webhooks.send("new_command_message", message)
    return data(message)


def _edited(given: Json, content: Json, messages: list[Json]) -> tuple[Json, list[Json]]:
    """Return the edited or removed message, and the list as it is afterwards."""
    edit = given.get("editType")
    if edit not in EDITS:
        raise bad("editType", f"must be one of {', '.join(EDITS)}")
    message_id = whole(given.get("editedMessageId"), "editedMessageId")
    old = next((row for row in messages if row["id"] == message_id), None)
    if old is None:
        raise Refusal(404, "no such message")
    if edit == "delete":
        return old, [row for row in messages if row is not old]
    wanted = {"replace_body": ("body",), "replace_buttons": ("buttons",)}
    keys = wanted.get(edit, ("body", "buttons"))
    values = {key: content[key] for key in keys if key in content}
    if not values:
        raise bad(keys[0], "is required")
    new = {key: value for key, value in old.items() if key not in keys} | values
    return new, [new if row is old else row for row in messages]


def attachment(call: Call) -> Reply:
    found = call.store.conversations.attachment(call.number())
    if found is None:
        raise Refusal(404, "no such attachment")
    name, media_type, content = found
    plain = re.sub(r"[^\x20-\x7e]|[\"\\]", "_", name)
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"
    headers = [("Accept-Ranges", "bytes"), ("Content-Disposition", disposition)]
    total = len(content)
    part = _part(call, total)
    if part is None:
        return Reply(content=content, headers=headers, content_type=media_type)
    if not part:
        raise Refusal(416, "range lies outside", headers=[("Content-Range", f"bytes */{total}")])
    headers.append(("Content-Range", f"bytes {part.start}-{part.stop - 1}/{total}"))
    body = content[part.start : part.stop]
    return Reply(status=206, content=body, headers=headers, content_type=media_type)


def _part(call: Call, total: int) -> range | None:
    """Return the requested range, empty if it cannot be served; None: send everything."""
    asked = _RANGE.match(call.header.get("Range", ""))
    if asked is None or asked[1] == asked[2] == "" or "If-Range" in call.header:
        return None  # there is no validator, so no If-Range can hold
    if not asked[1]:
        return range(max(0, total - int(asked[2])), total)
    start, stop = int(asked[1]), min(int(asked[2] or total), total - 1) + 1
    if asked[2] and int(asked[2]) < start < total:
        return None  # an invalid range counts as none
    return range(start, stop) if start < total else range(0)
