"""The people that the demo imports, their events, and the CSV file that holds them."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import attrs

from .. import Hit, Identify, NewContact, Track

BATCH: Final = 50  # as many external ids fit into one request
EVENT_BATCH: Final = 500  # people whose events are flushed together

FIRST_NAMES: Final = ("Ada", "José", "Zoë", "Łukasz", "Søren", "Олена", "美咲", "Ngọc", "أمل")
LAST_NAMES: Final = ("Müller", "O'Neil", "García", "Øst", "田中", "Παππάς", "de la Cruz")
PLANS: Final = ("free", "team", "größer")
NEXT_PLAN: Final = {"free": "team", "team": "größer", "größer": "größer"}
FIRST_DAY: Final = date(2021, 1, 1)
LAST_SEEN: Final = datetime(2026, 1, 1, tzinfo=UTC)


@attrs.frozen
class Person:
    """A row of the CSV file."""

    external_id: str
    email: str
    name: str
    plan: str
    seats: int = attrs.field(converter=int)
    signed_up: str

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the new contact, beside e-mail and external id."""
        return {
            "name": self.name,
            "plan": self.plan,
            "seats": self.seats,
            "signed_up": self.signed_up,
        }

    @property
    def new_contact(self) -> NewContact:
        """The contact to create."""
        return NewContact(
            email=self.email, external_id=self.external_id, attributes=self.attributes
        )

    @property
    def changes(self) -> dict[str, Any]:
        """The attributes that the update changes."""
        last_seen = round(self.last_seen.timestamp() * 1000)
        return {"plan": NEXT_PLAN[self.plan], "last_seen": last_seen}

    @property
    def expected(self) -> dict[str, Any]:
        """The attributes that the contact must have in the end."""
        named = {"email": self.email, "externalId": self.external_id}
        return {**named, **self.attributes, **self.changes}

    @property
    def last_seen(self) -> datetime:
        """The time of the last visit."""
        return LAST_SEEN + timedelta(minutes=self.seats)

    @property
    def identity(self) -> Identify:
        """The event that introduces the person to Drift."""
        attributes = {"email": self.email, **self.attributes}
        signed_up = datetime.fromisoformat(self.signed_up).replace(tzinfo=UTC)
        return Identify(user_id=self.external_id, attributes=attributes, created_at=signed_up)

    @property
    def tracks(self) -> Iterator[Track]:
        """The actions of the person, in order."""
        for name, plan, at in (
            ("Signed up", self.plan, self.identity.created_at),
            ("Changed plan", NEXT_PLAN[self.plan], self.last_seen),
        ):
            yield Track(name, user_id=self.external_id, attributes={"plan": plan}, created_at=at)

    @property
    def hits(self) -> Iterator[Hit]:
        """The person's visits, in order; maybe none."""
        for n in range(self.seats % 3):
            yield Hit(
                {"name": "Visited", "label": self.name, "value": n},
                user_id=self.external_id,
                hit_id=f"{self.external_id}-{n}",
                sent_at=self.last_seen + timedelta(seconds=n),
            )


def make_people(face: str, count: int) -> Iterator[Person]:
    """Make up people, the same ones each time."""
    for n in range(count):
        first, last = FIRST_NAMES[n % len(FIRST_NAMES)], LAST_NAMES[n % len(LAST_NAMES)]
        yield Person(
            external_id=f"{face}-{n:05}-{zlib.crc32(f'{face}{n}'.encode()):08x}",
            email=f"{face}.{n}@company{n % 97}.example",
            name=f"{first} {last}",
            plan=PLANS[n % len(PLANS)],
            seats=1 + n % 40,
            signed_up=str(FIRST_DAY + timedelta(days=n % 1800)),
        )


def through_a_file(people: Iterable[Person]) -> list[Person]:
    """Write the people to a CSV file, and return what is read from it."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "contacts.csv")
        write_csv(path, people)
        return read_csv(path)


def write_csv(path: Path, people: Iterable[Person]) -> None:
    """Write a CSV file with a line for each of the people."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in attrs.fields(Person))
        writer.writerows(attrs.astuple(person) for person in people)


def read_csv(path: Path) -> list[Person]:
    """Return the people in a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Person(**row) for row in csv.DictReader(file)]
