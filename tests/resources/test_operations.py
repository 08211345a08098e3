"""Every operation of the API has a row, a method, a route in the sandbox and a model."""

from __future__ import annotations

import inspect
import json
import re
import typing
from pathlib import Path

import pytest

import drift_async
import drift_async.sync
from drift_async import client
from drift_async.core.endpoint import Endpoint, Resource
from drift_async.core.life import Client
from drift_async.core.pager import Pager
from drift_async.sandbox import Sandbox
from tests.support.expected_requests import ROWS
from tests.support.operations import ENDPOINTS, EXPECTED

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
SHARED = json.loads((Path(__file__).parents[1] / "sandbox/operations.json").read_text("utf-8"))
GROUPS: dict[str, type] = {
    **{name: type(getattr(drift_async.Drift("token"), name)) for name in client.GROUPS},
    "oauth": drift_async.OAuth,
}


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
