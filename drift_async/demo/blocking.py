"""The job on the blocking face. Its twin is awaited.py; only `each` differs beside the law."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import attrs

from ..core.batch import cut
from ..sync import Contact, Conversation, Drift
from .people import BATCH, Person
from .report import Difference, Log, OpenJob, Walked, compare

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = 8


@attrs.frozen
class Blocking:
    """The job on the blocking face."""

    drift: Drift
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
        with self.log.job("create", len(self.people)) as job:
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
        with self.log.job("walk") as job:
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
        with self.log.job("update", len(contacts)) as job:
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
        batches = list(cut((person.external_id for person in self.people), BATCH))
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
