"""P6: a page of 100 conversations read into models, against the libraries made for that.

The rows have all documented fields but one, and one field that is not documented. All sides give
the milliseconds of the API as aware datetimes and refuse values of the wrong type; unknown fields
are kept by ours and by pydantic, and dropped by msgspec and cattrs, as those do.
"""

# No postponed annotations here: the peers could not see the classes that theirs refer to.

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import attrs

from drift_async.core.request import Response
from drift_async.resources.conversations import ALL

from .harness import Bench, installed, reading_with, repeated
from .measure import Row, Target, pinned
from .server import CONVERSATIONS

PAGE = json.dumps(
    {"data": [{**item, "visitorLanguage": "en"} for item in CONVERSATIONS], "links": {}},
    separators=(",", ":"),
).encode()
WIRE = {
    "contact_id": "contactId",
    "inbox_id": "inboxId",
    "created_at": "createdAt",
    "updated_at": "updatedAt",
    "conversation_tags": "conversationTags",
    "related_playbook_id": "relatedPlaybookId",
}


def p6(bench: Bench) -> Iterator[Row]:
    """A page into models, with orjson where a side takes a reader of JSON."""
    if not installed("orjson"):
        return
    import orjson

    for name, against, target, make in (
        ("msgspec", "msgspec, datetimes", Target(2.4), with_msgspec),
        ("cattrs", "cattrs as it comes, orjson", Target(0.60), with_cattrs),
        ("pydantic", "pydantic, extra=allow", Target(1.0), with_pydantic),
    ):
        if not installed(name):
            continue
        theirs = make()
        calls = bench.calls(100, 2)
        with pinned(), reading_with(orjson.loads):
            assert_alike(theirs()[99], ours()[99])
            yield bench.compare(
                "P6",
                "page of 100 conversations",
                against,
                target,
                repeated(ours, calls),
                repeated(theirs, calls),
                rounds=60,
                calls=calls,
            )


def ours() -> Any:
    """Read the page as a walk does."""
    return ALL.parse(Response(200, {}, PAGE))


def assert_alike(theirs: Any, ours: Any) -> None:
    """Refuse to compare models that do not hold the same."""
    for name in ("id", "status", "participants", *WIRE):
        one, other = getattr(theirs, name), getattr(ours, name)
        if name == "conversation_tags":
            one, other = [[tag.name for tag in tags] for tags in (one, other)]
        elif name == "participants":
            one, other = list(one), list(other)
        assert one == other, name


def moment(milliseconds: int) -> datetime:
    """Return what a timestamp of the API stands for."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def with_msgspec() -> Callable[[], Any]:
    """Return a reader by msgspec.

    It has no word for milliseconds, so its own hook after the fields are read makes datetimes of
    them. A decoding hook would have to give a class of its own, and takes 1.7 times as long.
    """
    import msgspec

    class Tag(msgspec.Struct):
        name: str | None = None
        color: str | None = None

    class Conversation(msgspec.Struct, rename="camel"):
        id: int
        org_id: int | None = None
        status: str | None = None
        contact_id: int | None = None
        inbox_id: int | None = None
        participants: list[int] | None = None
        conversation_tags: list[Tag] | None = None
        related_playbook_id: int | None = None
        created_at: int | datetime | None = None
        updated_at: int | datetime | None = None

        def __post_init__(self) -> None:
            if isinstance(self.created_at, int):
                self.created_at = moment(self.created_at)
            if isinstance(self.updated_at, int):
                self.updated_at = moment(self.updated_at)

    class Page(msgspec.Struct):
        data: list[Conversation]

    decoder = msgspec.json.Decoder(Page)
    return lambda: decoder.decode(PAGE).data


def with_cattrs() -> Callable[[], Any]:
    """Return a reader by cattrs as its preconfigured converter comes, with detailed validation."""
    from cattrs.gen import make_dict_structure_fn, override
    from cattrs.preconf.orjson import make_converter

    @attrs.define
    class Tag:
        name: str | None = None
        color: str | None = None

    @attrs.define
    class Conversation:
        id: int
        org_id: int | None = None
        status: str | None = None
        contact_id: int | None = None
        inbox_id: int | None = None
        participants: list[int] | None = None
        conversation_tags: list[Tag] | None = None
        related_playbook_id: int | None = None
        created_at: datetime | None = None
        updated_at: datetime | None = None

    @attrs.define
    class Page:
        data: list[Conversation]

    converter = make_converter()
    converter.register_structure_hook(datetime, lambda value, _: moment(value))
    names: dict[str, Any] = {name: override(rename=wire) for name, wire in WIRE.items()}
    converter.register_structure_hook(
        Conversation, make_dict_structure_fn(Conversation, converter, **names)
    )
    return lambda: converter.loads(PAGE, Page).data


def with_pydantic() -> Callable[[], Any]:
    """Return a reader by pydantic, told of the unit of times and to keep unknown fields."""
    from pydantic import BaseModel, ConfigDict
    from pydantic.alias_generators import to_camel

    class Base(BaseModel):
        model_config = ConfigDict(
            extra="allow", alias_generator=to_camel, val_temporal_unit="milliseconds"
        )

    class Tag(Base):
        name: str | None = None
        color: str | None = None

    class Conversation(Base):
        id: int
        org_id: int | None = None
        status: str | None = None
        contact_id: int | None = None
        inbox_id: int | None = None
        participants: list[int] | None = None
        conversation_tags: list[Tag] | None = None
        related_playbook_id: int | None = None
        created_at: datetime | None = None
        updated_at: datetime | None = None

    class Page(Base):
        data: list[Conversation]

    return lambda: Page.model_validate_json(PAGE).data
