from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from drift_async.sandbox import Sandbox
from tests.support.sandbox_wire import NOW, ask

pytestmark = pytest.mark.anyio

DAY = 86_400_000
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"


async def test_a_user_is_updated_and_scim_follows(box: Sandbox) -> None:
    given = {"name": "Nora Ø", "phone": "555-123-4567", "role": "member", "availability": "OFFLINE"}
    answer = await ask(box, "PATCH /users/update?userId=228225", given)
    row = answer.json["data"]
    assert (row["name"], row["phone"], row["role"]) == ("Nora Ø", "555-123-4567", "admin")
    assert (await ask(box, "GET /users/228225")).json["data"] == row
    assert row in (await ask(box, "GET /users/list")).json["data"]
    scim = (await ask(box, "GET /scim/Users/228225")).json
    assert (scim["displayName"], scim["phoneNumbers"][0]["value"]) == ("Nora Ø", "555-123-4567")


async def test_many_users_come_as_a_map(box: Sandbox) -> None:
    answer = await ask(box, "GET /users?userId=228226&userId=7&userId=228224")
    assert sorted(answer.json["data"]) == ["228224", "228226"]
    too_many = "&".join(f"userId={i}" for i in range(21))
    refused = await ask(box, f"GET /users?{too_many}")
    assert (refused.status, refused.json["error"]["message"][:7]) == (400, "userId:")


@pytest.mark.parametrize(
    ("line", "body", "field"),
    [
        ("GET /users?userId=x", None, "userId"),
        ("PATCH /users/update", {}, "userId"),
        ("PATCH /users/update?userId=228225", {"phone": "1"}, "phone"),
        ("PATCH /users/update?userId=228225", {"availability": "ON_CALL"}, "availability"),
        ("PATCH /users/update?userId=228225", {"name": 1}, "name"),
        ("GET /users/meetings/org?max_start_time=1", None, "min_start_time"),
        ("GET /users/meetings/org?min_start_time=1", None, "max_start_time"),
        ("GET /users/meetings/org?min_start_time=2&max_start_time=1", None, "max_start_time"),
        ("GET /users/meetings/org?min_start_time=1&max_start_time=2&limit=-1", None, "limit"),
        ("GET /users/meetings/org?min_start_time=1&max_start_time=2&limit=1001", None, "limit"),
        ("POST /gdpr/retrieve", {}, "email"),
        ("POST /gdpr/delete", {}, "email"),
        ("POST /app/token_info", {}, "access_token"),
        ("POST /app/uninstall?clientId=a", None, "clientSecret"),
    ],
)
async def test_bad_input_is_a_400_that_names_the_field(
    box: Sandbox, line: str, body: Any, field: str
) -> None:
    answer = await ask(box, line, body)
    assert answer.status == 400, answer.body
    assert answer.json["error"]["message"].startswith(f"{field}: ")


async def test_teams_name_their_members(box: Sandbox) -> None:
    teams = (await ask(box, "GET /teams/org")).json["data"]
    assert [team["id"] for team in teams] == [500, 501, 502]
    assert "owner" not in teams[2]
    mine = (await ask(box, "GET /teams/users/228225")).json["data"]
    assert mine == teams[:2]
    assert (await ask(box, "GET /teams/users/1")).status == 404
    await ask(box, "DELETE /scim/Users/228225")
    left = (await ask(box, "GET /teams/org")).json["data"]
    assert all(228225 not in team["members"] for team in left)


async def test_meetings_lie_in_the_window_and_within_thirty_days() -> None:
    async with Sandbox(meetings=2000, now=lambda: NOW) as box:
        now = int(NOW * 1000)

        async def count(low: int, high: int, limit: int | None) -> int:
            end = "" if limit is None else f"&limit={limit}"
            target = f"/users/meetings/org?min_start_time={low}&max_start_time={high}{end}"
            rows = (await ask(box, f"GET {target}")).json["data"]
            assert all(max(low, now - 30 * DAY) <= row["slotStart"] <= high for row in rows)
            return len(rows)

        assert await count(0, now + 99 * DAY, None) == 100
        assert await count(0, now + 99 * DAY, 0) == 100
        assert await count(0, now + 99 * DAY, 1000) == 1000
        assert await count(now, now + 7 * DAY - 1, 1000) == 200
        assert await count(0, now - 31 * DAY, 1000) == 0


async def test_a_scim_user_lives_and_dies(box: Sandbox) -> None:
    given = {
        "userName": "Ann@example.com",
        "displayName": "Ann Ä",
        "roles": [{"value": "role-ids=[208]", "display": "t", "type": None, "primary": True}],
        "phoneNumbers": [{"value": "1", "display": "1", "primary": True}],
    }
    made = await ask(box, "POST /scim/Users", given)
    row = made.json
    path = f"/scim/Users/{row['id']}"
    assert (made.status, made.headers["location"]) == (201, f"http://driftapi.com{path}")
    assert (await ask(box, f"GET {path}")).json == row
    user = (await ask(box, f"GET /users/{row['id']}")).json["data"]
    assert (user["name"], user["email"], user["role"]) == ("Ann Ä", "Ann@example.com", "member")
    patch = {"displayName": "Anna", "roles": [{"value": "ADMIN"}]}
    changed = (await ask(box, f"PATCH {path}", patch)).json
    assert (changed["displayName"], changed["userName"]) == ("Anna", "Ann@example.com")
    assert (await ask(box, f"GET /users/{row['id']}")).json["data"]["role"] == "admin"
    put = {"userName": "ann@example.com", "displayName": "A"}
    replaced = (await ask(box, f"PUT {path}", put)).json
    assert replaced["phoneNumbers"] == []
    deleted = await ask(box, f"DELETE {path}")
    assert (deleted.status, deleted.body) == (204, b"")
    for line in (f"GET {path}", f"DELETE {path}"):
        answer = await ask(box, line)
        assert answer.json == {"schemas": [ERROR], "status": "404", "detail": "no such user"}
    assert (await ask(box, f"GET /users/{row['id']}")).status == 404
    again = await ask(box, "POST /scim/Users", put)
    assert (again.status, again.json["scimType"]) == (409, "uniqueness")
    assert again.headers["content-type"] == "application/scim+json"
    other = (await ask(box, "POST /scim/Users", {**put, "userName": "bob@example.com"})).json
    assert other["id"] != row["id"]


