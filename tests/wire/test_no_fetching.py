"""What strangers write into replies is data: no address in it is ever fetched."""

from __future__ import annotations

import inspect
import json
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest
from rich.pretty import pretty_repr

from drift_async import Model, to_json
from drift_async.core.request import Endpoint
from tests.support.models import PERSONAL, good
from tests.support.operations import ENDPOINTS
from tests.support.planted import CALLS, call
from tests.support.server import Got, Server, reply

ADDRESSES = (
    "http://{}/steal",
    "//{}/steal",
    "http://user:pw@{}/",
    "<img src='http://{0}/a.png'><a href=\"http://{0}/\">x</a>",
    "http://{}/?page_token=x&cursor=x&next=x&index=5&size=5",
)
# Those without a parameter first: /contacts/attributes is no contact.
ROWS = sorted(ENDPOINTS.values(), key=lambda row: row.template.count("{"))


def row_of(got: Got) -> Endpoint[Any]:
    path = got.target.partition("?")[0]
    for row in ROWS:
        if row.method == got.method and re.fullmatch(
            re.sub(r"\{\w+\}", "[^/]+", row.template), path
        ):
            return row
    raise AssertionError(f"no operation: {got}")


def filled(row: Endpoint[Any], address: str) -> bytes:
    """Return a body that fits, with *address* as each of its texts, known or unknown."""
    if row.envelope in ("text", "bytes"):
        return address.encode()
    if row.envelope in ("ok", "none"):
        value: Any = {"ok": True, "result": PERSONAL}
    else:
        value = good(row.returns)
        if row.under:
            value = {row.under: value, "url": PERSONAL, "totalResults": 1}
        if row.envelope == "data":
            value = {"data": value, "url": PERSONAL}
    return json.dumps(value).replace(json.dumps(PERSONAL), json.dumps(address)).encode()


def models(value: Any) -> Iterator[Model]:
    """Give all models in a result."""
    if isinstance(value, Model):
        yield value
        for _, member in inspect.getmembers(value):
            if isinstance(member, Model | tuple):
                yield from models(member)
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from models(item)


def use(result: Any) -> int:
    """Do with a result what users do; return how many models in it hold an address."""
    holding = 0
    for model in models(result):
        texts = [repr(model), str(model), pretty_repr(model), json.dumps(to_json(model))]
        holding += any("127.0.0.1" in text for text in texts)
        if type(model).__name__ != "TokenInfo":
            assert pickle.loads(pickle.dumps(model)) == model
    return holding


@pytest.mark.anyio
@pytest.mark.parametrize("address", ADDRESSES)
async def test_no_address_in_a_reply_is_fetched(make: Any, address: str) -> None:
    names = [name for name in CALLS if name != "request"]
    async with Server(reply(b"{}")) as evil:
        written = address.format(f"127.0.0.1:{evil.port}")
        async with (
            Server(lambda n, got: reply(filled(row_of(got), written))) as server,
            make("t", base_url=server.url) as drift,
        ):
            holding = sum([use(await call(drift, name)) for name in names])
            assert len(server.got) == len(names) + 1, "an upsert takes two"
            assert not [got for got in server.got if "127.0.0.1" in got.target]
        assert holding > 50
        assert evil.connections == 0
