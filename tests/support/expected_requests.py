"""What each call has to put on the wire, written down by hand from the API's documentation.

A request is a line: method, target and, where there is one, the JSON body. The order of keys in a
body is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs

from drift_async import (
    UNSET,
    Button,
    ButtonStyle,
    ButtonType,
    CustomProperty,
    PropertyType,
    Reaction,
    ReactionType,
    ReportFilter,
    ReportOperation,
    ScimName,
    ScimUser,
    ScimValue,
)


@attrs.frozen
class Row:
    """A call, the requests it makes in order, and the faults scripted before it."""

    call: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    wire: Sequence[str]
    faults: Sequence[tuple[str, Mapping[str, Any]]] = ()
    raises: str | None = None


def row(call: str, *args: Any, wire: str | Sequence[str], **kwargs: Any) -> Row:
    return Row(call, args, kwargs, [wire] if isinstance(wire, str) else wire)


NOON = datetime(2026, 11, 1, 11, 0, 0, 123_000, tzinfo=timezone(timedelta(hours=1)))
MIDNIGHT = datetime(2026, 11, 2, tzinfo=UTC)
SECOND_1, SECOND_2 = (datetime(1970, 1, 1, 0, 0, second, tzinfo=UTC) for second in (1, 2))

MULTI = "&".join
BY_ID = "GET /contacts?idType=external&"
KNOWN = "ext-1-83dcefb7"  # the external id of the sandbox's contact 15811400001
UPSERTED = f'{{"attributes":{{"email":"n@b.example","externalId":"{KNOWN}","plan":"pro"}}}}'

CONTACTS = (
    row(
        "contacts.create",
        "ada@example.com",
        wire='POST /contacts {"attributes":{"email":"ada@example.com"}}',
    ),
    row(
        "contacts.create",
        "zoë+a&b@exämple.com",
        external_id="ключ/1 ?#%",
        attributes={"plan": "größer ☂", "seats": 3, "ratio": 0.5, "on": True, "since": NOON}
        | {"tags": ["a"], "deep": {"ö": [1, None]}},
        wire='POST /contacts {"attributes":{"email":"zoë+a&b@exämple.com",'
        '"externalId":"ключ/1 ?#%","plan":"größer ☂","seats":3,"ratio":0.5,"on":true,'
        '"since":1793527200123,"tags":["a"],"deep":{"ö":[1,null]}}}',
    ),
    row("contacts.get", 15_811_400_007, wire="GET /contacts/15811400007"),
    row(
        "contacts.find_by_email",
        "zoë+a&b=c%/?#@exämple.com",
        wire="GET /contacts?email=zo%C3%AB%2Ba%26b%3Dc%25%2F%3F%23%40ex%C3%A4mple.com&limit=25",
    ),
    row(
        "contacts.find_by_email",
        "a@b.example",
        limit=3,
        wire="GET /contacts?email=a%40b.example&limit=25",
    ),
    Row(
        "contacts.find_by_email",
        ["a@b.example"],
        {"limit": 120},
        [
            "GET /contacts?email=a%40b.example&limit=100",
            "GET /contacts?email=a%40b.example&limit=100&cursor=YWZ0ZXI9MQ",
            "GET /contacts?email=a%40b.example&limit=100&cursor=a%2Fb%2B",
        ],
        faults=[
            ("contacts.find_by_email", {"status": 200, "body": {"data": []}, "headers": headers})
            for headers in (
                {"Link": "<https://driftapi.com/contacts?cursor=YWZ0ZXI9MQ>; rel='next'"},
                {"Link": '</x?limit=1&cursor=a/b%2B>; rel="next"'},
                {"Link": "<https://driftapi.com/contacts?cursor=1>; rel='prev'"},
            )
        ],
    ),
    row(
        "contacts.find_by_external_id",
        "a/1",
        "b&2=+ ",
        "ü",
        "a/1",
        wire="GET /contacts?idType=external&id=a%2F1&id=b%262%3D%2B%20&id=%C3%BC",
    ),
    row(
        "contacts.find_by_external_id",
        *[f"e{n}" for n in range(120)],
        wire=[
            BY_ID + MULTI(f"id=e{n}" for n in range(50)),
            BY_ID + MULTI(f"id=e{n}" for n in range(50, 100)),
            BY_ID + MULTI(f"id=e{n}" for n in range(100, 120)),
        ],
    ),
    row(
        "contacts.update",
        15_811_400_007,
        {"plan": "prö"},
        wire='PATCH /contacts/15811400007 {"attributes":{"plan":"prö"}}',
    ),
    row(
        "contacts.update_by_external_id",
        KNOWN,
        {"seats": 4},
        wire="PATCH /contacts/normalize?idType=external&id=ext-1-83dcefb7"
        ' {"attributes":{"seats":4}}',
    ),
    Row(
        "contacts.update_by_external_id",
        ["ключ /&", {"seats": 4}],
        {},
        [
            (
                "PATCH /contacts/normalize?idType=external&id=%D0%BA%D0%BB%D1%8E%D1%87%20%2F%26"
                ' {"attributes":{"seats":4}}'
            )
        ],
        raises="NotFoundError",
    ),
    *(
        row(
            "contacts.update_by_external_id",
            "15811400007",
            {"seats": 4},
            id_type=kind,
            wire=f"PATCH /contacts/normalize?idType={kind}&id=15811400007"
            ' {"attributes":{"seats":4}}',
        )
        for kind in ("drift", "internal")
    ),
    row(  # nobody there: created
        "contacts.upsert",
        "u/8",
        email="n@b.example",
        attributes={"plan": "pro"},
        wire=[
            "GET /contacts?idType=external&id=u%2F8",
            'POST /contacts {"attributes":{"email":"n@b.example","externalId":"u/8","plan":"pro"}}',
        ],
    ),
    row(  # there already: updated
        "contacts.upsert",
        KNOWN,
        email="n@b.example",
        attributes={"plan": "pro"},
        wire=[
            "GET /contacts?idType=external&id=ext-1-83dcefb7",
            f"PATCH /contacts/15811400001 {UPSERTED}",
        ],
    ),
    Row(  # somebody else was quicker: 409, found, updated
        "contacts.upsert",
        [KNOWN],
        {"email": "n@b.example", "attributes": {"plan": "pro"}},
        [
            "GET /contacts?idType=external&id=ext-1-83dcefb7",
            f"POST /contacts {UPSERTED}",
            "GET /contacts?idType=external&id=ext-1-83dcefb7",
            f"PATCH /contacts/15811400001 {UPSERTED}",
        ],
        faults=[("contacts.find_by_external_id", {"body": {"data": []}})],
    ),
    row("contacts.delete", 15_811_400_007, wire="DELETE /contacts/15811400007"),
    row(
        "contacts.add_timeline_event",
        "Signed up ✓",
        contact_id=15_811_400_007,
        created_at=NOON,
        wire="POST /contacts/timeline"
        ' {"event":"Signed up ✓","contactId":15811400007,"createdAt":1793527200123}',
    ),
    row(
        "contacts.add_timeline_event",
        "x",
        external_id=KNOWN,
        wire='POST /contacts/timeline {"event":"x","externalId":"ext-1-83dcefb7"}',
    ),
    row("contacts.attributes", wire="GET /contacts/attributes"),
    row(
        "contacts.unsubscribe",
        ["a@b.example", "zoë@exämple.com"],
        wire='POST /emails/unsubscribe ["a@b.example","zoë@exämple.com"]',
    ),
)

USERS = (
    row("users.get", 228_225, wire="GET /users/228225"),
    row(
        "users.get_many", [228_225, 228_224, 228_225], wire="GET /users?userId=228225&userId=228224"
    ),
    row(
        "users.get_many",
        range(1, 46),
        wire=[
            "GET /users?" + MULTI(f"userId={n}" for n in range(1, 21)),
            "GET /users?" + MULTI(f"userId={n}" for n in range(21, 41)),
            "GET /users?" + MULTI(f"userId={n}" for n in range(41, 46)),
        ],
    ),
    row("users.all", wire="GET /users/list"),
    row(
        "users.update",
        228_225,
        name="Zoë Müller",
        alias="Z",
        email="zoë@exämple.com",
        phone="617-555-0100",
        locale="de-CH",
        avatar_url="https://img.example/ö.png",
        availability="OFFLINE",
        wire='PATCH /users/update?userId=228225 {"name":"Zoë Müller","alias":"Z",'
        '"email":"zoë@exämple.com","phone":"617-555-0100","locale":"de-CH",'
        '"avatarUrl":"https://img.example/ö.png","availability":"OFFLINE"}',
    ),
    row(
        "users.update",
        228_225,
        name=UNSET,
        alias=None,
        wire='PATCH /users/update?userId=228225 {"alias":null}',
    ),
    row(
        "users.meetings",
        NOON,
        MIDNIGHT,
        wire="GET /users/meetings/org?min_start_time=1793527200123"
        "&max_start_time=1793577600000&limit=1000",
    ),
    Row(  # a full reply: the window is halved
        "users.meetings",
        [SECOND_1, SECOND_2],
        {},
        [
            "GET /users/meetings/org?min_start_time=1000&max_start_time=2000&limit=1000",
            "GET /users/meetings/org?min_start_time=1000&max_start_time=1500&limit=1000",
            "GET /users/meetings/org?min_start_time=1500&max_start_time=2000&limit=1000",
        ],
        faults=[("users.meetings", {"body": {"data": [{"slug": "s"}] * 1000}})],
    ),
)

LISTED = "GET /conversations/list"
CONVERSATIONS = (
    row("conversations.get", 4_300_000_000, wire="GET /conversations/4300000000"),
    row("conversations.all", wire=f"{LISTED}?limit=100"),
    row("conversations.all", status="open", wire=f"{LISTED}?limit=100&statusId=1"),
    row(
        "conversations.all",
        status=("pending", "closed", "open"),
        page_size=50,
        wire=f"{LISTED}?limit=50&statusId=3&statusId=2&statusId=1",
    ),
    row(  # the tokens hold time and id of the last row, and the limit, in base64
        "conversations.all",
        page_size=20,
        wire=[
            f"{LISTED}?limit=20",
            (
                f"{LISTED}?page_token=aGlnaGVzdFVwZGF0ZWRBdD0xNjk5OTk5NjQwMDAwJmhpZ2hlc3RJZD00MzAwMDAwMDE5"
                "JmxpbWl0PTIw"
            ),
            (
                f"{LISTED}?page_token=aGlnaGVzdFVwZGF0ZWRBdD0xNjk5OTk5MjIwMDAwJmhpZ2hlc3RJZD00MzAwMDAwMDM5"
                "JmxpbWl0PTIw"
            ),
        ],
    ),
    Row(  # the older style, without links
        "conversations.all",
        [],
        {"status": "closed", "page_size": 2},
        [f"{LISTED}?limit=2&statusId=2", f"{LISTED}?limit=2&statusId=2&next=2"],
        faults=[
            (
                "conversations.all",
                {"body": {"data": [], "pagination": {"more": True, "next": "2"}}},
            ),
            ("conversations.all", {"body": {"data": [], "pagination": {"more": False}}}),
        ],
    ),
    row("conversations.stats", wire="GET /conversations/stats"),
    row(
        "conversations.create",
        "zoë@exämple.com",
        "<p>Grüße &amp; 🙂</p>",
        integration_source="Łink",
        auto_assignee_id=228_225,
        wire='POST /conversations/new {"email":"zoë@exämple.com","message":'
        '{"body":"<p>Grüße &amp; 🙂</p>",'
        '"attributes":{"integrationSource":"Łink","autoAssigneeId":228225}}}',
    ),
    row(
        "conversations.create",
        "a@b.example",
        "hi",
        wire='POST /conversations/new {"email":"a@b.example","message":{"body":"hi"}}',
    ),
    row(
        "conversations.messages",
        4_300_000_001,
        wire=[
            "GET /conversations/4300000001/messages",
            "GET /conversations/4300000001/messages?next=2",
            "GET /conversations/4300000001/messages?next=3",
        ],
    ),
    row(
        "conversations.create_message",
        4_300_000_000,
        "<b>Schöne ☂\n</b>",
        type="private_note",
        user_id=228_225,
        buttons=[
            Button(
                label="Ja, bitte",
                value="ja",
                type=ButtonType.COMPOSE,
                style=ButtonStyle.DANGER,
                reaction=Reaction(type=ReactionType.REPLACE, message="Gewählt ✓"),
            )
        ],
        wire='POST /conversations/4300000000/messages {"type":"private_note","userId":228225,'
        '"body":"<b>Schöne ☂\\n</b>","buttons":[{"label":"Ja, bitte","value":"ja",'
        '"type":"compose","style":"danger","reaction":{"type":"replace","message":"Gewählt ✓"}}]}',
    ),
    row(
        "conversations.create_message",
        4_300_000_000,
        buttons=[Button(label="Yes")],
        wire='POST /conversations/4300000000/messages {"type":"chat",'
        '"buttons":[{"label":"Yes","value":"Yes","type":"reply"}]}',
    ),
    row("conversations.transcript", 4_300_000_000, wire="GET /conversations/4300000000/transcript"),
    row(
        "conversations.json_transcript",
        4_300_000_000,
        wire="GET /conversations/4300000000/json_transcript",
    ),
    row("conversations.attachment", 700_002, max_bytes=4096, wire="GET /attachments/700002/data"),
)

SIZE = CustomProperty(label="Größe", name="size", value=[1, "ö"], type=PropertyType.NUMBER)
SIZE_JSON = '{"label":"Größe","name":"size","value":[1,"ö"],"type":"NUMBER"}'
ACCOUNTS = (
    row("accounts.create", 228_225, wire='POST /accounts/create {"ownerId":228225}'),
    row(
        "accounts.create",
        228_225,
        name="Müller & Söhne",
        domain="müller.example",
        custom_properties=[SIZE],
        targeted=False,
        wire='POST /accounts/create {"ownerId":228225,"name":"Müller & Söhne",'
        f'"domain":"müller.example","customProperties":[{SIZE_JSON}],"targeted":false}}',
    ),
    row("accounts.get", "123458_company1.example", wire="GET /accounts/123458_company1.example"),
    Row(
        "accounts.get",
        ["1_müller gmbh/50%?#&~-+;,.example"],
        {},
        ["GET /accounts/1_m%C3%BCller%20gmbh%2F50%25%3F%23%26~-%2B%3B%2C.example"],
        raises="NotFoundError",
    ),
    row("accounts.all", wire="GET /accounts?index=0&size=65"),
    row(
        "accounts.all",
        page_size=8,
        wire=[
            "GET /accounts?index=0&size=8",
            "GET /accounts?index=8&size=8",
            "GET /accounts?index=16&size=8",
        ],
    ),
    row(
        "accounts.update",
        "123458_company1.example",
        228_225,
        name="Ö",
        domain="ö.example",
        custom_properties=[],
        targeted=True,
        wire='PATCH /accounts/update {"accountId":"123458_company1.example","ownerId":228225,'
        '"name":"Ö","domain":"ö.example","customProperties":[],"targeted":true}',
    ),
    row(
        "accounts.update",
        "123458_company1.example",
        228_225,
        name=None,
        domain=UNSET,
        wire="PATCH /accounts/update"
        ' {"accountId":"123458_company1.example","ownerId":228225,"name":null}',
    ),
    row(
        "accounts.update",
        "123458_company1.example",
        228_226,
        name=UNSET,
        wire='PATCH /accounts/update {"accountId":"123458_company1.example","ownerId":228226}',
    ),
    row(
        "accounts.delete",
        "123458_company1.example",
        wire="DELETE /accounts/123458_company1.example",
    ),
)
OTHERS = (
    row("playbooks.all", wire="GET /playbooks/list"),
    row("playbooks.landing_pages", wire="GET /playbooks/clp"),
    row("teams.all", wire="GET /teams/org"),
    row("teams.of_user", 228_225, wire="GET /teams/users/228225"),
    row("app.token_info", wire='POST /app/token_info {"access_token":"sandbox-token"}'),
    Row(
        "app.token_info",
        ['other+"token/='],
        {},
        ['POST /app/token_info {"access_token":"other+\\"token/="}'],
        raises="NotFoundError",
    ),
    row(
        "app.uninstall",
        "sandbox-client",
        "sandbox-secret",
        wire="POST /app/uninstall?clientId=sandbox-client&clientSecret=sandbox-secret",
    ),
    Row(
        "app.uninstall",
        ["ö/1", "a&b=c%+d"],
        {},
        ["POST /app/uninstall?clientId=%C3%B6%2F1&clientSecret=a%26b%3Dc%25%2Bd"],
        raises="AuthenticationError",
    ),
    row("gdpr.retrieve", "zoë@x.example", wire='POST /gdpr/retrieve {"email":"zoë@x.example"}'),
    row("gdpr.delete", "zoë@x.example", wire='POST /gdpr/delete {"email":"zoë@x.example"}'),
    row(
        "reports.conversations",
        [
            ReportFilter(
                property="createdAt",
                operation=ReportOperation.BETWEEN,
                values=("2023-11-01", MIDNIGHT),
            ),
            ReportFilter(property="status", operation=ReportOperation.IN, values=("closed",)),
            ReportFilter(property="firstCloseAt", operation=ReportOperation.HAS_PROPERTY),
        ],
        ["timeToCloseMillis", "numBotMessages"],
        wire='POST /reports/conversations {"filters":[{"property":"createdAt",'
        '"operation":"BETWEEN","values":["2023-11-01",1793577600000]},'
        '{"property":"status","operation":"IN","values":["closed"]},'
        '{"property":"firstCloseAt","operation":"HAS_PROPERTY"}],'
        '"metrics":["timeToCloseMillis","numBotMessages"]}',
    ),
    row(
        "request",
        "GET",
        "/contacts/15811400001",
        params={"a": [1, "zwei"], "b": None, "on": True, "at": NOON, "ü&": "x y/+"},
        wire="GET /contacts/15811400001?a=1&a=zwei&on=true&at=1793527200123&%C3%BC%26=x%20y%2F%2B",
    ),
    row(
        "request",
        "POST",
        "/emails/unsubscribe",
        json=["zoë@x.example"],
        effect="idempotent",
        wire='POST /emails/unsubscribe ["zoë@x.example"]',
    ),
    row("request", "DELETE", "/contacts/15811400001", wire="DELETE /contacts/15811400001"),
)

SCIM_USER = ScimUser(
    schemas=("urn:scim:schemas:core:2.0",),
    user_name="zoë@exämple.com",
    display_name='Zoë "Z" Müller',
    name=ScimName(given_name="Zoë", family_name="Müller", formatted="Zoë Müller"),
    locale="de-CH",
    emails=(ScimValue(value="zoë@exämple.com", primary=True),),
    phone_numbers=(ScimValue(value="617-555-0100", type="work"),),
    photos=(ScimValue(display="ohne"),),
    roles=(ScimValue(value="ADMIN", display="Admin", primary=True),),
)
SCIM_JSON = (
    '{"schemas":["urn:scim:schemas:core:2.0"],"userName":"zoë@exämple.com",'
    '"displayName":"Zoë \\"Z\\" Müller","name":{"givenName":"Zoë","familyName":"Müller",'
    '"formatted":"Zoë Müller"},"locale":"de-CH","emails":[{"value":"zoë@exämple.com",'
    '"primary":true}],"phoneNumbers":[{"value":"617-555-0100","type":"work"}],'
    '"photos":[{"display":"ohne"}],"roles":[{"value":"ADMIN","display":"Admin","primary":true}]}'
)
SCIM = (
    row("scim.all", wire="GET /scim/Users?count=100"),
    row(
        "scim.all",
        page_size=3,
        wire=["GET /scim/Users?count=3", "GET /scim/Users?count=3&startIndex=4"],
    ),
    row(
        "scim.all",
        filter='userName eq "zoë+1@x.example"',
        wire="GET /scim/Users?filter=userName%20eq%20%22zo%C3%AB%2B1%40x.example%22&count=100",
    ),
    row("scim.get", "228225", wire="GET /scim/Users/228225"),
    Row(
        "scim.get",
        ["2819c223/7f76 ü%41..;"],
        {},
        ["GET /scim/Users/2819c223%2F7f76%20%C3%BC%2541..%3B"],
        raises="NotFoundError",
    ),
    row("scim.create", SCIM_USER, wire=f"POST /scim/Users {SCIM_JSON}"),
    row("scim.replace", "228225", SCIM_USER, wire=f"PUT /scim/Users/228225 {SCIM_JSON}"),
    row(
        "scim.update",
        "228225",
        ScimUser(display_name="Ö", is_active=False),
        wire='PATCH /scim/Users/228225 {"displayName":"Ö","isActive":false}',
    ),
    row("scim.delete", "228225", wire="DELETE /scim/Users/228225"),
)

ROWS = (*CONTACTS, *USERS, *CONVERSATIONS, *ACCOUNTS, *OTHERS, *SCIM)
