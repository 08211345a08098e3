"""Planted secrets and personal data, calls that carry them, and what finds them again."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from rich.traceback import Traceback

from drift_async import (
    Button,
    CustomProperty,
    DriftError,
    PropertyType,
    ReportFilter,
    ReportOperation,
    ScimName,
    ScimUser,
    ScimValue,
)

TOKEN = "planted-token-Qzx4kVw9mTyr2Lhp"
CLIENT_SECRET = "planted-client-secret-Jq7w"
OTHER_TOKEN = "planted-other-token-Zk9y"
EMAIL = "ada.lovelace@private.example"
NAME = "Planted Lovelace"
BODY = "planted words of a message"
PHONE = "415-555-0199"
VALUE = "planted-attribute-value"
EXTERNAL_ID = "planted-external-id"
DOMAIN = "planted-domain.example"

# Parts of them, so that neither an encoded nor a shortened form goes unseen.
PARTS = (
    *("planted", "Planted", "lovelace", "Lovelace", "private.example"),
    *("415-555", "Qzx4k", "Jq7w", "Zk9y"),
)

ATTRIBUTES = {"name": NAME, "phone": PHONE, "plan": VALUE, "deep": {"list": [VALUE]}}
USER = ScimUser(
    user_name=EMAIL,
    display_name=NAME,
    name=ScimName(given_name=NAME, family_name="Lovelace"),
    emails=(ScimValue(value=EMAIL),),
    phone_numbers=(ScimValue(value=PHONE),),
)
PROPERTY = CustomProperty(label="x", name="x", value=VALUE, type=PropertyType.STRING)
ACCOUNT = {"name": NAME, "domain": DOMAIN, "custom_properties": [PROPERTY]}
FILTER = ReportFilter(property="x", operation=ReportOperation.IN, values=(VALUE,))
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)

# Every operation, with all that it can carry of them.
CALLS: Mapping[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "contacts.create": ((EMAIL,), {"external_id": EXTERNAL_ID, "attributes": ATTRIBUTES}),
    "contacts.get": ((7,), {}),
    "contacts.find_by_email": ((EMAIL,), {}),
    "contacts.find_by_external_id": ((EXTERNAL_ID,), {}),
    "contacts.update": ((7, ATTRIBUTES), {}),
    "contacts.update_by_external_id": ((EXTERNAL_ID, ATTRIBUTES), {}),
    "contacts.upsert": ((EXTERNAL_ID,), {"email": EMAIL, "attributes": ATTRIBUTES}),
    "contacts.delete": ((7,), {}),
    "contacts.add_timeline_event": ((BODY,), {"external_id": EXTERNAL_ID}),
    "contacts.attributes": ((), {}),
    "contacts.unsubscribe": (([EMAIL],), {}),
    "users.get": ((7,), {}),
    "users.get_many": (([7, 8],), {}),
    "users.all": ((), {}),
    "users.update": ((7,), {"name": NAME, "email": EMAIL, "phone": PHONE, "alias": VALUE}),
    "users.meetings": ((NOON, NOON), {}),
    "conversations.get": ((7,), {}),
    "conversations.all": ((), {"status": "open"}),
    "conversations.create": ((EMAIL, BODY), {"integration_source": VALUE}),
    "conversations.stats": ((), {}),
    "conversations.transcript": ((7,), {}),
    "conversations.json_transcript": ((7,), {}),
    "conversations.create_message": ((7, BODY), {"buttons": [Button(label=VALUE, value=BODY)]}),
    "conversations.messages": ((7,), {}),
    "conversations.attachment": ((7,), {}),
    "reports.conversations": (([FILTER], ["x"]), {}),
    "accounts.create": ((7,), ACCOUNT),
    "accounts.get": ((f"7_{DOMAIN}",), {}),
    "accounts.all": ((), {}),
    "accounts.update": ((f"7_{DOMAIN}", 7), ACCOUNT),
    "accounts.delete": ((f"7_{DOMAIN}",), {}),
    "playbooks.all": ((), {}),
    "playbooks.landing_pages": ((), {}),
    "teams.all": ((), {}),
    "teams.of_user": ((7,), {}),
    "app.token_info": ((OTHER_TOKEN,), {}),
    "app.uninstall": (("planted-client", CLIENT_SECRET), {}),
    "gdpr.retrieve": ((EMAIL,), {}),
    "gdpr.delete": ((EMAIL,), {}),
    "scim.all": ((), {"filter": f'userName eq "{EMAIL}"'}),
    "scim.get": (("planted-user",), {}),
    "scim.create": ((USER,), {}),
    "scim.replace": (("planted-user", USER), {}),
    "scim.update": (("planted-user", USER), {}),
    "scim.delete": (("planted-user",), {}),
    "request": (
        ("PUT", "/x/path"),
        {"params": {"email": EMAIL}, "json": ATTRIBUTES, "effect": "idempotent"},
    ),
}

# What holds the arguments by right: the tests, and the thread in which the blocking face is run.
OUTSIDE = ("/tests/", "/concurrent/futures/", "/asyncio/threads.py")


async def call(drift: Any, name: str) -> Any:
    """Make one of `CALLS`; of what is walked, walk all."""
    args, kwargs = CALLS[name]
    result = attrgetter(name)(drift)(*args, **kwargs)
    return await (result.collect() if hasattr(result, "collect") else result)


def found(*texts: object) -> list[str]:
    """Return what of the planted there is in these texts, with its surroundings."""
    return [
        text[max(0, at - 80) : at + 40]
        for text in map(str, texts)
        for part in PARTS
        if (at := text.find(part)) >= 0
    ]


def shown(error: BaseException) -> list[str]:
    """Return all that can be read off an error: in each form, with its chain and their frames."""
    forms = [error]
    if isinstance(error, DriftError):
        forms += [copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))]
    texts = [pickle.dumps(error).decode("latin-1")] if len(forms) > 1 else []
    for one in (*forms, *_chain(error)):
        texts += [repr(one), str(one), f"{one}", repr(one.args)]
        texts += [repr(vars(one)), *getattr(one, "__notes__", ())]
        texts += traceback.format_exception_only(one)
        texts += _locals(one)
    return texts


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and all that it is linked to, printed or not."""
    seen: dict[int, BaseException] = {}
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen[id(one)] = one
            waiting += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                waiting += one.exceptions
    yield from seen.values()


def _locals(error: BaseException) -> Iterator[str]:
    """Give the local variables of an error's frames, by their repr and as rich shows them."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if not any(part in frame.f_code.co_filename for part in OUTSIDE):
            yield f"{frame.f_code} {frame.f_locals}"
    trace = Traceback.extract(type(error), error, error.__traceback__, show_locals=True)
    for stack in trace.stacks:
        for one in stack.frames:
            if not any(part in one.filename for part in OUTSIDE):
                yield f"{one.filename}:{one.lineno} {[str(v) for v in (one.locals or {}).values()]}"
