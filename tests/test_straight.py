"""Readers written for the keys of rows: the same result as cattrs' own, whatever rows come."""

from __future__ import annotations

import json
import random
from types import GenericAlias
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_async.core import codec, straight
from drift_async.core.converter import structure
from drift_async.core.endpoint import Reply
from drift_async.core.models import Model, model, to_json
from drift_async.core.straight import StraightReader
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


def fresh(kind: type[Model]) -> StraightReader:
    """Return a reader that has not read anything."""
    reader = codec._converter(detailed=False).get_structure_hook(kind)
    assert isinstance(reader, StraightReader)
    return reader


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in ROW.items() if key not in keys}


def read_alike(rows: list[Any], read_all: Any) -> None:
    """Hold what is read to cattrs' detailed pass, which goes field by field."""
    try:
        expected = codec._DETAILED.structure(rows, many(Conversation))
    except Exception:  # whatever cattrs raises
        with pytest.raises((ValueError, TypeError, OverflowError)):
            read_all(rows)
        return
    result = read_all(rows)
    assert result == expected
    for one, other, row in zip(result, expected, rows, strict=True):
        assert type(one) is Conversation
        assert all(type(tag) is ConversationTag for tag in one.conversation_tags or ())
        assert one._nulls == other._nulls
        assert to_json(one) == row


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


@pytest.mark.parametrize("shapes", [0, 2, 32])
@given(rows=ROWS, spoiled=st.none() | SPOILED)
def test_any_rows_read_as_cattrs_reads_them(
    shapes: int, rows: list[dict[str, Any]], spoiled: tuple[int, str, Any] | None
) -> None:
    if spoiled and rows:
        n, key, value = spoiled
        rows[n % len(rows)][key] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(straight, "MOST_SHAPES", shapes)
        read_alike(rows, READERS[shapes].read_all)


READERS = {shapes: fresh(Conversation) for shapes in (0, 2, 32)}


@pytest.mark.parametrize("key", ROW)
def test_a_wrong_type_in_one_of_many_rows_is_named(key: str) -> None:
    for wrong in WRONG:
        rows = [ROW | {"id": n} for n in range(40)]
        rows[31] = rows[31] | {key: wrong}
        reply = Reply(200, {}, json.dumps({"data": rows}).encode())
        try:
            codec._DETAILED.structure(rows[31], Conversation)
        except Exception:  # whatever cattrs raises
            with pytest.raises(DecodeError) as caught:
                ALL.decode(reply)
            assert caught.value.path.startswith("$.data[31].")
        else:
            assert to_json(ALL.decode(reply)[31]) == rows[31]


def test_true_is_no_number_in_any_row() -> None:
    for key in ("id", "contactId", "createdAt", "participants"):
        for shape in (ROW, without("orgId"), ROW | UNKNOWN):
            bad = shape | {key: [True] if key == "participants" else True}
            with pytest.raises(codec.StructureError, match="got bool"):
                structure([shape, bad], many(Conversation))


@pytest.mark.parametrize("bad", [None, 7, True, "ab", "", [], [1, 2], ["name", "color"], {1, 2}])
def test_what_is_no_map_is_no_row(bad: Any) -> None:
    good = {"name": "a", "color": "b"}  # two keys, as many as some of these have items
    for rows in ([bad], [good, bad], [{}, bad], [good, bad, good]):
        with pytest.raises((ValueError, TypeError)):
            fresh(ConversationTag).read_all(rows)
        with pytest.raises(codec.StructureError, match=rf"\$\[{rows.index(bad)}\].*expected map"):
            structure(rows, many(ConversationTag))


def test_the_order_of_keys_does_not_matter() -> None:
    reader, keys = fresh(Conversation), list(ROW)
    reader.read_all([ROW])
    for seed in range(10):
        random.Random(seed).shuffle(keys)
        assert to_json(reader({key: ROW[key] for key in keys})) == ROW
    assert len(reader._shapes) == 1


def test_a_reader_is_written_for_so_many_sets_of_keys_and_no_more() -> None:
    reader = fresh(Conversation)
    shapes = [ROW | {f"new{n}": n} for n in range(3 * straight.MOST_SHAPES)]
    for _ in range(2):
        for row in shapes:
            assert to_json(reader(row)) == row
        assert len(reader._shapes) == straight.MOST_SHAPES
    assert [to_json(one) for one in reader.read_all(shapes)] == shapes


@pytest.mark.parametrize("shapes", [0, 32])
def test_what_is_beyond_the_limit_is_as_strict(
    monkeypatch: pytest.MonkeyPatch, shapes: int
) -> None:
    monkeypatch.setattr(straight, "MOST_SHAPES", shapes)
    reader = fresh(Conversation)
    for row in ({}, without("id"), {"id": None}, {"id": True}, ROW | {"participants": [True]}):
        with pytest.raises(ValueError, match=r"^$"):
            reader(row)
    assert reader(without("createdAt")).created_at is None
    assert (reader._shapes == {}) is (shapes == 0)


def test_long_keys_are_read_but_not_kept() -> None:
    reader = fresh(Conversation)
    for long in ({"x" * 2_000: 1}, {f"key{n}": n for n in range(1_000)}):
        assert to_json(reader(ROW | long)) == ROW | long
    assert reader._shapes == {}


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
            assert to_json(fresh(Conversation)(row)) == row


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
    (branch,) = fresh(Branch).read_all([row])
    assert to_json(branch) == row
    assert branch == codec._DETAILED.structure(row, Branch)
    held = [*branch.leaves, branch.leaf, *branch.talks, branch.talk]
    assert {type(one) for one in held} == {Leaf, Conversation}
    for one in held:
        with pytest.raises(AttributeError):
            one.extra = None


def test_a_word_that_is_not_known_is_kept() -> None:
    one, other = fresh(Conversation).read_all([ROW | {"status": "parked"}, ROW])
    assert (str(one.status), other.status) == ("parked", ConversationStatus.OPEN)
    assert type(one.status) is ConversationStatus


def test_one_model_is_read_like_a_list_of_one() -> None:
    row = {"id": 1, "createdAt": 1709652334027, "new": None}
    assert fresh(Message)(row) == fresh(Message).read_all([row])[0]


def test_what_a_user_adds_is_the_models_own() -> None:
    mine = {"new": {"a": [1]}}
    one = Leaf(name="a", extra=mine)
    mine["new"] = {}
    assert one.extra == {"new": {"a": [1]}} == fresh(Leaf)({"name": "a", "new": {"a": [1]}}).extra
    assert Leaf(extra=one.extra).extra == one.extra
    assert Leaf().extra == {}
    with pytest.raises(AttributeError):
        one.extra.update(b=1)  # type: ignore[attr-defined]  # that there is no such method
