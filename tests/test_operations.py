"""Every operation of the API has a row, a method, a route in the sandbox and a model."""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
import typing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import drift_async
import drift_async.sync
from drift_async import auth, client, resources
from drift_async.core.endpoint import Endpoint, Resource
from drift_async.core.life import Client
from drift_async.core.paging import Pager
from drift_async.sandbox import Sandbox

from .expected_requests import ROWS

# Name, method, path, effect, budget, scope, envelope, paging; a dash for none.
TABLE = """
contacts.create POST /contacts once default contact_write data -
contacts.get GET /contacts/{} safe default contact_read data -
contacts.find_by_email GET /contacts safe default contact_read data link_header
contacts.find_by_external_id GET /contacts safe default contact_read data -
contacts.update PATCH /contacts/{} idempotent default contact_write data -
contacts.update_by_external_id PATCH /contacts/normalize idempotent default contact_write data -
contacts.delete DELETE /contacts/{} idempotent default contact_write ok -
contacts.add_timeline_event POST /contacts/timeline once default contact_write data -
contacts.attributes GET /contacts/attributes safe default all_contact_read data -
contacts.unsubscribe POST /emails/unsubscribe idempotent default contact_write ok -
users.get GET /users/{} safe default user_read data -
users.get_many GET /users safe default user_read data -
users.all GET /users/list safe default user_read data -
users.update PATCH /users/update idempotent default user_write data -
users.meetings GET /users/meetings/org safe default user_read data -
conversations.get GET /conversations/{} safe default conversation_read data -
conversations.all GET /conversations/list safe default conversation_read data links
conversations.create POST /conversations/new once default conversation_write bare -
conversations.stats GET /conversations/stats safe default conversation_read bare -
conversations.transcript GET /conversations/{}/transcript safe default conversation_read text -
conversations.json_transcript GET /conversations/{}/json_transcript \
 safe default conversation_read data -
conversations.create_message POST /conversations/{}/messages \
 once default conversation_write data -
conversations.messages GET /conversations/{}/messages \
 safe default conversation_read data pagination
conversations.attachment GET /attachments/{}/data safe default conversation_read bytes -
reports.conversations POST /reports/conversations safe reports conversation_read bare -
accounts.create POST /accounts/create once default account_write data -
accounts.get GET /accounts/{} safe default account_read data -
accounts.all GET /accounts safe default account_read data next_url
accounts.update PATCH /accounts/update idempotent default account_write data -
accounts.delete DELETE /accounts/{} idempotent default account_write ok -
playbooks.all GET /playbooks/list safe default playbook_read bare -
playbooks.landing_pages GET /playbooks/clp safe default playbook_read bare -
teams.all GET /teams/org safe default user_read data -
teams.of_user GET /teams/users/{} safe default user_read data -
app.token_info POST /app/token_info safe default - bare -
app.uninstall POST /app/uninstall idempotent default - ok -
gdpr.retrieve POST /gdpr/retrieve once default gdpr_read data -
gdpr.delete POST /gdpr/delete idempotent default gdpr_write data -
scim.all GET /scim/Users safe default - bare scim
scim.get GET /scim/Users/{} safe default - bare -
scim.create POST /scim/Users once default - bare -
scim.replace PUT /scim/Users/{} idempotent default - bare -
scim.update PATCH /scim/Users/{} idempotent default - bare -
scim.delete DELETE /scim/Users/{} idempotent default - none -
oauth.authorize_url GET /authorize safe default - none -
oauth.exchange POST /oauth2/token once default - bare -
oauth.refresh POST /oauth2/token once default - bare -
"""
EXPECTED = {name: rest for name, *rest in map(str.split, TABLE.strip().splitlines())}
ROUTE_ONLY = {
    "contacts.add_tags",
    "contacts.remove_tag",
    "contacts.remove_tags",
    "reports.conversation_summary",
}
ELSEWHERE = ("events.", "segmentstream.")  # what other clients than `Drift` call
WITHOUT_OPERATION = {  # built on others, or without a request
    "conversations.download_attachment",
    "contacts.upsert",
    "oauth.code_from",
    "oauth.auth",
}
SHARED = json.loads((Path(__file__).parent / "sandbox/operations.json").read_text("utf-8"))
GROUPS: dict[str, type] = {
    **{name: type(getattr(drift_async.Drift("token"), name)) for name in client.GROUPS},
    "oauth": drift_async.OAuth,
}


def endpoints() -> dict[str, Endpoint[Any]]:
    """Return all rows, as module and constant: contacts.find_by_email."""
    found = {}
    modules = {
        one.name: import_module(f"drift_async.resources.{one.name}")
        for one in pkgutil.iter_modules(resources.__path__)
    }
    for group, module in {**modules, "oauth": auth}.items():
        for name, value in vars(module).items():
            if isinstance(value, Endpoint):
                found[f"{group}.{name.lower()}"] = value
    return found


