"""Generated readers of models: strict about types, whatever rows come, and exact about places."""

from __future__ import annotations

import json
from types import GenericAlias
from typing import Any, cast

import attrs
import pytest
from hypothesis import given, strategies as st

from drift_async.core.converter import ModelReader, StructureError, converter, structure
from drift_async.core.models import Model, from_json, model, to_json
from drift_async.core.request import Response
from drift_async.errors import DecodeError
from drift_async.resources.conversations import (
    ALL,
    Conversation,
    ConversationStatus,
    ConversationTag,
)
from drift_async.resources.messages import Message

pytestmark = pytest.mark.smoke

ROW: dict[str, Any] = {
    "id": 7,
    "orgId": 1,
    "status": "open",
    "contactId": 2,
    "inboxId": 3,
    "participants": [4, 5],
    "conversationTags": [{"name": "sales", "color": "EBEBEB"}, {"name": "new", "color": None}],
    "relatedPlaybookId": 6,
    "createdAt": 1709652334027,
    "updatedAt": -1,
}
UNKNOWN: dict[str, Any] = {
    "visitorLanguage": "en",
    "": None,
    "model": [1],
    "row['id']\n#": {"a": 1},
}
WRONG: tuple[Any, ...] = (
    True,
    1.5,
    "1",
    [],
    {},
    [True],
    [None],
    [{}],
    [{"name": 1}],
    [[]],
    {"id": 1},
)
WRONG += (10**18,)


def many(kind: type[Model]) -> Any:
    return GenericAlias(tuple, (kind, ...))


def reader(kind: type[Model]) -> ModelReader:
    hook = converter.get_structure_hook(kind)
    assert isinstance(hook, ModelReader)
    return hook


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in ROW.items() if key not in keys}


def fault(row: dict[str, Any]) -> str | None:
    """Return the place of the first field with a wrong type; None if there is none."""
    for key, name in NAMES.items():
        if key not in row:
            if key == "id":
                return ".id"
            continue
        value = row[key]
        if value is None:
            if key == "id":
                return ".id"
        elif key == "status":
            if type(value) is not str:
                return ".status"
        elif key in ("participants", "conversationTags"):
            if type(value) is not list:
                return f".{name}"
            for n, item in enumerate(value):
                if key == "participants" and type(item) is not int:
                    return f".{name}[{n}]"
                if key == "conversationTags" and (wrong := tag_fault(item)) is not None:
                    return f".{name}[{n}]{wrong}"
        elif type(value) is not int:
            return f".{name}"
    for key in ("createdAt", "updatedAt"):  # times are made when all rows are read
        if abs(row.get(key) or 0) > 10**15:
            return f".{NAMES[key]}"
    return None


def tag_fault(tag: Any) -> str | None:
    if type(tag) is not dict:
        return ""
    wrong = [key for key in ("name", "color") if type(tag.get(key)) not in (str, type(None))]
    return f".{wrong[0]}" if wrong else None


NAMES = {
    "id": "id",
    "orgId": "org_id",
    "status": "status",
    "contactId": "contact_id",
    "inboxId": "inbox_id",
    "participants": "participants",
    "conversationTags": "conversation_tags",
    "relatedPlaybookId": "related_playbook_id",
    "createdAt": "created_at",
    "updatedAt": "updated_at",
}


def test_the_names_are_those_of_the_class_in_its_order() -> None:
    fields = [field.name for field in attrs.fields(cast(Any, Conversation))]
    assert fields[2:] == list(NAMES.values())


ROWS = st.lists(
    st.fixed_dictionaries(
        {"id": st.just(7)},
        optional={
            **{key: st.sampled_from([value, None]) for key, value in ROW.items() if key != "id"},
            **{key: st.just(value) for key, value in UNKNOWN.items()},
        },
    ).flatmap(lambda row: st.permutations(list(row.items())).map(dict)),
    max_size=6,
)
SPOILED = st.tuples(st.integers(0, 5), st.sampled_from([*ROW, "new"]), st.sampled_from(WRONG))


@given(rows=ROWS, spoiled=st.none() | SPOILED)
def test_rows_are_read_as_they_came_or_the_fault_is_named(
    rows: list[dict[str, Any]], spoiled: tuple[int, str, Any] | None
) -> None:
    n = 0
    if spoiled and rows:
        n, key, value = spoiled
        n %= len(rows)
        rows[n][key] = value
    before = json.dumps(rows)
    place = fault(rows[n]) if rows else None
    if place is not None:
        with pytest.raises(StructureError) as caught:
            structure(rows, many(Conversation))
        assert caught.value.path == f"$[{n}]{place}"
    else:
        result = structure(rows, many(Conversation))
        for one, row in zip(result, rows, strict=True):
            assert type(one) is Conversation
            assert all(type(tag) is ConversationTag for tag in one.conversation_tags or ())
            assert to_json(one) == row
    assert json.dumps(rows) == before


