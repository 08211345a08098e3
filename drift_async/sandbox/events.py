"""The event API and SegmentStream."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import datetime
from typing import Any, Final

from .call import Call, bad, listed, mapped, parse, text, whole
from .logs import Event, NewEvent
from .types import Json, Refusal, Reply

BATCH: Final = 600
MAX_HIT: Final = 1 << 16
MAX_HIT_ID: Final = 128


def _mark(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _id(value: Any, field: str) -> str:
    if isinstance(value, bool | float | list | dict):
        raise bad(field, "must be text or a whole number")
    return text(str(value), field)


def _event(call: Call, given: Any, kind: str) -> NewEvent:
    one = mapped(given, "body")
    if whole(one.get("orgId"), "orgId") != call.store.seed.org_id:
        raise bad("orgId", "there is no such organisation")
    field = "userId" if one.get("userId") is not None else "companyId"
    if one.get(field) is None:
        raise bad("userId", "is required, or companyId")
    if kind == "track":
        text(one.get("event"), "event")
    if one.get("attributes") is not None:
        for name, value in mapped(one["attributes"], "attributes").items():
            if isinstance(value, dict | list):
                raise bad(f"attributes.{name}", "must not be nested")
    if one.get("createdAt") is not None:
        whole(one["createdAt"], "createdAt")
    mark = _mark(f"{kind} {json.dumps(one, sort_keys=True)}".encode())
    return Event("drift", kind, _id(one[field], field), one), mark, mark


def _one(call: Call, kind: str) -> Reply:
    call.state.events.add("drift", [_event(call, parse(call.body), kind)])
    return Reply({})


def _many(call: Call, kind: str) -> Reply:
    batch = listed(parse(call.body), "body")
    if len(batch) > BATCH:
        raise bad("body", f"at most {BATCH} a call")
    new = []
    for i, one in enumerate(batch):
        try:
            new.append(_event(call, one, kind))
        except Refusal as refusal:
            raise Refusal(refusal.status, f"[{i}].{refusal.message}") from None
    call.state.events.add("drift", new)
    return Reply({})


def identify(call: Call) -> Reply:
    return _one(call, "identify")


def identify_many(call: Call) -> Reply:
    return _many(call, "identify")


def track(call: Call) -> Reply:
    return _one(call, "track")


def track_many(call: Call) -> Reply:
    return _many(call, "track")


def _check_basic(call: Call) -> None:
    """Basic authentication: the token is the user, the password is empty."""
    scheme, _, given = call.header.get("Authorization", "").partition(" ")
    try:
        user = base64.b64decode(given.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        user = ""
    token, colon, password = user.partition(":")
    if scheme.lower() != "basic" or not colon or password or token not in call.state.streams:
        headers = [("WWW-Authenticate", 'Basic realm="segmentstream"')]
        raise Refusal(401, "the token is missing or not valid", headers=headers)


def _hit_user(event: Json) -> str:
    user = event.get("user")
    user = {} if user is None else mapped(user, "event.user")
    for key in ("userId", "anonymousId"):
        if user.get(key) is not None:
            return text(user[key], f"event.user.{key}")
    raise bad("event.user", "needs userId or anonymousId")


def hit(call: Call) -> Reply:
    _check_basic(call)
    media_type = call.header.get("Content-Type", "").partition(";")[0]
    if media_type.strip().lower() != "application/json":
        raise bad("Content-Type", "must be application/json")
    if len(call.body) > MAX_HIT:
        raise bad("body", f"over {MAX_HIT} bytes")
    given = call.object(["event"])
    user = _hit_user(mapped(given["event"], "event"))
    hit_id, sent_at = given.get("hitId"), given.get("sentAt")
    for key in ("hitId", "sentAt"):
        if given.get(key) is None and call.state.strict:
            raise bad(key, "is required")
    if hit_id is not None and len(text(hit_id, "hitId")) > MAX_HIT_ID:
        raise bad("hitId", f"over {MAX_HIT_ID} characters")
    if sent_at is not None:
        try:
            datetime.fromisoformat(text(sent_at, "sentAt"))
        except ValueError:
            raise bad("sentAt", "must be a date of ISO 8601") from None
    for key in ("context", "integrations"):
        if given.get(key) is not None:
            mapped(given[key], key)
    event = Event("segmentstream", "track", user, given)
    call.state.events.add("segmentstream", [(event, hit_id, _mark(call.body))])
    return Reply(status=204)
