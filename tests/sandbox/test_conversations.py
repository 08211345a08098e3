from __future__ import annotations

import base64
from typing import Any

import pytest

from drift_async.sandbox import Sandbox
from tests.support.sandbox_wire import ask

pytestmark = pytest.mark.anyio

FIRST = 4_300_000_000
LIST = "/conversations/list"


async def pages(box: Sandbox, target: str) -> list[Any]:
    """All pages by `links.next`; the host of the link is not followed."""
    out = []
    while target:
        answer = await ask(box, f"GET {target}")
        assert answer.status == 200, answer.body
        out.append(answer.json)
        target = answer.json["links"].get("next", "").replace("http://driftapi.com", "")
    return out


def ids(page: Any) -> list[int]:
    return [row["id"] for row in page["data"]]


@pytest.mark.parametrize("limit", [1, 7, 25, 49, 50, 100])
async def test_links_and_offsets_walk_the_same_rows_once(box: Sandbox, limit: int) -> None:
    walked = await pages(box, f"{LIST}?limit={limit}")
    rows = [row for page in walked for row in page["data"]]
    assert len({row["id"] for row in rows}) == len(rows) == 50
    assert rows == sorted(rows, key=lambda row: (-row["updatedAt"], row["id"]))
    assert all("next" in page["links"] and page["pagination"]["more"] for page in walked[:-1])
    assert "pagination" not in walked[-1]
    offset, seen = "0", []
    while offset:
        page = (await ask(box, f"GET {LIST}?limit={limit}&next={offset}")).json
        seen += ids(page)
        offset = page.get("pagination", {}).get("next", "")
    assert seen == [row["id"] for row in rows]


async def test_a_filtered_walk_survives_changes_and_counts_its_offset(box: Sandbox) -> None:
    await ask(box, f"POST /conversations/{FIRST + 30}/messages", {"type": "chat", "body": "x"})
    new = {"email": "n@example.com", "message": {"body": "hi"}}
    created = [(await ask(box, "POST /conversations/new", new)).json["id"] for _ in range(3)]
    walked = await pages(box, f"{LIST}?limit=4&statusId=1&statusId=pending")
    rows = [row for page in walked for row in page["data"]]
    assert {row["status"] for row in rows} == {"open", "pending"}
    # One clock reading for all four, so ids decide.
    assert [row["id"] for row in rows[:4]] == [FIRST + 30, *created]
    assert len({row["id"] for row in rows}) == len(rows) == 33
    for i, page in enumerate(walked[:-1]):
        assert page["pagination"] == {"more": True, "next": str(4 * i + 4)}
    stats = await ask(box, "GET /conversations/stats")
    assert stats.json == {"conversationCount": {"CLOSED": 15, "OPEN": 28, "PENDING": 5}}


async def test_the_page_token_is_the_recorded_query_string(box: Sandbox) -> None:
    page = (await ask(box, f"GET {LIST}?limit=2&statusId=1")).json
    first, last = page["data"]

    def decoded(name: str) -> str:
        token = page["links"][name].partition("page_token=")[2]
        assert "=" not in token
        return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()

    assert decoded("next") == (
        f"statusIds=1&highestUpdatedAt={last['updatedAt']}&highestId={last['id']}&limit=2"
    )
    assert decoded("self") == (
        f"statusIds=1&highestUpdatedAt={first['updatedAt']}&highestId={first['id'] - 1}&limit=2"
    )
    same = page["links"]["self"].replace("http://driftapi.com", "")
    assert (await ask(box, f"GET {same}")).json["data"] == page["data"]


async def test_links_can_name_the_host_of_the_service() -> None:
    async with Sandbox(links_host="api.drift.com") as box:
        page = (await ask(box, f"GET {LIST}")).json
        for link in page["links"].values():
            assert link.startswith("https://api.drift.com/conversations/list?page_token=")