@pytest.mark.parametrize("key", ROW)
def test_a_wrong_type_in_one_of_many_rows_is_named(key: str) -> None:
    for wrong in WRONG:
        rows = [ROW | {"id": n} for n in range(40)]
        rows[31] = rows[31] | {key: wrong}
        reply = Response(200, {}, json.dumps({"data": rows}).encode())
        place = fault(rows[31])
        if place is None:
            assert to_json(ALL.parse(reply)[31]) == rows[31]
        else:
            with pytest.raises(DecodeError) as caught:
                ALL.parse(reply)
            assert caught.value.path == f"$.data[31]{place}"


def test_true_is_no_number_in_any_row() -> None:
    for key in ("id", "contactId", "createdAt", "participants"):
        for shape in (ROW, without("orgId"), ROW | UNKNOWN):
            bad = shape | {key: [True] if key == "participants" else True}
            with pytest.raises(StructureError, match="got bool"):
                structure([shape, bad], many(Conversation))


@pytest.mark.parametrize("bad", [None, 7, True, "ab", "", [], [1, 2], ["name", "color"], {1, 2}])
def test_what_is_no_map_is_no_row(bad: Any) -> None:
    good = {"name": "a", "color": "b"}  # two keys, as many as some of these have items
    for rows in ([bad], [good, bad], [{}, bad], [good, bad, good]):
        with pytest.raises(StructureError, match=rf"\$\[{rows.index(bad)}\].*expected map"):
            structure(rows, many(ConversationTag))


def test_every_time_of_the_calendar_is_read_and_no_other() -> None:
    rows = [ROW | {"id": n} for n in range(3)]
    for wrong in (10**18, -(10**18), 10**400):
        rows[1] = ROW | {"updatedAt": wrong}
        with pytest.raises(StructureError, match="calendar") as caught:
            structure(rows, many(Conversation))
        assert caught.value.path == "$[1].updated_at"


def test_what_a_server_calls_a_field_is_never_code() -> None:
    for key in (
        "id']; raise SystemExit #",
        "unknown_0",
        "{name}",
        "\n",
        "'''",
        '"""',
        "\\",
        "é",
        "\0",
    ):
        for row in ({"id": 7, key: 1}, {"id": 7, key: {key: [key]}, key + key: None}):
            assert to_json(structure(row, Conversation)) == row


@model
class Leaf(Model):
    """Has no times, and nothing that must be there."""

    name: str | None = None


@model
class Branch(Model):
    """Holds models with times and without."""

    name: str
    leaves: tuple[Leaf, ...] | None = None
    leaf: Leaf | None = None
    talks: tuple[Conversation, ...] | None = None
    talk: Conversation | None = None


def test_models_in_models_are_done_and_frozen() -> None:
    row = {"name": "a", "leaves": [{"name": "b"}, {}, {"new": 1}, {"name": None}], "leaf": {}}
    row |= {"talks": [ROW, without("createdAt"), ROW | UNKNOWN], "talk": ROW}
    (branch,) = reader(Branch).read_all([row])
    assert to_json(branch) == row
    held = [*branch.leaves, branch.leaf, *branch.talks, branch.talk]
    assert {type(one) for one in held} == {Leaf, Conversation}
    for one in held:
        with pytest.raises(AttributeError):
            one.extra = None


def test_a_word_that_is_not_known_is_kept() -> None:
    one, other = reader(Conversation).read_all([ROW | {"status": "parked"}, ROW])
    assert (str(one.status), other.status) == ("parked", ConversationStatus.OPEN)
    assert type(one.status) is ConversationStatus


def test_one_model_is_read_like_a_list_of_one() -> None:
    row = {"id": 1, "createdAt": 1709652334027, "new": None}
    assert structure(row, Message) == reader(Message).read_all([row])[0]


def test_what_a_user_adds_is_the_models_own() -> None:
    mine = {"new": {"a": [1]}}
    one = Leaf(name="a", extra=mine)
    mine["new"] = {}
    assert (
        one.extra == {"new": {"a": [1]}} == from_json(Leaf, {"name": "a", "new": {"a": [1]}}).extra
    )
    assert Leaf(extra=one.extra).extra == one.extra
    assert Leaf().extra == {}
    with pytest.raises(AttributeError):
        one.extra.update(b=1)  # type: ignore[attr-defined]  # that there is no such method
