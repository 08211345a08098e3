from __future__ import annotations

from typing import Any

import pytest

from drift_async.sandbox import Sandbox
from tests.support.sandbox_wire import ask

pytestmark = pytest.mark.anyio


async def create(box: Sandbox, **attributes: Any) -> Any:
    answer = await ask(box, "POST /contacts", {"attributes": attributes})
    assert answer.status == 200, answer.body
    return answer.json["data"]


async def found(box: Sandbox, email: str) -> list[int]:
    answer = await ask(box, f"GET /contacts?email={email}&limit=100")
    return [row["id"] for row in answer.json["data"]]


async def test_a_contact_lives_and_dies(box: Sandbox) -> None:
    row = await create(box, email="New@Example.com", externalId="x1", farbe="grün")
    assert row["createdAt"] == row["attributes"]["start_date"] == 1_795_000_000_000
    assert row["attributes"]["externalId"] == row["attributes"]["external_id"] == "x1"
    path = f"/contacts/{row['id']}"
    changed = await ask(box, f"PATCH {path}", {"attributes": {"farbe": "blau", "n": 1}})
    attributes = changed.json["data"]["attributes"]
    assert (attributes["farbe"], attributes["n"]) == ("blau", 1)
    assert "external_id" not in attributes
    for key in ("_END_USER_VERSION", "_end_user_version", "_calculated_version"):
        assert attributes[key] == row["attributes"][key] + 1
    assert (await ask(box, f"GET {path}")).json == changed.json
    assert await found(box, "new@example.COM") == [row["id"]]
    known = (await ask(box, "GET /contacts/attributes")).json["data"]["properties"]
    assert {"type": "NUMERIC", "displayName": "n", "name": "n"} in known
    assert {"type": "STRING", "displayName": "farbe", "name": "farbe"} in known
    deleted = await ask(box, f"DELETE {path}")
    assert (deleted.status, deleted.json) == (202, {"result": "OK", "ok": True})
    assert await found(box, "new@example.com") == []
    for line in (f"GET {path}", f"DELETE {path}", f"PATCH {path}"):
        answer = await ask(box, line, None if "PATCH" not in line else {"attributes": {}})
        assert (answer.status, answer.json["error"]["type"]) == (404, "not_found")
    again = await create(box, email="new@example.com", externalId="x1")
    assert again["id"] != row["id"]


async def test_a_seeded_contact_changes_like_a_new_one(box: Sandbox) -> None:
    path = "/contacts/15811400000"
    old = (await ask(box, f"GET {path}")).json["data"]["attributes"]
    await ask(box, f"PATCH {path}", {"attributes": {"email": "moved@example.com"}})
    assert await found(box, old["email"]) == []
    assert await found(box, "moved@example.com") == [15811400000]
    await ask(box, f"DELETE {path}")
    external = await ask(box, f"GET /contacts?idType=external&id={old['externalId']}")
    assert external.json == {"data": []}
    assert await found(box, "moved@example.com") == []


async def test_duplicates_are_refused_by_the_documented_key(box: Sandbox) -> None:
    await create(box, email="a@example.com")
    same = await ask(box, "POST /contacts", {"attributes": {"email": "A@example.com"}})
    assert (same.status, same.json["error"]["type"]) == (409, "conflict")
    assert "email" in same.json["error"]["message"]
    assert "a@example" not in same.json["error"]["message"].lower()
    seeded = {"attributes": {"email": "zoe.mueller.0@company0.example", "externalId": None}}
    assert (await ask(box, "POST /contacts", seeded)).status == 409
    first = await create(box, email="a@example.com", externalId="1")
    assert len(await found(box, "a@example.com")) == 2
    twin = {"attributes": {"email": "b@example.com", "externalId": 1}}
    refused = await ask(box, "POST /contacts", twin)
    assert (refused.status, "externalId" in refused.json["error"]["message"]) == (409, True)
    stolen = {"attributes": {"externalId": "ext-0-f4dbdf21"}}
    assert (await ask(box, f"PATCH /contacts/{first['id']}", stolen)).status == 409


async def walk(box: Sandbox, target: str) -> list[int]:
    ids: list[int] = []
    while target:
        answer = await ask(box, f"GET {target}")
        ids += [row["id"] for row in answer.json["data"]]
        link = answer.headers.get("link", "")
        assert not link or link.endswith(">; rel='next'")
        assert not link or link.startswith("<http://driftapi.com/contacts?")
        target = link[len("<http://driftapi.com") :].partition(">")[0]
    return ids


async def test_the_link_header_leads_through_all_rows_once(box: Sandbox) -> None:
    for i in range(60):
        await create(box, email="m\u00fc+1@example.com", externalId=f"k{i}")
    ids = await walk(box, "/contacts?email=M%C3%BC%2B1@example.com&limit=7")
    assert len(ids) == len(set(ids)) == 60
    assert ids == sorted(ids)
    everyone = await walk(box, "/contacts")
    assert len(everyone) == len(set(everyone)) == 160
    assert everyone == sorted(everyone)
    first = await ask(box, "GET /contacts?email=M%C3%BC%2B1@example.com")
    assert len(first.json["data"]) == 25
    cut = await ask(box, "GET /contacts?limit=1000")
    assert len(cut.json["data"]) == 100


