from __future__ import annotations

import math
import time
import tracemalloc
from typing import Any

import pytest

from drift_async.sandbox import Sandbox
from tests.support.sandbox_wire import ask

pytestmark = pytest.mark.anyio

TARGETS = (
    *("/contacts?limit=100", "/conversations/list?limit=50", "/users/list", "/teams/org"),
    *("/accounts?size=65", "/playbooks/list", "/playbooks/clp", "/scim/Users"),
    *("/conversations/4300000001/messages", "/attachments/700002/data", "/contacts/attributes"),
)


async def test_two_sandboxes_hold_the_same_bytes() -> None:
    async with Sandbox() as one, Sandbox() as other:
        for target in TARGETS:
            first, second = await ask(one, f"GET {target}"), await ask(other, f"GET {target}")
            assert first.status == 200
            assert first.body == second.body


async def test_a_million_contacts_cost_nothing() -> None:
    tracemalloc.start()
    began = time.perf_counter()
    async with Sandbox(contacts=1_000_000, conversations=1_000_000, accounts=1_000_000) as box:
        taken, memory = time.perf_counter() - began, tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert taken < 0.1
        assert memory < 2_000_000
        last = (await ask(box, "GET /contacts/15812399999")).json["data"]
        attributes = last["attributes"]
        assert attributes["externalId"].startswith("ext-999999-")
        for target in (
            f"/contacts?email={attributes['email']}",
            f"/contacts?idType=external&id={attributes['externalId']}",
        ):
            assert (await ask(box, f"GET {target}")).json["data"] == [last]
        assert (await ask(box, "GET /contacts/15812400000")).status == 404
        deep = (await ask(box, "GET /conversations/list?next=999990&limit=50")).json
        assert len(deep["data"]) == 10
        assert (await ask(box, "GET /accounts?index=999999")).json["data"].keys() == {
            "accounts",
            "total",
        }
        began = time.perf_counter()
        await ask(box, "POST /conversations/4300999999/messages", {"type": "chat", "body": "x"})
        target = deep["links"]["self"].replace("http://driftapi.com", "")
        assert len((await ask(box, f"GET {target}")).json["data"]) == 9
        assert time.perf_counter() - began < 1


async def test_seeds_show_what_real_rows_hold(box: Sandbox) -> None:
    contacts = (await ask(box, "GET /contacts?limit=100")).json["data"]
    keys = {key for row in contacts for key in row["attributes"]}
    assert {"phone", "tags", "ip", "last_context_location", "recent_entrance_page_url"} <= keys
    assert {type(row["attributes"].get("externalId")) for row in contacts} == {str, int, type(None)}
    assert all(2**32 < row["id"] < 2**53 for row in contacts)
    assert not all(str(row).isascii() for row in contacts)
    rows = (await ask(box, "GET /conversations/list?limit=100")).json["data"]
    assert {row["status"] for row in rows} == {"open", "closed", "pending", "bulk_sent"}
    assert all(2**32 < row["id"] < 2**53 for row in rows)
    messages = []
    for row in rows:
        page = (await ask(box, f"GET /conversations/{row['id']}/messages")).json
        messages += page["data"]["messages"]
    assert len({one["id"] for one in messages}) == len(messages)
    assert {key for one in messages for key in one} >= {"attachments", "buttons", "context"}
    assert not all("body" in one for one in messages)
    assert {one["type"] for one in messages} == {"chat", "private_note"}


async def test_an_empty_sandbox_answers_empty_lists() -> None:
    async with Sandbox(
        contacts=0, conversations=0, messages=0, users=1, accounts=0, playbooks=0, meetings=0
    ) as box:
        assert (await ask(box, "GET /contacts")).json == {"data": []}
        page = (await ask(box, "GET /conversations/list")).json
        assert (page["data"], page["links"].keys()) == ([], {"self"})
        assert (await ask(box, "GET /accounts")).json == {"data": {"accounts": [], "total": 0}}
        assert (await ask(box, "GET /playbooks/list")).json == []
        assert (await ask(box, "GET /scim/Users")).json["Resources"] == []
        made = await ask(box, "POST /contacts", {"attributes": {"email": "a"}})
        assert made.status == 200
    async with Sandbox(messages=0) as box:
        page = (await ask(box, "GET /conversations/4300000001/messages")).json
        assert page == {"data": {"messages": []}, "pagination": {"more": False}}
        assert (await ask(box, "GET /attachments/700002/data")).status == 404


@pytest.mark.parametrize(
    "arguments",
    [
        {"contacts": -1},
        {"users": 0},
        {"rate": 0},
        {"burst": 0},
        {"denied_status": 402},
        {"keep": 0},
        {"keep_events": -1},
        {"event_rate": 0},
        {"rate": math.inf},
        {"rate": 1, "window": 0},
        {"rate": 1, "window": -1},
        {"rate": 1, "window": math.inf},
        {"rate": 1, "window": math.nan},
        {"rate": 1, "window": 1, "burst": 1},
        {"event_rate": 1, "window": 1, "burst": 2},
        {"window": 1},
        {"lifetime": -1},
        {"lifetime": math.inf},
        {"lifetime": math.nan},
        {"webhook_timeout": -1},
        {"webhook_retries": (1, -1)},
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Sandbox(**arguments)


async def test_a_closed_sandbox_has_no_url() -> None:
    box = Sandbox(token="t", org_id=7, segmentstream_token="s")
    with pytest.raises(RuntimeError, match="not open"):
        _ = box.url
    await box.open()
    assert box.env == {
        "DRIFT_TOKEN": "t",
        "DRIFT_BASE_URL": box.url,
        "DRIFT_CLIENT_ID": "sandbox-client",
        "DRIFT_CLIENT_SECRET": "sandbox-secret",
        "DRIFT_AUTHORIZE_BASE_URL": box.url,
        "DRIFT_ORG_ID": "7",
        "DRIFT_EVENTS_URL": box.url,
        "SEGMENTSTREAM_TOKEN": "s",
        "SEGMENTSTREAM_URL": f"{box.url}/segmentstream",
    }
    assert box.segmentstream_url == box.env["SEGMENTSTREAM_URL"]
    with pytest.raises(RuntimeError, match="open already"):
        await box.open()
    await box.close()
    await box.close()
    with pytest.raises(RuntimeError, match="not open"):
        _ = box.env
