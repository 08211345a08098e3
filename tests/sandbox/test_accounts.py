from __future__ import annotations

from typing import Any

import pytest

from drift_async.sandbox import Sandbox
from tests.support.sandbox_wire import ask

pytestmark = pytest.mark.anyio

ONE = "123458_company1.example"


async def walk(box: Sandbox, target: str) -> list[str]:
    ids: list[str] = []
    while target:
        data = (await ask(box, f"GET {target}")).json["data"]
        ids += [row["accountId"] for row in data["accounts"]]
        assert data.keys() <= {"accounts", "total", "next"}
        target = data.get("next", "")
    assert data["total"] == len(ids)
    return ids


async def test_an_account_lives_and_dies(box: Sandbox) -> None:
    given = {"ownerId": 228225, "domain": "Neu.example", "name": "Neu", "customProperties": []}
    row = (await ask(box, "POST /accounts/create", given)).json["data"]
    assert row["accountId"] == "123458_Neu.example"
    path = f"/accounts/{row['accountId']}"
    update = {"accountId": row["accountId"], "ownerId": 228226, "targeted": True}
    changed = (await ask(box, "PATCH /accounts/update", update)).json["data"]
    assert changed == {**row, "ownerId": 228226, "targeted": True}
    assert (await ask(box, f"GET {path}")).json["data"] == changed
    assert (await walk(box, "/accounts?size=3"))[-1] == row["accountId"]
    twin = await ask(box, "POST /accounts/create", {"ownerId": 228225, "domain": "neu.EXAMPLE"})
    assert (twin.status, twin.json["error"]["type"]) == (409, "conflict")
    for _ in range(2):
        assert (await ask(box, f"DELETE {path}")).json == {"result": "OK", "ok": True}
    assert (await ask(box, f"GET {path}")).json["data"]["deleted"] is True
    assert row["accountId"] not in await walk(box, "/accounts")
    revived = (await ask(box, "POST /accounts/create", given)).json["data"]
    assert (revived["accountId"], revived["deleted"]) == (row["accountId"], False)
    assert (await walk(box, "/accounts")).count(row["accountId"]) == 1


@pytest.mark.parametrize("index", [20, 21, 2**63 - 8, 2**63 - 1])
async def test_a_page_behind_the_last_account_is_empty(box: Sandbox, index: int) -> None:
    target = f"GET /accounts?index={index}&size=65"
    assert (await ask(box, target)).json["data"] == {"accounts": [], "total": 20}
    await ask(box, f"DELETE /accounts/{ONE}")
    assert (await ask(box, target)).json["data"] == {"accounts": [], "total": 19}


@pytest.mark.parametrize("size", [1, 3, 10, 19, 20, 21, 65])
async def test_the_next_url_leads_through_all_rows_once(box: Sandbox, size: int) -> None:
    ids = await walk(box, f"/accounts?size={size}")
    assert len(ids) == len(set(ids)) == 20
    await ask(box, f"DELETE /accounts/{ONE}")
    for _ in range(2):
        await ask(box, "POST /accounts/create", {"ownerId": 228225})
    after = await walk(box, f"/accounts?size={size}")
    assert len(after) == len(set(after)) == 21
    assert after[:19] == [i for i in ids if i != ONE]


async def test_a_domain_moves_with_its_account(box: Sandbox) -> None:
    moved = {"accountId": ONE, "ownerId": 228225, "domain": "moved.example"}
    assert (await ask(box, "PATCH /accounts/update", moved)).status == 200
    new = await ask(box, "POST /accounts/create", {"ownerId": 228225, "domain": "company1.example"})
    assert new.json["data"]["accountId"] != ONE
    taken = {"accountId": ONE, "ownerId": 228225, "domain": "company1.example"}
    assert (await ask(box, "PATCH /accounts/update", taken)).status == 409


@pytest.mark.parametrize(
    ("line", "body", "field"),
    [
        ("POST /accounts/create", {"domain": "x"}, "ownerId"),
        ("POST /accounts/create", {"ownerId": 1}, "ownerId"),
        ("POST /accounts/create", {"ownerId": "x"}, "ownerId"),
        ("POST /accounts/create", {"ownerId": 228225, "name": 1}, "name"),
        ("POST /accounts/create", {"ownerId": 228225, "targeted": "yes"}, "targeted"),
        ("POST /accounts/create", {"ownerId": 228225, "customProperties": {}}, "customProperties"),
        (
            "POST /accounts/create",
            {"ownerId": 228225, "customProperties": [{"name": "a", "type": "X"}]},
            "customProperties[0].type",
        ),
        ("PATCH /accounts/update", {"ownerId": 228225}, "accountId"),
        ("PATCH /accounts/update", {"accountId": ONE}, "ownerId"),
        ("GET /accounts?size=0", None, "size"),
        ("GET /accounts?size=x", None, "size"),
        ("GET /accounts?index=-1", None, "index"),
    ],
)
async def test_bad_input_is_a_400_that_names_the_field(
    box: Sandbox, line: str, body: Any, field: str
) -> None:
    answer = await ask(box, line, body)
    assert answer.status == 400, answer.body
    assert answer.json["error"]["message"].startswith(f"{field}: ")


async def test_unknown_accounts_are_404(box: Sandbox) -> None:
    assert (await ask(box, "GET /accounts/123458_nobody.example")).status == 404
    assert (await ask(box, "DELETE /accounts/company1.example")).status == 404
    update = {"accountId": "x", "ownerId": 228225}
    assert (await ask(box, "PATCH /accounts/update", update)).status == 404