async def test_messages_come_in_pages_of_fifty(box: Sandbox) -> None:
    target, seen, sizes = f"/conversations/{FIRST + 1}/messages", [], []
    following = ""
    while True:
        page = (await ask(box, f"GET {target}?next={following}")).json
        rows = page["data"]["messages"]
        sizes.append(len(rows))
        seen += rows
        if not page["pagination"]["more"]:
            assert page["pagination"] == {"more": False}
            break
        following = page["pagination"]["next"]
    assert sizes == [50, 50, 30]
    assert len({row["id"] for row in seen}) == 130
    assert seen == sorted(seen, key=lambda row: (row["createdAt"], row["id"]))
    assert {row["type"] for row in seen} == {"chat", "private_note"}
    beyond = await ask(box, f"GET {target}?next=9")
    assert beyond.json == {"data": {"messages": []}, "pagination": {"more": False}}


async def test_a_new_conversation_can_be_read_everywhere(box: Sandbox) -> None:
    message = {"body": "<b>Grüezi</b>", "attributes": {"autoAssigneeId": "228226"}}
    answer = await ask(box, "POST /conversations/new", {"email": "N@x.example", "message": message})
    row = answer.json
    assert row["participants"] == [228226]
    contact = (await ask(box, "GET /contacts?email=n@x.example")).json["data"][0]
    assert contact["id"] == row["contactId"]
    assert (await ask(box, f"GET /conversations/{row['id']}")).json == {"data": row}
    assert ids((await ask(box, f"GET {LIST}?limit=1")).json) == [row["id"]]
    path = f"/conversations/{row['id']}/messages"
    [first] = (await ask(box, f"GET {path}")).json["data"]["messages"]
    assert first["author"] == {"id": 228224, "type": "user", "bot": True}
    posted = await ask(box, f"POST {path}", {"type": "private_note", "body": "x", "userId": 228226})
    assert posted.json["data"]["author"] == {"id": 228226, "type": "user", "bot": False}
    listed = (await ask(box, f"GET {path}")).json["data"]["messages"]
    assert [one["body"] for one in listed] == ["<b>Grüezi</b>", "x"]
    text = (await ask(box, f"GET /conversations/{row['id']}/transcript")).body.decode()
    assert text == (
        "Nov 18, 11:06:40 AM UTC Driftbot (Agent): <b>Grüezi</b>\n"
        "Nov 18, 11:06:40 AM UTC José García (Agent): x\n"
    )
    twin = (await ask(box, f"GET /conversations/{row['id']}/json_transcript")).json["data"]
    assert [one["id"] for one in twin["messages"]] == [one["id"] for one in listed]


async def test_a_conversation_takes_the_first_contact_of_the_address(box: Sandbox) -> None:
    for key in ("one", "two"):
        both = {"email": "same@x.example", "externalId": key}
        await ask(box, "POST /contacts", {"attributes": both})
    wanted = (await ask(box, "GET /contacts?email=same@x.example")).json["data"][0]["id"]
    body = {"email": "SAME@x.example", "message": {"body": "x"}}
    assert (await ask(box, "POST /conversations/new", body)).json["contactId"] == wanted


async def test_a_message_moves_its_conversation_to_the_front(box: Sandbox) -> None:
    path = f"/conversations/{FIRST + 45}"
    before = (await ask(box, f"GET {path}")).json["data"]
    await ask(box, f"POST {path}/messages", {"type": "chat", "body": "x"})
    after = (await ask(box, f"GET {path}")).json["data"]
    assert after == {**before, "updatedAt": 1_795_000_000_000}
    listed = [i for page in await pages(box, f"{LIST}?limit=9") for i in ids(page)]
    assert listed[0] == FIRST + 45
    assert len(listed) == len(set(listed)) == 50


