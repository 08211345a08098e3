"""A user who installs the app of the sandbox: what a browser does between the two OAuth calls."""

from __future__ import annotations

import json
from typing import Any

from drift_async import OAuth, Token, from_json
from drift_async.sandbox import Sandbox
from tests.support.sandbox_wire import ask

BACK = "https://app.example/back"
SOMEBODY = 15_811_400_007  # in the seed of the sandbox


def app_of(box: Sandbox, kind: Any = OAuth, **settings: Any) -> Any:
    """Return a client for the sandbox's app."""
    where = {"base_url": box.url, "authorize_base_url": box.url}
    return kind(box.client_id, box.client_secret, **{**where, **settings})


async def agree(box: Sandbox, address: str) -> str:
    """Open the consent page, and return the address to which the browser is sent."""
    answer = await ask(box, f"GET {address.removeprefix(box.url)}", token=None)
    assert answer.status == 302, answer.body
    return answer.headers["location"]


async def granted(box: Sandbox) -> Token:
    """Return the token of an organisation that has just agreed."""
    async with app_of(box) as oauth:
        location = await agree(box, oauth.authorize_url("state", redirect_uri=BACK))
        token: Token = await oauth.exchange(oauth.code_from(location, state="state"))
    box.forget()
    return token


def made(access: str = "access-1", refresh: str | None = "refresh-1", **more: Any) -> Token:
    """Return a token that nobody has given out."""
    return from_json(Token, {"access_token": access, "refresh_token": refresh, **more})


def given_out(access: str, refresh: str | None = None, **more: Any) -> bytes:
    """Return the body of a token reply."""
    tokens = {"access_token": access, "refresh_token": refresh}
    return json.dumps({**{k: v for k, v in tokens.items() if v is not None}, **more}).encode()


def operations(box: Sandbox) -> list[str | None]:
    """Return what was asked for, in order of arrival."""
    return [one.operation for one in box.seen]


def bearers(box: Sandbox) -> list[str]:
    """Return the access token of each request that had one."""
    named = ({name.lower(): value for name, value in one.headers} for one in box.seen)
    return [one["authorization"].split()[1] for one in named if "authorization" in one]