async def test_scim_operations_set_fields(box: Sandbox) -> None:
    path = "/scim/Users/228226"
    operations = [
        {"op": "Replace", "path": "name.familyName", "value": "Neu"},
        {"op": "add", "path": "phoneNumbers", "value": [{"value": "9", "primary": False}]},
        {"op": "replace", "value": {"displayName": "J"}},
        {"op": "remove", "path": "photos"},
    ]
    row = (await ask(box, f"PATCH {path}", {"Operations": operations})).json
    assert (row["name"]["familyName"], row["displayName"], row["photos"]) == ("Neu", "J", [])
    assert row["phoneNumbers"] == [{"primary": True}, {"value": "9", "primary": False}]
    off = {"Operations": [{"op": "replace", "path": "active", "value": False}]}
    gone = await ask(box, f"PATCH {path}", off)
    assert (gone.status, gone.json["active"]) == (200, False)
    assert (await ask(box, f"GET {path}")).status == 404
    assert (await ask(box, "PATCH /scim/Users/228227", {"active": False})).json["active"] is False


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('userName eq "NOAH.1@sandbox.example"', ["228225"]),
        ('id eq "228226"', ["228226"]),
        ('displayName sw "jos"', ["228226"]),
        ('emails.value co ".3@"', ["228227"]),
        ("active eq true", ["228225", "228226", "228227", "228228"]),
        ("active eq false", []),
        ('displayName pr and (id eq "228225" or id eq "228228")', ["228225", "228228"]),
        ('id eq "228225" or id eq "228226" and active eq false', ["228225"]),
        ('USERNAME EQ "a\\"b"', []),
    ],
)
async def test_scim_filters_find(box: Sandbox, text: str, wanted: list[str]) -> None:
    page = (await ask(box, f"GET /scim/Users?filter={quote(text)}")).json
    assert [row["id"] for row in page["Resources"]] == wanted
    assert page["totalResults"] == len(wanted)


@pytest.mark.parametrize(
    "text",
    [
        *('userName ne "x"', "userName", "userName eq", "userName eq x", 'nickName eq "x"', "("),
        *('(id eq "1"', 'id eq "1")', 'id eq "1" and', 'id eq "1" id pr', '"', "active co true"),
        "(" * 2000,
        "id eq " + "[" * 3000,
    ],
)
async def test_a_bad_scim_filter_is_refused(box: Sandbox, text: str) -> None:
    answer = await ask(box, f"GET /scim/Users?filter={quote(text, safe='([')}")
    assert (answer.status, answer.json["scimType"]) == (400, "invalidFilter")


async def test_scim_pages_start_at_one() -> None:
    async with Sandbox(users=260) as box:
        sizes, start, seen = [], 1, []
        while True:
            page = (await ask(box, f"GET /scim/Users?startIndex={start}")).json
            assert (page["totalResults"], page["startIndex"]) == (259, start)
            if not page["Resources"]:
                break
            sizes.append(len(page["Resources"]))
            seen += [row["id"] for row in page["Resources"]]
            start += sizes[-1]
        assert sizes == [100, 100, 59]
        assert len(set(seen)) == 259
        cut = (await ask(box, "GET /scim/Users?count=900")).json
        assert len(cut["Resources"]) == 200


@pytest.mark.parametrize(
    ("line", "body", "status", "kind"),
    [
        ("GET /scim/Users?count=x", None, 400, "invalidValue"),
        ("POST /scim/Users", {"userName": "a"}, 400, "invalidValue"),
        ("POST /scim/Users", "{", 400, "invalidSyntax"),
        ("POST /scim/Users", {"userName": "a", "displayName": "b", "roles": [{}]}, 400, None),
        ("PATCH /scim/Users/228226", {"isActive": "no"}, 400, "invalidValue"),
        ("PATCH /scim/Users/228226", {"Operations": [{"op": "move"}]}, 400, "invalidSyntax"),
        (
            "PATCH /scim/Users/228226",
            {"Operations": [{"op": "add", "path": "x", "value": 1}]},
            400,
            "invalidPath",
        ),
        ("PATCH /scim/Users/228226", {"userName": "noah.1@SANDBOX.example"}, 409, "uniqueness"),
        ("GET /scim/Users/x", None, 404, None),
        ("GET /scim/Groups", None, 404, None),
        ("GET /v1/scim/", None, 404, None),
        ("POST /scim/Users/228226", {}, 405, None),
    ],
)
async def test_scim_errors_have_their_own_shape(
    box: Sandbox, line: str, body: Any, status: int, kind: str | None
) -> None:
    answer = await ask(box, line, body)
    assert (answer.status, answer.json["status"]) == (status, str(status)), answer.body
    assert answer.json["schemas"] == [ERROR]
    assert kind is None or answer.json["scimType"] == kind
    assert answer.headers["content-type"] == "application/scim+json"
    assert "error" not in answer.json
