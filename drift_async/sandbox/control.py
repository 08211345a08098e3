"""The control API under /_sandbox/: the methods of `Sandbox`, for other processes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl

import attrs

from .call import bad, listed, mapped, parse, text, whole
from .faults import Fault
from .logs import APIS, Seen
from .state import State
from .types import Json, Refusal, Reply
from .webhooks import Delivery

NUMBERS: Final = ("delay", "pause", "drip")
WHOLE: Final = ("status", "short", "times", "skip")
OTHERS: Final = ("operation", "headers", "body", "cut", "reset", "raw", "apply")


def _shown(one: Seen | Delivery) -> Json:
    return attrs.asdict(one, recurse=False) | {"body": base64.b64encode(one.body).decode()}


def _requests(state: State, given: Json) -> Reply:
    return Reply(
        {"count": state.requests.count, "requests": [_shown(one) for one in state.requests.kept()]}
    )


def _events(state: State, given: Json) -> Reply:
    events = state.events.kept(given.get("api"), given.get("user"))
    counts = {api: attrs.asdict(state.events.counts(api)) for api in APIS}
    return Reply({"counts": counts, "events": [attrs.asdict(one, recurse=False) for one in events]})


def _forget(state: State, given: Json) -> Reply:
    state.forget()
    return Reply(status=204)


def _checked(given: Json) -> Json:
    """Return the arguments of a fault, each of the right type."""
    for key, value in given.items():
        if key not in (*NUMBERS, *WHOLE, *OTHERS):
            raise bad(key, "is not known")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if key in NUMBERS and not number:
            raise bad(key, "must be a number")
        if (
            key in WHOLE
            and not (number and isinstance(value, int))
            and not (key in ("status", "times") and value is None)
        ):
            raise bad(key, "must be an integer")
        if (key == "reset" and not isinstance(value, bool)) or (
            key == "apply" and not isinstance(value, bool | None)
        ):
            raise bad(key, "must be true or false")
    if given.get("headers") is not None:
        for name, value in mapped(given["headers"], "headers").items():
            text(value, f"headers.{name}", blank=True)
    if given.get("raw") is not None:
        try:
            given = {**given, "raw": base64.b64decode(text(given["raw"], "raw"), validate=True)}
        except (binascii.Error, ValueError):
            raise bad("raw", "must be base64") from None
    return given


def _fail(state: State, given: Json) -> Reply:
    given = _checked(given)
    state.faults.add(text(given.pop("operation", None), "operation"), Fault(**given))
    return Reply({}, 201)


def _heal(state: State, given: Json) -> Reply:
    state.faults.clear(given.get("operation"))
    return Reply(status=204)


def _token(state: State, given: Json) -> Reply:
    token, scopes, expires = given.get("token"), given.get("scopes"), given.get("expires")
    if scopes is not None:
        scopes = [text(one, f"scopes[{i}]") for i, one in enumerate(listed(scopes, "scopes"))]
    if expires is not None and (isinstance(expires, bool) or not isinstance(expires, int | float)):
        raise bad("expires", "must be a number of seconds")
    state.add_token(text(token, "token"), scopes, expires=expires)
    return Reply({}, 201)


def _expire(state: State, given: Json) -> Reply:
    state.expire(text(given.get("token"), "token"))
    return Reply(status=204)


def _revoke(state: State, given: Json) -> Reply:
    state.revoke(text(given.get("token"), "token"))
    return Reply(status=204)


def _add_webhook(state: State, given: Json) -> Reply:
    events = given.get("events")
    if events is not None:
        events = [text(one, f"events[{i}]") for i, one in enumerate(listed(events, "events"))]
    numbers = {key: whole(given[key], key) for key in ("copies", "reverse") if key in given}
    state.webhooks.add(text(given.get("url"), "url"), events, **numbers)
    return Reply({}, 201)


def _send_webhook(state: State, given: Json) -> Reply:
    state.send_webhook(text(given.get("type"), "type"), given.get("data"), {})
    return Reply({}, 202)


def _deliveries(state: State, given: Json) -> Reply:
    return Reply({"deliveries": [_shown(one) for one in state.webhooks.log]})


ROUTES: Final[dict[str, dict[str, Callable[[State, Json], Reply]]]] = {
    "/_sandbox/requests": {"GET": _requests, "DELETE": _forget},
    "/_sandbox/events": {"GET": _events, "DELETE": _forget},
    "/_sandbox/faults": {"POST": _fail, "DELETE": _heal},
    "/_sandbox/tokens": {"POST": _token},
    "/_sandbox/tokens/expire": {"POST": _expire},
    "/_sandbox/tokens/revoke": {"POST": _revoke},
    "/_sandbox/webhooks": {"GET": _deliveries, "POST": _add_webhook},
    "/_sandbox/webhooks/send": {"POST": _send_webhook},
}


def answer(state: State, method: str, path: str, body: bytes) -> Reply:
    """Answer one control request."""
    path, _, query = path.partition("?")
    methods = ROUTES.get(path.removesuffix("/"))
    if methods is None:
        return Refusal(404, "no such control path").reply(scim=False)
    if method not in methods:
        headers = [("Allow", ", ".join(methods))]
        return Refusal(405, "no such method here", headers=headers).reply(scim=False)
    try:
        given = mapped(parse(body), "body") if method == "POST" else dict(parse_qsl(query))
        return methods[method](state, given)
    except Refusal as refusal:
        return refusal.reply(scim=False)
    except ValueError as error:  # a bad argument
        return Refusal(400, str(error)).reply(scim=False)
