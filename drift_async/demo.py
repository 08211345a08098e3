"""The main job of this library from end to end, on both faces, against a sandbox.

Contacts come out of a CSV file and are created; every conversation is read, with its messages and
its transcript; the contacts are updated, and read back by their external ids. `Awaited` and
`Blocking` are the same program twice: delete ``async`` and ``await`` from one, and you have the
other. Only `each` differs, in which a few tasks or a few threads share the items.
"""

from __future__ import annotations

import asyncio
import csv
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol, TypeVar

import attrs
from anyio.from_thread import start_blocking_portal

import drift_async
import drift_async.sync

from .errors import InputError
from .resources.contacts import Contact
from .resources.conversations import Conversation
from .sandbox import Sandbox

Item = TypeVar("Item")
Result = TypeVar("Result")

CONTACTS: Final = 2_000
CONVERSATIONS: Final = 500
WORKERS: Final = 8
BATCH: Final = 50  # as many external ids fit into one request

FIRST_NAMES: Final = ("Ada", "José", "Zoë", "Łukasz", "Søren", "Олена", "美咲", "Ngọc", "أمل")
LAST_NAMES: Final = ("Müller", "O'Neil", "García", "Øst", "田中", "Παππάς", "de la Cruz")
PLANS: Final = ("free", "team", "größer")
NEXT_PLAN: Final = {"free": "team", "team": "größer", "größer": "größer"}
FIRST_DAY: Final = date(2021, 1, 1)
LAST_SEEN: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Box(Protocol):
    """What the demo needs of a sandbox: where it is, and how many requests have come in."""

    @property
    def env(self) -> dict[str, str]: ...
    @property
    def count(self) -> int: ...


class Progress(Protocol):
    """Is told of each item that is done: face, job, items done, and items in all, if known."""

    def __call__(self, face: str, job: str, done: int, total: int | None) -> None: ...


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
        """What the contact is created with, beside e-mail and external id."""
        return {
            "name": self.name,
            "plan": self.plan,
            "seats": self.seats,
            "signed_up": self.signed_up,
        }

    @property
    def changes(self) -> dict[str, Any]:
        """What the contact is updated with."""
        seen = LAST_SEEN + timedelta(minutes=self.seats)
        return {"plan": NEXT_PLAN[self.plan], "last_seen": round(seen.timestamp() * 1000)}

    @property
    def expected(self) -> dict[str, Any]:
        """What the contact must hold in the end."""
        named = {"email": self.email, "externalId": self.external_id}
        return {**named, **self.attributes, **self.changes}


@attrs.frozen
class Difference:
    """A field of a record that was not read back as it was sent; the values are not shown."""

    record: str
    field: str


@attrs.frozen
class Job:
    """One thing done on one face: how many items, in how many requests and seconds."""

    face: str
    name: str
    items: Mapping[str, int]
    requests: int
    seconds: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@attrs.frozen
class Report:
    """What the demo did, and what was not read back as it was sent."""

    contacts: int
    jobs: tuple[Job, ...]
    differences: tuple[Difference, ...]

    @property
    def totals(self) -> tuple[Job, ...]:
        """All jobs of a face as one, for each face."""
        faces = dict.fromkeys(job.face for job in self.jobs)
        return tuple(_total([job for job in self.jobs if job.face == face]) for face in faces)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {
            "contacts": self.contacts,
            "equal": not self.differences,
            "differences": [attrs.asdict(one) for one in self.differences],
            "jobs": [_as_json(job) for job in self.jobs],
            "totals": [_as_json(job) for job in self.totals],
        }


def run_demo(
    contacts: int = CONTACTS, sandbox: Box | None = None, progress: Progress | None = None
) -> Report:
    """Do the main job on the awaited face, then on the blocking one, and return the report.

    *contacts* are imported on each face. Without an open *sandbox*, which must run on another
    thread, one is started. Errors of the library are raised as they are.
    """
    if contacts < 1:
        raise InputError("contacts", "must be at least 1")
    jobs: list[Job] = []
    differences: list[Difference] = []
    with nullcontext(sandbox) if sandbox else start_sandbox() as box:
        for face, do in (("awaited", do_awaited), ("blocking", do_blocking)):
            people = through_a_file(make_people(face, contacts))
            log = Log(face, box, progress)
            differences += do(people, log, box.env)
            jobs += log.jobs
    return Report(contacts, tuple(jobs), tuple(differences))


@contextmanager
def start_sandbox() -> Iterator[Sandbox]:
    """Start a sandbox on a thread of its own, so that neither face has to share its loop."""
    sandbox = Sandbox(conversations=CONVERSATIONS)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(sandbox) as box,
    ):
        yield box


# The job, on either face.