async def test_old_bots_edit_and_delete_messages(box: Sandbox) -> None:
    path = f"/conversations/{FIRST}/messages"
    button = {"label": "a", "value": "a", "type": "reply"}
    body = {"type": "chat", "body": "old", "buttons": [button]}
    made = (await ask(box, f"POST {path}", body)).json["data"]
    edit = {
        "type": "edit",
        "editedMessageId": made["id"],
        "editType": "replace_body",
        "body": "new",
    }
    edited = (await ask(box, f"POST {path}", edit)).json["data"]
    assert edited == {**made, "body": "new"}
    await ask(box, f"POST {path}", {**edit, "editType": "delete", "body": ""})
    listed = (await ask(box, f"GET {path}")).json["data"]["messages"]
    assert made["id"] not in [one["id"] for one in listed]
    assert (await ask(box, f"POST {path}", edit)).status == 404


M = f"POST /conversations/{FIRST}/messages"
REPORT = "POST /reports/conversations"


def report(*filters: Any, metrics: Any = ("createdAt",)) -> dict[str, Any]:
    return {"filters": filters, "metrics": metrics}


@pytest.mark.parametrize(
    ("line", "body", "field"),
    [
        (f"GET {LIST}?limit=0", None, "limit"),
        (f"GET {LIST}?limit=-1", None, "limit"),
        (f"GET {LIST}?limit=ten", None, "limit"),
        (f"GET {LIST}?statusId=9", None, "statusId"),
        (f"GET {LIST}?page_token=nonsense", None, "page_token"),
        (f"GET {LIST}?page_token=bGltaXQ9MQ", None, "page_token"),
        (f"GET {LIST}?next=x", None, "next"),
        (f"GET {LIST}?next=-1", None, "next"),
        ("GET /conversations/x", None, "id"),
        ("POST /conversations/new", {"message": {"body": "x"}}, "email"),
        ("POST /conversations/new", {"email": "a"}, "message"),
        ("POST /conversations/new", {"email": "a", "message": {}}, "message.body"),
        (
            "POST /conversations/new",
            {"email": "a", "message": {"body": "b", "attributes": {"autoAssigneeId": 1}}},
            "message.attributes.autoAssigneeId",
        ),
        (M, {"body": "x"}, "type"),
        (M, {"type": "shout", "body": "x"}, "type"),
        (M, {"type": "chat"}, "body"),
        (M, {"type": "chat", "body": ""}, "body"),
        (M, {"type": "chat", "body": 1}, "body"),
        (M, {"type": "chat", "body": "x", "userId": 1}, "userId"),
        (M, {"type": "chat", "buttons": {}}, "buttons"),
        (M, {"type": "chat", "buttons": [{"label": "a", "value": "a"}]}, "buttons[0].type"),
        (
            M,
            {"type": "chat", "buttons": [{"label": "a", "value": "a", "type": "action"}]},
            "buttons[0].type",
        ),
        (M, {"type": "edit", "editedMessageId": 1}, "editType"),
        (f"GET /conversations/{FIRST}/messages?next=0", None, "next"),
        (REPORT, {"metrics": []}, "filters"),
        (REPORT, {"filters": []}, "metrics"),
        (REPORT, report(metrics=["status"]), "metrics[0]"),
        (REPORT, report({"property": "x", "operation": "IN"}), "filters[0].property"),
        (REPORT, report({"property": "status", "operation": "LIKE"}), "filters[0].operation"),
        (REPORT, report({"property": "status", "operation": "IN"}), "filters[0].values"),
        (
            REPORT,
            report({"property": "createdAt", "operation": "BETWEEN", "values": ["2023-13-01", 1]}),
            "filters[0].values[0]",
        ),
    ],
)
async def test_bad_input_is_a_400_that_names_the_field(
    box: Sandbox, line: str, body: Any, field: str
) -> None:
    answer = await ask(box, line, body)
    assert answer.status == 400, answer.body
    assert answer.json["error"]["message"].startswith(f"{field}: ")


async def test_unknown_conversations_are_404(box: Sandbox) -> None:
    for end in ("", "/messages", "/transcript", "/json_transcript"):
        assert (await ask(box, f"GET /conversations/1{end}")).status == 404
    body = {"type": "chat", "body": "x"}
    assert (await ask(box, "POST /conversations/1/messages", body)).status == 404


