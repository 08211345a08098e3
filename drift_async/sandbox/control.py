"""The control API under /_sandbox/: what `Sandbox` offers in process, for other processes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import attrs

from .call import Json, Refusal, Reply, bad, listed, mapped, parse, text, whole
from .events import APIS

if TYPE_CHECKING:
    from .server import Sandbox
    from .service import Seen
    from .webhooks import Delivery

NUMBERS: Final = ("delay", "pause", "drip")
WHOLE: Final = ("status", "short", "times", "skip")
OTHERS: Final = ("operation", "headers", "body", "cut", "reset", "raw", "apply")


def _shown(one: Seen | Delivery) -> Json:
    return attrs.asdict(one, recurse=False) | {"body": base64.b64encode(one.body).decode()}


def _requests(box: Sandbox, given: Json) -> Reply:
    return Reply({"count": box.count, "requests": [_shown(one) for one in box.seen]})


def _events(box: Sandbox, given: Json) -> Reply:
    events = box.events(given.get("api"), given.get("user"))
    counts = {api: attrs.asdict(box.event_counts(api)) for api in APIS}
    return Reply({"counts": counts, "events": [attrs.asdict(one, recurse=False) for one in events]})


def _forget(box: Sandbox, given: Json) -> Reply:
    box.forget()
    return Reply(status=204)


def _checked(given: Json) -> Json:
    """The arguments of `fail`, each of the right type."""
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


def _fail(box: Sandbox, given: Json) -> Reply:
    given = _checked(given)
    box.fail(text(given.pop("operation", None), "operation"), **given)
    return Reply({}, 201)


def _heal(box: Sandbox, given: Json) -> Reply:
    box.heal(given.get("operation"))
    return Reply(status=204)


def _token(box: Sandbox, given: Json) -> Reply:
    token, scopes, expires = given.get("token"), given.get("scopes"), given.get("expires")
    if scopes is not None:
        scopes = [text(one, f"scopes[{i}]") for i, one in enumerate(listed(scopes, "scopes"))]
    if expires is not None and (isinstance(expires, bool) or not isinstance(expires, int | float)):
        raise bad("expires", "must be a number of seconds")
    box.add_token(text(token, "token"), scopes, expires=expires)
    return Reply({}, 201)


def _expire(box: Sandbox, given: Json) -> Reply:
    box.expire(text(given.get("token"), "token"))
    return Reply(status=204)


def _revoke(box: Sandbox, given: Json) -> Reply:
    box.revoke(text(given.get("token"), "token"))
    return Reply(status=204)


async def _add_webhook(box: Sandbox, given: Json) -> Reply:
    events = given.get("events")
    if events is not None:
        events = [text(one, f"events[{i}]") for i, one in enumerate(listed(events, "events"))]
    numbers = {key: whole(given[key], key) for key in ("copies", "reverse") if key in given}
    await box.add_webhook(text(given.get("url"), "url"), events, **numbers)
    return Reply({}, 201)


async def _send_webhook(box: Sandbox, given: Json) -> Reply:
    await box.send_webhook(text(given.get("type"), "type"), given.get("data"))
    return Reply({}, 202)


def _deliveries(box: Sandbox, given: Json) -> Reply:
    return Reply({"deliveries": [_shown(one) for one in box.deliveries]})


ROUTES: Final[dict[str, dict[str, Callable[[Any, Json], Reply | Awaitable[Reply]]]]] = {
    "/_sandbox/requests": {"GET": _requests, "DELETE": _forget},
    "/_sandbox/events": {"GET": _events, "DELETE": _forget},
    "/_sandbox/faults": {"POST": _fail, "DELETE": _heal},
    "/_sandbox/tokens": {"POST": _token},
    "/_sandbox/tokens/expire": {"POST": _expire},
    "/_sandbox/tokens/revoke": {"POST": _revoke},
    "/_sandbox/webhooks": {"GET": _deliveries, "POST": _add_webhook},
    "/_sandbox/webhooks/send": {"POST": _send_webhook},
}


async def answer(box: Sandbox, method: str, path: str, body: bytes) -> Reply:
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
        reply = methods[method](box, given)
        return reply if isinstance(reply, Reply) else await reply
    except Refusal as refusal:
        return refusal.reply(scim=False)
    except ValueError as error:  # what a method of the sandbox says of its arguments
        return Refusal(400, str(error)).reply(scim=False)