def do_awaited(people: list[Person], log: Log, env: Mapping[str, str]) -> list[Difference]:
    """Do the job on the awaited face."""

    async def main() -> list[Difference]:
        async with drift_async.Drift.from_env(env) as drift:
            return await Awaited(drift, people, log).run()

    return asyncio.run(main())


def do_blocking(people: list[Person], log: Log, env: Mapping[str, str]) -> list[Difference]:
    """Do the job on the blocking face."""
    with drift_async.sync.Drift.from_env(env) as drift:
        return Blocking(drift, people, log).run()


@attrs.frozen
class Awaited:
    """The job on the awaited face."""

    drift: drift_async.Drift
    people: list[Person]
    log: Log

    async def run(self) -> list[Difference]:
        """Create, walk, update and read back; return what differs."""
        contacts = await self.create_contacts()
        differences = await self.walk_conversations()
        await self.update_contacts(contacts)
        return differences + await self.read_back(contacts)

    async def create_contacts(self) -> list[Contact]:
        """Create a contact for each of the people; return them in that order."""
        with self.log.job("create contacts", len(self.people)) as job:
            contacts = await self.each(self.create_contact, self.people, job)
            job.count(created=len(contacts))
        return contacts

    async def create_contact(self, person: Person) -> Contact:
        """Create one contact."""
        return await self.drift.contacts.create(
            person.email, external_id=person.external_id, attributes=person.attributes
        )

    async def walk_conversations(self) -> list[Difference]:
        """Read every conversation, a page of them at a time."""
        differences: list[Difference] = []
        with self.log.job("walk conversations") as job:
            async for page in self.drift.conversations.all().pages():
                for walked in await self.each(self.walk_conversation, page.items, job):
                    job.count(conversations=1, messages=walked.messages, transcripts=1)
                    differences += walked.differences()
        return differences

    async def walk_conversation(self, conversation: Conversation) -> Walked:
        """Read the messages and the transcript of one conversation."""
        messages = await self.drift.conversations.messages(conversation.id).collect()
        transcript = await self.drift.conversations.transcript(conversation.id)
        return Walked(conversation.id, len(messages), len(transcript.splitlines()))

    async def update_contacts(self, contacts: list[Contact]) -> None:
        """Give every contact its changes."""
        with self.log.job("update contacts", len(contacts)) as job:
            pairs = list(zip(self.people, contacts, strict=True))
            updated = await self.each(self.update_contact, pairs, job)
            job.count(updated=len(updated))

    async def update_contact(self, pair: tuple[Person, Contact]) -> Contact:
        """Give one contact its changes."""
        person, contact = pair
        return await self.drift.contacts.update(contact.id, person.changes)

    async def read_back(self, contacts: list[Contact]) -> list[Difference]:
        """Find every contact by its external id, and compare it with what was sent."""
        found: dict[int, Contact] = {}
        batches = in_batches([person.external_id for person in self.people])
        with self.log.job("read back", len(batches)) as job:
            for batch in await self.each(self.find_contacts, batches, job):
                job.count(found=len(batch))
                found.update((contact.id, contact) for contact in batch)
        return compare(self.people, contacts, found)

    async def find_contacts(self, external_ids: list[str]) -> list[Contact]:
        """Find as many contacts as fit into one request."""
        return await self.drift.contacts.find_by_external_id(*external_ids)

    async def each(
        self, work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], job: OpenJob
    ) -> list[Result]:
        """Return the results of *work*, done by a few tasks that share one iterator."""
        rest = enumerate(items)
        results: dict[int, Result] = {}

        async def worker() -> None:
            for number, item in rest:
                results[number] = await work(item)
                job.step()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(worker())
        except ExceptionGroup as errors:  # the first of them says enough
            raise errors.exceptions[0] from None
        return [results[number] for number in sorted(results)]


