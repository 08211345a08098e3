"""Every operation and every older form, as raw text and by its documented answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drift_async.sandbox import Sandbox
from tests.support.sandbox_wire import ask, exchange, fits, parse

pytestmark = pytest.mark.anyio

ROWS: dict[str, dict[str, Any]] = {
    row["operation"]: row
    for row in json.loads(Path(__file__).with_name("operations.json").read_text("utf-8"))
}

CONTACT = {"id": int, "createdAt": int, "attributes": dict}
USER = {
    "id": int,
    "orgId": int,
    "name": str,
    "email": str,
    "availability": str,
    "role": str,
    "verified": bool,
    "bot": bool,
    "createdAt": int,
    "updatedAt": int,
    "alias?": str,
    "phone?": str,
    "locale?": str,
    "timeZone?": str,
    "avatarUrl?": str,
}
MEETING = {
    "agentId": int,
    "orgId": int,
    "status": str,
    "meetingSource": str,
    "schedulerId": int,
    "eventId": str,
    "slug": str,
    "slotStart": int,
    "slotEnd": int,
    "updatedAt": int,
    "scheduledAt": int,
    "meetingType": str,
    "conversationId?": int,
    "endUserTimeZone?": str,
    "meetingNotes?": str,
    "bookedBy?": int,
    "isRecurring?": bool,
    "isPrivate?": bool,
    "conferenceType?": str,
    "conferenceDetails?": {"join_url": str},
}
TEAM = {
    "id": int,
    "orgId": int,
    "workspaceId": str,
    "name": str,
    "updatedAt": int,
    "members": [int],
    "owner?": int,
    "status": str,
    "main": bool,
    "autoOffline": bool,
    "teamAvailabilityMode": str,
    "responseTimerEnabled": bool,
    "teamCsatEnabled": bool,
}
CONVERSATION_ROW = {
    "status": str,
    "contactId": int,
    "createdAt": int,
    "id": int,
    "inboxId": int,
    "updatedAt": int,
}
CONVERSATION = {
    **CONVERSATION_ROW,
    "participants": [int],
    "relatedPlaybookId?": int,
    "orgId?": int,
    "conversationTags?": [{"color": str, "name": str}],
}
AUTHOR = {"id": int, "type": str, "bot": bool}
MESSAGE = {
    "id": int,
    "conversationId": int,
    "author": AUTHOR,
    "type": str,
    "createdAt": int,
    "attributes": dict,
    "body?": str,
    "orgId?": int,
    "context?": dict,
    "buttons?": [{"label": str, "value": str, "type": str, "style?": str, "reaction?": dict}],
    "attachments?": [{"id": int, "fileName": str, "mimeType": str, "url": str}],
}
LISTING = {
    "data": [CONVERSATION_ROW],
    "links": {"self": str, "next?": str},
    "pagination?": {"more": True, "next": str},
}
MESSAGES = {"data": {"messages": [MESSAGE]}, "pagination": {"more": bool, "next?": str}}
ACCOUNT = {
    "accountId": str,
    "ownerId": int,
    "name?": str,
    "domain?": str,
    "targeted": bool,
    "customProperties": [{"label": str, "name": str, "value": int, "type": str}],
    "deleted": bool,
    "createDateTime": int,
    "updateDateTime": int,
}
SCIM_USER = {
    "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
    "id": str,
    "userName": str,
    "name": dict,
    "displayName": str,
    "active": bool,
    "locale?": str,
    "photos": [dict],
    "emails": [{"value": str, "primary": bool}],
    "phoneNumbers": [{"value?": str, "primary": bool}],
    "roles": [{"value": str, "display": str, "primary": bool}],
}
SCIM_LIST = {
    "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
    "id": None,
    "externalId": None,
    "meta": None,
    "totalResults": 4,
    "Resources": [SCIM_USER],
    "startIndex": 1,
    "itemsPerPage": 0,
}
TOKEN_INFO = {
    "access_token": "sandbox-token",
    "authenticated_userid": "orgId:123458",
    "credential_id": "",
    "token_type": "bearer",
    "expires_in": 0,
    "created_at": int,
    "scope": str,
    "id": str,
}
PLAYBOOK = {
    "id": int,
    "name": str,
    "orgId": int,
    "meta": {},
    "createdAt": int,
    "updatedAt": int,
    "createdAuthorId": int,
    "updatedAuthorId": int,
    "interactionId": int,
    "reportType": str,
    "goals": [{"id": str, "message": str}],
}
OK = {"result": "OK", "ok": True}
AUTHORIZE = "/authorize?response_type=code&client_id=sandbox-client&redirect_uri=https://a.example"
C, V, MAIL = "15811400001", "4300000001", "zoe.mueller.0@company0.example"

# operation, request line, body, shape of the reply
CASES: list[tuple[str, str, str | None, Any]] = [
    (
        "contacts.create",
        "POST /contacts",
        '{"attributes": {"email": "contact@example.com", "externalId": "your_unique_id"}}',
        {"data": CONTACT},
    ),
    ("contacts.get", f"GET /contacts/{C}", None, {"data": CONTACT}),
    ("contacts.get", f"GET /v1/contacts/{C}", None, {"data": CONTACT}),
    ("contacts.get", f"GET /contacts/{C}/", None, {"data": CONTACT}),
    ("contacts.get", f"GET /contacts/{C}?contactId=9&x", None, {"data": CONTACT}),
    ("contacts.find_by_email", f"GET /contacts?email={MAIL}", None, {"data": [CONTACT]}),
    ("contacts.find_by_email", f"GET /contacts/?email={MAIL}", None, {"data": [CONTACT]}),
    ("contacts.find_by_email", "GET /contacts", None, {"data": [CONTACT]}),
    ("contacts.find_by_email", "GET /contacts/", None, {"data": [CONTACT]}),
    (
        "contacts.find_by_external_id",
        "GET /contacts?idType=external&id=ext-0-f4dbdf21&id=nobody",
        None,
        {"data": [CONTACT]},
    ),
    ("contacts.update", f"PATCH /contacts/{C}", '{"attributes": {"a": 1}}', {"data": CONTACT}),
    (
        "contacts.update_by_external_id",
        "PATCH /contacts/normalize?idType=external&id=ext-0-f4dbdf21",
        '{"attributes": {"name": "Zoë"}}',
        {"data": CONTACT},
    ),
    ("contacts.delete", f"DELETE /contacts/{C}", None, OK),
    ("contacts.delete", f"POST /contacts/{C}", None, OK),
    ("contacts.delete", f"POST /contacts/{C}", "", OK),
    (
        "contacts.add_timeline_event",
        "POST /contacts/timeline",
        '{"contactId": "15811400001", "createdAt": 1546344000000, "event": "New Event"}',
        {
            "data": {
                "attributes": {},
                "event": "new event",
                "createdAt": 1546344000000,
                "contactId": 15811400001,
            }
        },
    ),
    (
        "contacts.attributes",
        "GET /contacts/attributes",
        None,
        {"data": {"properties": [{"type": str, "displayName": str, "name": str}]}},
    ),
    ("contacts.unsubscribe", "POST /emails/unsubscribe", '["a@example.com"]', OK),
    ("contacts.add_tags", f"POST /contacts/{C}/tags", '[{"name": "vip"}]', {"data": CONTACT}),
    ("contacts.remove_tag", f"DELETE /contacts/{C}/tags/vip", None, {"data": CONTACT}),
    (
        "contacts.remove_tags",
        f"POST /contacts/{C}/tags/delete/_bulk",
        '["vip"]',
        {"data": CONTACT},
    ),
    ("users.get", "GET /users/228225", None, {"data": USER}),
    (
        "users.get_many",
        "GET /users?userId=228225&userId=1",
        None,
        {"data": {"228225": USER}},
    ),
    ("users.all", "GET /users/list", None, {"data": [USER]}),
    ("users.all", "GET /users", None, {"data": [USER]}),
    ("users.update", "PATCH /users/update?userId=228225", '{"alias": "N"}', {"data": USER}),
    (
        "users.meetings",
        "GET /users/meetings/org?min_start_time=0&max_start_time=1799999999999",
        None,
        {"data": [MEETING]},
    ),
    ("conversations.get", f"GET /conversations/{V}", None, {"data": CONVERSATION}),
    ("conversations.all", "GET /conversations/list", None, LISTING),
    ("conversations.all", "GET /conversations", None, LISTING),
    ("conversations.all", "GET /v1/conversations/list/", None, LISTING),
    ("conversations.all", "GET /conversations/list?next=10&limit=2", None, LISTING),
    ("conversations.all", "GET /conversations/list?statusId=OPEN&statusId=2", None, LISTING),
    ("conversations.all", "GET /conversations/list?page_token=", None, LISTING),
    (
        "conversations.create",
        "POST /conversations/new",
        (
            '{"email": "contact@example.com", "message": {"body": "Hi", "attributes": '
            '{"integrationSource": "Message from facebook"}}}'
        ),
        {**CONVERSATION_ROW, "status": "open"},
    ),
    (
        "conversations.stats",
        "GET /conversations/stats",
        None,
        {"conversationCount": {"CLOSED": 15, "OPEN": 25, "PENDING": 5}},
    ),
    ("conversations.transcript", f"GET /conversations/{V}/transcript", None, str),
    (
        "conversations.json_transcript",
        f"GET /conversations/{V}/json_transcript",
        None,
        {
            "data": {
                "messages": [
                    {"id": int, "body?": str, "type": str, "author": AUTHOR, "createdAt": int}
                ]
            }
        },
    ),
    (
        "conversations.create_message",
        f"POST /conversations/{V}/messages",
        (
            '{"type": "chat", "body": "string", "buttons": [{"value": "yes please", "label": '
            '"yes please", "type": "reply"}], "userId": 228225}'
        ),
        {"data": MESSAGE},
    ),
    (
        "conversations.create_message",
        f"POST /v1/conversations/{V}/messages",
        (
            '{"orgId": 1, "type": "private_prompt", "body": "?", "buttons": [{"label": "a", '
            '"value": "b", "type": "action", "style": "danger", "reaction": {"type": "delete"}}]}'
        ),
        {"data": MESSAGE},
    ),
    (
        "conversations.create_message",
        f"POST /v1/conversations/{V}/messages",
        (
            '{"orgId": 1, "type": "edit", "editedMessageId": 14331000130, "editType": "delete", '
            '"body": ""}'
        ),
        {"data": MESSAGE},
    ),
    ("conversations.messages", f"GET /conversations/{V}/messages", None, MESSAGES),
    ("conversations.messages", f"GET /conversations/{V}/messages?next=&limit=1", None, MESSAGES),
    ("conversations.messages", f"GET /v1/conversations/{V}/messages?next=3", None, MESSAGES),
    ("conversations.attachment", "GET /attachments/700002/data", None, bytes),
    (
        "reports.conversations",
        "POST /reports/conversations",
        (
            '{"filters": [{"property": "lastAgentId", "operation": "HAS_PROPERTY"}], '
            '"metrics": ["createdAt", "numBotMessages"]}'
        ),
        {"count": int, "data": [{"conversationId": int, "metrics": [int]}]},
    ),
    (
        "reports.conversation_summary",
        "POST /reports/conversation-summary",
        '{"metrics": [{"type": "AVG", "property": "numBotMessages"}]}',
        {
            "data": {
                "count": 50,
                "metrics": [{"type": "AVG", "property": "numBotMessages", "value": float}],
            }
        },
    ),
    (
        "accounts.create",
        "POST /accounts/create",
        (
            '{"ownerId": 228225, "name": "Company Name", "domain": "www.domain.com", '
            '"customProperties": [{"label": "My Number", "name": " my number", "value": 1, '
            '"type": "NUMBER"}], "targeted": true}'
        ),
        {"data": {**ACCOUNT, "accountId": "123458_www.domain.com"}},
    ),
    ("accounts.create", "POST /accounts/create", '{"owner_id": "228225"}', {"data": ACCOUNT}),
    ("accounts.get", "GET /accounts/123458_company1.example", None, {"data": ACCOUNT}),
    (
        "accounts.all",
        "GET /accounts",
        None,
        {"data": {"accounts": [ACCOUNT], "total": 20, "next": "/accounts?index=10&size=10"}},
    ),
    (
        "accounts.all",
        "GET /accounts?size=100",
        None,
        {"data": {"accounts": [ACCOUNT], "total": 20}},
    ),
    (
        "accounts.update",
        "PATCH /accounts/update",
        '{"ownerId": 228225, "accountId": "123458_company1.example", "name": "Neu"}',
        {"data": {**ACCOUNT, "name": "Neu"}},
    ),
    ("accounts.delete", "DELETE /accounts/123458_company1.example", None, OK),
    ("playbooks.all", "GET /playbooks/list", None, [PLAYBOOK]),
    (
        "playbooks.landing_pages",
        "GET /playbooks/clp",
        None,
        [{"playbookId": int, "playbookName": str, "landingPageUrl": str}],
    ),
    ("teams.all", "GET /teams/org", None, {"data": [TEAM]}),
    ("teams.of_user", "GET /teams/users/228225", None, {"data": [TEAM]}),
    ("app.token_info", "POST /app/token_info", '{"access_token": "sandbox-token"}', TOKEN_INFO),
    ("app.token_info", "POST /app/token_info", '{"accessToken": "sandbox-token"}', TOKEN_INFO),
    (
        "app.uninstall",
        "POST /app/uninstall?clientId=sandbox-client&clientSecret=sandbox-secret",
        None,
        OK,
    ),
    (
        "gdpr.retrieve",
        "POST /gdpr/retrieve",
        '{"email": "nobody@example.com"}',
        {"data": {"message": str, "sentToEmail": "noah.1@sandbox.example"}},
    ),
    (
        "gdpr.delete",
        "POST /gdpr/delete",
        '{"email": "nobody@example.com"}',
        {"data": {"message": "Your delete is processing"}},
    ),
    ("scim.all", "GET /scim/Users", None, SCIM_LIST),
    ("scim.get", "GET /scim/Users/228225", None, SCIM_USER),
    (
        "scim.create",
        "POST /scim/Users",
        (
            '{"schemas": ["urn:scim:schemas:core:2.0"], "userName": "new@example.com", '
            '"displayName": "New", "roles": [{"value": "MEMBER", "display": "MEMBER", '
            '"primary": true}], "locale": "en-US"}'
        ),
        SCIM_USER,
    ),
    (
        "scim.replace",
        "PUT /scim/Users/228226",
        '{"userName": "jose.2@sandbox.example", "displayName": "José"}',
        SCIM_USER,
    ),
    (
        "scim.replace",
        "PUT /scim/Users",
        '{"userName": "jose.2@sandbox.example", "displayName": "José"}',
        SCIM_USER,
    ),
    (
        "scim.update",
        "PATCH /scim/Users/228226",
        '{"isActive": false}',
        {**SCIM_USER, "active": False},
    ),
    ("scim.delete", "DELETE /scim/Users/228226", None, b""),
    (
        "events.identify",
        "POST /identify",
        (
            '{"orgId": 123458, "userId": "019mr8mf4r", "attributes": {"name": "John Doe", '
            '"email": "john.doe@example.com", "revenue": 100.0}, "createdAt": "1441981033123"}'
        ),
        {},
    ),
    (
        "events.identify_many",
        "POST /identify/multi",
        '[{"orgId": "123458", "companyId": 7, "attributes": {}}, {"orgId": 123458, "userId": 8}]',
        {},
    ),
    (
        "events.track",
        "POST /track",
        (
            '{"orgId": 123458, "userId": "019mr8mf4r", "event": "Link Clicked", "attributes": '
            '{"linkUrl": "http://www.example.com"}, "createdAt": 1441981033123}'
        ),
        {},
    ),
    (
        "events.track_many",
        "POST /track/multi",
        '[{"orgId": 123458, "userId": "a", "event": "A"}]',
        {},
    ),
    (
        "segmentstream.track",
        "POST /segmentstream/track",
        (
            '{"hitId": "6f1c1c2e-9d0a-11ee-8c90-0242ac120002", "sentAt": '
            '"2024-01-05T09:30:00.000Z", "event": {"name": "Lead", "user": {"userId": "u1"}}, '
            '"context": {"ip": "192.0.2.7"}, "integrations": {"Google Analytics": {}}}'
        ),
        b"",
    ),
    ("oauth.authorize_url", f"GET {AUTHORIZE}", None, b""),
    (
        "oauth.exchange",
        "POST /oauth2/token",
        (
            '{"clientId": "sandbox-client", "clientSecret": "sandbox-secret", '
            '"grantType": "authorization_code", "code": "sandbox-code-4"}'
        ),
        {"accessToken": str, "refreshToken": str, "orgId": 123458},
    ),
    (
        "oauth.refresh",
        "POST /oauth2/token",
        (
            '{"clientId": "sandbox-client", "clientSecret": "sandbox-secret", '
            '"grantType": "refresh_token", "refreshToken": "sandbox-refresh-2"}'
        ),
        {"accessToken": str, "refreshToken": str, "orgId": 123458},
    ),
]


def credentials(operation: str) -> str:
    """What the operation wants in Authorization: sandbox-stream: in base64, or a token."""
    stream = operation.startswith("segmentstream.")
    return "basic c2FuZGJveC1zdHJlYW06" if stream else "bearer sandbox-token"


async def agree(box: Sandbox) -> None:
    """Leave the refresh token and the code in the sandbox that the cases use."""
    form = "client_id=sandbox-client&client_secret=sandbox-secret&grant_type=authorization_code"
    await ask(box, f"GET {AUTHORIZE}", token=None)
    await ask(box, "POST /oauth2/token", f"{form}&code=sandbox-code-1", token=None)
    await ask(box, f"GET {AUTHORIZE}", token=None)
    box.forget()


@pytest.mark.parametrize("host", ["driftapi.com", "api.drift.com", "127.0.0.1"])
@pytest.mark.parametrize(("operation", "line", "body", "shape"), CASES)
async def test_an_operation_answers_as_documented(
    box: Sandbox, operation: str, line: str, body: str | None, shape: Any, host: str
) -> None:
    if operation.startswith("oauth."):
        await agree(box)
    text = f"{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {credentials(operation)}\r\n"
    if body is not None:
        text += f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n"
    answer = parse(await exchange(box, f"{text}\r\n{body or ''}".encode()))
    row = ROWS[operation]
    assert (answer.status, answer.whole) == (row["status"], True), answer.body
    assert answer.headers["x-request-id"]
    assert [one.operation for one in box.seen] == [operation]
    kind = "application/scim+json" if operation.startswith("scim.") else "application/json"
    if shape is bytes:
        assert len(answer.body) == 4096
        assert answer.headers["content-type"] == "text/plain"
    elif shape is str:
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.body.endswith(b"\n")
    elif shape == b"":
        assert answer.body == b""
    else:
        assert answer.headers["content-type"] == kind
        fits(answer.json, shape)
        if row["envelope"] == "data":
            assert "data" in answer.json
        if row["envelope"] == "ok":
            assert answer.json == OK


@pytest.mark.parametrize("name", ROWS)
async def test_each_row_has_its_route_and_a_case(name: str) -> None:
    row = ROWS[name]
    [known] = [one for one in Sandbox().operations if one.name == name]
    assert (known.method, known.path, known.scope) == (row["method"], row["path"], row["scope"])
    assert any(case[0] == name for case in CASES)


async def test_no_operation_is_made_up() -> None:
    assert {one.name for one in Sandbox().operations} == ROWS.keys()


async def test_a_slip_of_an_older_description_is_refused(box: Sandbox) -> None:
    answer = await ask(box, "DELETE /scim/Users")
    assert (answer.status, answer.json["status"]) == (400, "400")
    answer = await ask(box, f"POST /contacts/{C}", {"attributes": {}})
    assert answer.status == 400
    for path in ("/contacts/update", "/conversations/update"):
        assert (await ask(box, f"POST {path}", "{}")).status in (400, 404, 405)


async def test_seen_holds_the_request_byte_for_byte(box: Sandbox) -> None:
    head = b"POST /v1/contacts/%2e%2E//x?a=%C3%A9&b=+ HTTP/1.1\r\n"
    head += b"HOST: h\r\nx-Ab: 1\r\nX-ab:  \xe9\r\n"
    answer = parse(await exchange(box, head + b'Content-Length: 5\r\n\r\n\x00{"}\xff'))
    [seen] = box.seen
    assert answer.status == seen.status == 404
    assert seen.raw_path == "/v1/contacts/%2e%2E//x?a=%C3%A9&b=+"
    assert seen.headers[:3] == (("HOST", "h"), ("x-Ab", "1"), ("X-ab", "\xe9"))
    assert (seen.method, seen.body, seen.applied) == ("POST", b'\x00{"}\xff', False)


async def test_one_connection_serves_many_requests(box: Sandbox) -> None:
    one = b"GET /users/228225 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer sandbox-token\r\n"
    both = await exchange(box, one + b"\r\n" + one + b"Connection: close\r\n\r\n")
    assert both.startswith(b"HTTP/1.1 200")
    assert box.count >= 1


def damaged(value: Any) -> Iterator[Any]:
    """The value with every part of it, one at a time, replaced by junk."""
    yield from (None, True, -1, 1.5, 2**70, "", "x", [], {}, [None], [[]], {"a": None})
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: one for name, one in value.items() if name != key}
            yield from ({**value, key: junk} for junk in damaged(inner))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from ([*value[:i], junk, *value[i + 1 :]] for junk in damaged(inner))


@pytest.mark.parametrize(("operation", "line", "body"), [case[:3] for case in CASES if case[2]])
async def test_no_body_makes_a_handler_fail(
    box: Sandbox, operation: str, line: str, body: str
) -> None:
    # A contact that holds junk must not trip later calls either.
    junk: Any = {"attributes": {"tags": [[], {}, None], "name": {}, "seats": "x", "events": []}}
    await ask(box, f"PATCH /contacts/{C}", junk)
    for one in damaged(json.loads(body)):
        extra = f"Authorization: {credentials(operation)}\r\nContent-Type: application/json\r\n"
        answer = await ask(box, line, one, token=None, extra=extra)
        assert answer.status < 500, (one, answer.body)
        assert answer.headers["x-request-id"]
    await ask(box, f"GET /conversations/{V}/transcript")
    assert box.seen[-1].status == 200
