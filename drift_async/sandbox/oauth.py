"""OAuth: the page that sends the user back with a code, and the token call."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl, urlencode

from .call import Call, mapped, parse
from .state import App, Code
from .types import Json, Refusal, Reply, Token

CODE_LIFETIME: Final = 600_000
FIELDS: Final = (
    *("client_id", "client_secret", "grant_type"),
    *("code", "redirect_uri", "refresh_token"),
)
_ABSOLUTE: Final = re.compile(r"https?://[!-~]+\Z", re.IGNORECASE)


def _no(error: str, message: str, status: int = 400) -> Refusal:
    return Refusal(status, message, error=error)


def sent_back(app: App, one: Callable[[str], str | None], now: int) -> str:
    """Return where the consent page sends the user; *one* gives the values of its query."""
    uri = one("redirect_uri") or ""
    if one("client_id") != app.client_id:
        raise _no("invalid_request", "client_id is not known")
    if not _ABSOLUTE.match(uri):
        raise _no("invalid_request", "redirect_uri must be an absolute URL")
    if one("response_type") != "code":
        answer = {"error": "unsupported_response_type"}
    elif not app.approve:
        answer = {"error": "access_denied"}
    else:
        code = app.name("code")
        app.codes[code] = Code(uri, now + CODE_LIFETIME)
        answer = {"code": code}
    if (state := one("state")) is not None:
        answer["state"] = state
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(answer)}"


def authorize(call: Call) -> Reply:
    location = sent_back(call.state.app, call.one, call.now)
    return Reply(status=302, headers=[("Location", location), ("Cache-Control", "no-store")])


def _given(call: Call) -> tuple[dict[str, str], bool]:
    """Return the fields of a form or of JSON, and whether they are in the older camel case."""
    try:
        if call.body.lstrip().startswith(b"{"):
            given: Json = mapped(parse(call.body), "body")
        else:
            pairs = parse_qsl(call.body.decode(), keep_blank_values=True)
            given = dict(pairs)
            if len(given) < len(pairs):
                raise ValueError("a field is given twice")
    except (ValueError, Refusal) as error:
        raise _no("invalid_request", f"the body is not readable: {error}") from error
    camel = "grantType" in given
    names = {_camel(key) if camel else key: key for key in FIELDS}
    known = {key: value for key, value in given.items() if isinstance(value, str)}
    return {names[key]: value for key, value in known.items() if key in names}, camel


def _camel(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(word.capitalize() for word in rest)


def token(call: Call) -> Reply:
    given, camel = _given(call)
    app, kind = call.state.app, given.get("grant_type")
    if kind is None:
        raise _no("invalid_request", "grant_type is required")
    if not app.known(given.get("client_id", ""), given.get("client_secret", "")):
        raise _no("invalid_client", "client_id and client_secret do not match", 401)
    if kind == "authorization_code":
        grant, scopes = _by_code(call, given)
        refresh = app.name("refresh")
    elif kind == "refresh_token":
        old = given.get("refresh_token")
        if old is None:
            raise _no("invalid_request", "refresh_token is required")
        if old not in app.refresh:
            raise _no("invalid_grant", "the refresh token is not valid")
        grant, scopes = app.refresh[old]
        refresh = app.name("refresh") if app.rotate else old
        if app.rotate:
            del app.refresh[old]
    else:
        raise _no("unsupported_grant_type", "grant_type is not known")
    app.refresh[refresh] = grant, scopes
    access, now = app.name("access"), call.now / 1000
    call.state.tokens[access] = Token(access, scopes, now, now + app.lifetime, grant)
    body: Json = {"access_token": access, "refresh_token": refresh}
    if camel:
        body = {_camel(key): value for key, value in body.items()}
    else:
        body |= {"expires_in": int(app.lifetime), "token_type": "bearer"}
    headers = [("Cache-Control", "no-store")]
    return Reply({**body, "orgId": call.store.seed.org_id}, headers=headers)


def _by_code(call: Call, given: dict[str, str]) -> tuple[int, frozenset[str]]:
    app = call.state.app
    if "code" not in given:
        raise _no("invalid_request", "code is required")
    code = app.codes.pop(given["code"], None)
    if code is None or code.expires <= call.now:
        raise _no("invalid_grant", "the code is not valid")
    if given.get("redirect_uri", code.redirect_uri) != code.redirect_uri:
        raise _no("invalid_grant", "redirect_uri is another one than the code was sent to")
    return app.issued, app.scopes