ENDPOINTS = endpoints()


def test_there_are_47_operations_and_each_has_one_row() -> None:
    assert len(EXPECTED) == 47
    assert ENDPOINTS.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_row_says_what_the_documentation_says(name: str) -> None:
    row = ENDPOINTS[name]
    path = re.sub(r"\{\w+\}", "{}", row.template)
    said = (row.method, path, row.effect, row.budget, row.scope, row.envelope, row.pages)
    assert [word or "-" for word in said] == EXPECTED[name]


def test_the_sandbox_answers_every_operation_and_has_the_same_table() -> None:
    routes = {
        one.name: [one.method, re.sub(r"\{\w+\}", "{}", one.path), one.budget, one.scope or "-"]
        for one in Sandbox().operations
        if not one.name.startswith(ELSEWHERE)
    }
    assert routes.keys() == EXPECTED.keys() | ROUTE_ONLY
    for name, (method, path, _, budget, scope, *_) in EXPECTED.items():
        assert routes[name] == [method, path, budget, scope], name


def test_the_list_of_operations_for_the_sandbox_agrees() -> None:
    listed = {
        one["operation"]: [
            one["method"],
            re.sub(r"\{\w+\}", "{}", one["path"]),
            one["effect"],
            one["scope"] or "-",
            one["envelope"] or "none",
        ]
        for one in SHARED
        if not one["operation"].startswith(ELSEWHERE)
    }
    assert listed.keys() == EXPECTED.keys() | ROUTE_ONLY
    for name, (method, path, effect, _, scope, envelope, _) in EXPECTED.items():
        assert listed[name] == [method, path, effect, scope, envelope], name


@pytest.mark.parametrize("name", EXPECTED)
def test_an_operation_has_a_method_that_says_what_it_returns(name: str) -> None:
    group, method = name.split(".")
    returned = typing.get_type_hints(getattr(GROUPS[group], method))["return"]
    promised = ENDPOINTS[name].returns
    if ENDPOINTS[name].pages or method == "all":
        (promised,) = typing.get_args(promised)
        assert typing.get_origin(returned) in (Pager, list)
        assert typing.get_args(returned) == (promised,)
    elif typing.get_origin(promised) is dict:  # keyed by text on the wire, by id for the user
        promised = typing.get_args(promised)[1]
        assert returned == dict[int, promised]  # type: ignore[valid-type]
    elif name == "conversations.json_transcript":
        assert returned is drift_async.Transcript
        promised = returned
    else:
        assert returned == promised
        promised = (typing.get_args(promised) or (promised,))[0]
    plain = {
        "conversations.transcript": str,
        "conversations.attachment": bytes,
        "oauth.authorize_url": str,
    }
    if promised not in (plain.get(name), type(None)):
        assert getattr(drift_async, promised.__name__) is promised
        assert getattr(drift_async.sync, promised.__name__) is promised


def test_a_method_has_an_operation() -> None:
    methods = {
        f"{group}.{name}"
        for group, kind in GROUPS.items()
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    assert all(issubclass(kind, Resource | Client) for kind in GROUPS.values())
    many = {name for name in methods - EXPECTED.keys() if name.endswith("_many")}
    assert len(many) == 5
    assert {name.removesuffix("_many") for name in many} <= methods
    assert methods - many == EXPECTED.keys() | WITHOUT_OPERATION


def test_the_client_has_every_group_on_both_faces() -> None:
    for face in (drift_async, drift_async.sync):
        drift, oauth = face.Drift("t" * 30), face.OAuth("id", "secret")
        for name in EXPECTED:
            group, method = name.split(".")
            assert callable(getattr(oauth if group == "oauth" else getattr(drift, group), method))


def test_every_operation_has_its_requests_written_down() -> None:
    elsewhere = {name for name in EXPECTED.keys() | WITHOUT_OPERATION if name.startswith("oauth.")}
    elsewhere |= {"conversations.download_attachment"}  # these have test files of their own
    written = {row.call for row in ROWS} - {"request"}
    assert written == (EXPECTED.keys() | WITHOUT_OPERATION) - elsewhere


def test_every_once_operation_names_the_read_that_settles_it() -> None:
    generic = Endpoint("POST", "/x", str, effect="once").settle
    for name, row in ENDPOINTS.items():
        if row.effect == "once":
            assert row.settle != generic, name


def test_a_row_that_is_not_a_get_must_say_its_effect() -> None:
    with pytest.raises(TypeError):
        Endpoint("POST", "/x", str)