@attrs.frozen
class Blocking:
    """The job on the blocking face."""

    drift: drift_async.sync.Drift
    people: list[Person]
    log: Log

    def run(self) -> list[Difference]:
        """Create, walk, update and read back; return what differs."""
        contacts = self.create_contacts()
        differences = self.walk_conversations()
        self.update_contacts(contacts)
        return differences + self.read_back(contacts)

    def create_contacts(self) -> list[Contact]:
        """Create a contact for each of the people; return them in that order."""
        with self.log.job("create contacts", len(self.people)) as job:
            contacts = self.each(self.create_contact, self.people, job)
            job.count(created=len(contacts))
        return contacts

    def create_contact(self, person: Person) -> Contact:
        """Create one contact."""
        return self.drift.contacts.create(
            person.email, external_id=person.external_id, attributes=person.attributes
        )

    def walk_conversations(self) -> list[Difference]:
        """Read every conversation, a page of them at a time."""
        differences: list[Difference] = []
        with self.log.job("walk conversations") as job:
            for page in self.drift.conversations.all().pages():
                for walked in self.each(self.walk_conversation, page.items, job):
                    job.count(conversations=1, messages=walked.messages, transcripts=1)
                    differences += walked.differences()
        return differences

    def walk_conversation(self, conversation: Conversation) -> Walked:
        """Read the messages and the transcript of one conversation."""
        messages = self.drift.conversations.messages(conversation.id).collect()
        transcript = self.drift.conversations.transcript(conversation.id)
        return Walked(conversation.id, len(messages), len(transcript.splitlines()))

    def update_contacts(self, contacts: list[Contact]) -> None:
        """Give every contact its changes."""
        with self.log.job("update contacts", len(contacts)) as job:
            pairs = list(zip(self.people, contacts, strict=True))
            updated = self.each(self.update_contact, pairs, job)
            job.count(updated=len(updated))

    def update_contact(self, pair: tuple[Person, Contact]) -> Contact:
        """Give one contact its changes."""
        person, contact = pair
        return self.drift.contacts.update(contact.id, person.changes)

    def read_back(self, contacts: list[Contact]) -> list[Difference]:
        """Find every contact by its external id, and compare it with what was sent."""
        found: dict[int, Contact] = {}
        batches = in_batches([person.external_id for person in self.people])
        with self.log.job("read back", len(batches)) as job:
            for batch in self.each(self.find_contacts, batches, job):
                job.count(found=len(batch))
                found.update((contact.id, contact) for contact in batch)
        return compare(self.people, contacts, found)

    def find_contacts(self, external_ids: list[str]) -> list[Contact]:
        """Find as many contacts as fit into one request."""
        return self.drift.contacts.find_by_external_id(*external_ids)

    def each(
        self, work: Callable[[Item], Result], items: Iterable[Item], job: OpenJob
    ) -> list[Result]:
        """Return the results of *work*, done by a few threads that share one client."""
        results: list[Result] = []
        with ThreadPoolExecutor(WORKERS) as pool:
            for result in pool.map(work, items):  # an error takes back what has not begun
                results.append(result)
                job.step()
        return results


@attrs.frozen
class Walked:
    """A conversation that was read: its messages, and the lines of its transcript."""

    id: int
    messages: int
    lines: int

    def differences(self) -> list[Difference]:
        """The transcript has a line for each message."""
        if self.messages == self.lines:
            return []
        return [Difference(f"conversation {self.id}", "transcript")]


def compare(
    people: list[Person], contacts: list[Contact], found: Mapping[int, Contact]
) -> list[Difference]:
    """Return the fields in which what was found is not what was sent; of a lost one, all."""
    differences = []
    for person, contact in zip(people, contacts, strict=True):
        read = found[contact.id].attributes if contact.id in found else {}
        for field, sent in person.expected.items():
            got = read.get(field)
            if type(got) is not type(sent) or got != sent:
                differences.append(Difference(person.external_id, field))
    return differences


# The people, and the file they come from.


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


def in_batches(items: list[Item]) -> list[list[Item]]:
    """Return the items in lists that fit into one request."""
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


# Keeping count.


@attrs.frozen
class Log:
    """Keeps the jobs of one face, with the requests that the sandbox has counted."""

    face: str
    box: Box
    progress: Progress | None
    jobs: list[Job] = attrs.field(factory=list, init=False)

    @contextmanager
    def job(self, name: str, total: int | None = None) -> Iterator[OpenJob]:
        """Measure one job, whose steps are *total*, if known."""
        tell = partial(self.progress, self.face, name, total=total) if self.progress else None
        job = OpenJob(tell)
        began, before = time.perf_counter(), self.box.count
        yield job
        seconds = time.perf_counter() - began
        requests = self.box.count - before
        self.jobs.append(Job(self.face, name, dict(job.items), requests, seconds))


@attrs.define
class OpenJob:
    """A job under way: counts its items, and tells of its steps."""

    _tell: Callable[[int], None] | None
    items: Counter[str] = attrs.field(factory=Counter, init=False)
    _steps: int = attrs.field(default=0, init=False)

    def count(self, **items: int) -> None:
        """Add to the items that are done."""
        self.items.update(items)

    def step(self) -> None:
        """Tell that one more step is done."""
        self._steps += 1
        if self._tell is not None:
            self._tell(self._steps)


def _total(jobs: list[Job]) -> Job:
    items = {name: count for job in jobs for name, count in job.items.items()}
    requests = sum(job.requests for job in jobs)
    return Job(jobs[0].face, "total", items, requests, sum(job.seconds for job in jobs))


def _as_json(job: Job) -> dict[str, Any]:
    seconds = round(job.seconds, 3)
    return {**attrs.asdict(job), "seconds": seconds, "requests_per_second": round(job.rate, 1)}