async def test_an_attachment_comes_whole_or_in_part(box: Sandbox) -> None:
    listed = await ask(box, f"GET /conversations/{FIRST + 7}/messages")
    [note] = [
        one["attachments"][0] for one in listed.json["data"]["messages"] if "attachments" in one
    ]
    target = note["url"].removeprefix("https://driftapi.com")
    whole = await ask(box, f"GET {target}")
    assert len(whole.body) == 4096
    assert whole.headers["content-length"] == "4096"
    assert whole.headers["content-type"] == note["mimeType"] == "image/png"
    assert whole.headers["content-disposition"] == (
        "attachment; filename=\"_bersicht.png\"; filename*=UTF-8''%C3%9Cbersicht.png"
    )
    for asked, start, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=4000-", 4000, 4096),
        ("bytes=4000-9999", 4000, 4096),
        ("bytes=-10", 4086, 4096),
    ):
        part = await ask(box, f"GET {target}", extra=f"Range: {asked}\r\n")
        assert (part.status, part.body) == (206, whole.body[start:stop])
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/4096"
    for asked in ("bytes=4096-", "bytes=-0"):
        beyond = await ask(box, f"GET {target}", extra=f"Range: {asked}\r\n")
        assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */4096")
    endless = "1" * 5000
    for asked in (
        *("bytes=5-1", "bytes=-", "lines=1-2", "bytes=0-1,3-4"),
        *(f"bytes=0-{endless}", f"bytes=-{endless}", f"bytes={endless}-"),
    ):
        assert (await ask(box, f"GET {target}", extra=f"Range: {asked}\r\n")).body == whole.body
    assert (await ask(box, "GET /attachments/700001/data")).status == 404


async def test_a_report_filters_and_measures(box: Sandbox) -> None:
    closed = {"property": "status", "operation": "IN", "values": ["closed"]}
    metrics = ["numEndUserMessages", "timeToCloseMillis", "relatedPlaybookId"]
    answer = (await ask(box, REPORT, report(closed, metrics=metrics))).json
    assert answer["count"] == len(answer["data"]) == 15
    by_id = {row["conversationId"]: row["metrics"] for row in answer["data"]}
    assert by_id[FIRST + 5] == [1, 62_000, "NaN"]
    day = {"property": "updatedAt", "operation": "BETWEEN", "values": ["2023-11-14", "2023-11-14"]}
    assert (await ask(box, REPORT, report(day))).json["count"] == 50
    later = {**day, "values": ["2023-11-15", 1_800_000_000_000]}
    assert (await ask(box, REPORT, report(later))).json == {"count": 0, "data": []}
    bots = {"property": "botStatus", "operation": "HAS_PROPERTY"}
    assert (await ask(box, REPORT, report(bots))).json["count"] == 5


async def test_erasure_takes_conversations_and_attachments_along(box: Sandbox) -> None:
    contact = (await ask(box, "GET /contacts/15811400002")).json["data"]
    email = contact["attributes"]["email"]
    await ask(box, "POST /conversations/new", {"email": email, "message": {"body": "x"}})
    assert (await ask(box, "POST /gdpr/delete", {"email": email.upper()})).status == 200
    for path in (
        f"contacts/{contact['id']}",
        f"conversations/{FIRST + 2}",
        "attachments/700002/data",
    ):
        assert (await ask(box, f"GET /{path}")).status == 404
    walked = await pages(box, f"{LIST}?limit=7")
    assert [len(page["data"]) for page in walked] == [7] * 7
    listed = [row for page in walked for row in page["data"]]
    assert contact["id"] not in {row["contactId"] for row in listed}


async def test_an_erasure_can_be_put_off() -> None:
    clock = [0.0]
    async with Sandbox(erase_delay=60, clock=lambda: clock[0]) as box:
        email = "zoe.mueller.0@company0.example"
        await ask(box, "POST /gdpr/delete", {"email": email})
        clock[0] = 59.0
        assert (await ask(box, "GET /contacts/15811400000")).status == 200
        clock[0] = 60.0
        assert (await ask(box, "GET /contacts/15811400000")).status == 404