async def test_external_ids_are_found_as_text_or_number(box: Sandbox) -> None:
    answer = await ask(box, "GET /contacts?idType=external&id=770000000007&id=ext-0-f4dbdf21")
    ids = [row["attributes"]["externalId"] for row in answer.json["data"]]
    assert ids == [770_000_000_007, "ext-0-f4dbdf21"]
    many = "&".join(f"id={i}" for i in range(101))
    refused = await ask(box, f"GET /contacts?idType=external&{many}")
    assert (refused.status, refused.json["error"]["message"][:3]) == (400, "id:")


@pytest.mark.parametrize(
    ("kind", "given"),
    [("external", "ext-0-f4dbdf21"), ("drift", "15811400000"), ("internal", "15811400000")],
)
async def test_normalize_takes_three_kinds_of_id(box: Sandbox, kind: str, given: str) -> None:
    line = f"PATCH /contacts/normalize?idType={kind}&id={given}"
    answer = await ask(box, line, {"attributes": {"name": "N"}})
    assert (answer.json["data"]["id"], answer.json["data"]["attributes"]["name"]) == (
        15811400000,
        "N",
    )


async def test_tags_are_kept_by_name(box: Sandbox) -> None:
    path = "/contacts/15811400001/tags"
    await ask(box, f"POST {path}", [{"name": "a b", "color": "fff"}, {"name": "delete"}])
    added = await ask(box, f"POST {path}", [{"name": "a b"}, {"name": "c"}])
    tags = added.json["data"]["attributes"]["tags"]
    assert tags == [{"name": "a b", "color": "fff"}, {"name": "delete"}, {"name": "c"}]
    removed = await ask(box, f"DELETE {path}/a%20b")
    assert [tag["name"] for tag in removed.json["data"]["attributes"]["tags"]] == ["delete", "c"]
    assert (await ask(box, f"DELETE {path}/delete")).status == 200
    gone = await ask(box, f"POST {path}/delete/_bulk", ["c", "unknown"])
    assert gone.json["data"]["attributes"]["tags"] == []


@pytest.mark.parametrize(
    ("line", "body", "field"),
    [
        ("POST /contacts", {}, "attributes"),
        ("POST /contacts", [], "body"),
        ("POST /contacts", "{", "body"),
        ("POST /contacts", '{"attributes": {"email": "\\ud800"}}', "body"),
        ("POST /contacts", '{"attributes": {"email": "a", "n": NaN}}', "body"),
        ("POST /contacts", '{"attributes": {"email": "a", "n": 1e999}}', "body"),
        ("POST /contacts", "[" * 100_000, "body"),
        ("POST /contacts", b"\xff", "body"),
        ("POST /contacts", {"attributes": {}}, "attributes.email"),
        ("POST /contacts", {"attributes": {"email": 7}}, "attributes.email"),
        ("POST /contacts", {"attributes": {"email": "a@b", "x": None}}, "attributes.x"),
        (
            "POST /contacts",
            {"attributes": {"email": "a", "externalId": []}},
            "attributes.externalId",
        ),
        ("GET /contacts/abc", None, "id"),
        ("GET /contacts/99999999999999999999", None, "id"),
        ("GET /contacts?email=a&limit=0", None, "limit"),
        ("GET /contacts?email=a&limit=x", None, "limit"),
        ("GET /contacts?email=a&cursor=x", None, "cursor"),
        ("GET /contacts?email=", None, "email"),
        ("GET /contacts?idType=external", None, "id"),
        ("GET /contacts?idType=drift&id=1", None, "idType"),
        ("PATCH /contacts/normalize?id=1", {"attributes": {}}, "idType"),
        ("PATCH /contacts/normalize?idType=x&id=1", {"attributes": {}}, "idType"),
        ("PATCH /contacts/15811400001", {"attributes": {"a": None}}, "attributes.a"),
        ("POST /contacts/15811400001", "{}", "body"),
        ("POST /contacts/timeline", {"event": "e"}, "contactId"),
        ("POST /contacts/timeline", {"contactId": 15811400001}, "event"),
        ("POST /contacts/timeline", {"event": "e", "contactId": "x"}, "contactId"),
        ("POST /contacts/timeline", {"event": "e", "contactId": 1.5}, "contactId"),
        ("POST /emails/unsubscribe", {}, "body"),
        ("POST /emails/unsubscribe", [], "body"),
        ("POST /emails/unsubscribe", ["a", 1], "body[1]"),
        ("POST /contacts/15811400001/tags", [{}], "body[0].name"),
    ],
)
async def test_bad_input_is_a_400_that_names_the_field(
    box: Sandbox, line: str, body: Any, field: str
) -> None:
    answer = await ask(box, line, body)
    assert answer.status == 400, answer.body
    assert answer.json["error"]["type"] == "validation_error"
    assert answer.json["error"]["message"].startswith(f"{field}: ")
    assert not box.seen[0].applied


async def test_a_timeline_event_finds_its_contact(box: Sandbox) -> None:
    body = {"event": "Signed UP", "externalId": "ext-0-f4dbdf21", "attributes": {"a": 1}}
    answer = await ask(box, "POST /contacts/timeline", body)
    assert answer.json["data"] == {
        "attributes": {},
        "event": "signed up",
        "createdAt": 1_795_000_000_000,
        "contactId": 15811400000,
    }
    unknown = await ask(box, "POST /contacts/timeline", {"event": "e", "externalId": "nobody"})
    assert unknown.status == 404


async def test_the_strict_switch_refuses_the_listing_of_all() -> None:
    async with Sandbox(strict=True) as box:
        answer = await ask(box, "GET /contacts/")
        assert (answer.status, answer.json["error"]["message"][:6]) == (400, "email:")
        assert (await ask(box, "GET /contacts?email=x")).status == 200
