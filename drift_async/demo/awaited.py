"""The job on the awaited face. Its twin is blocking.py; only `each` differs beside the law."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import attrs

from .. import Contact, Conversation, Drift
from ..core.batch import cut
from .people import BATCH, Person
from .report import Difference, Log, OpenJob, Walked, compare

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = 8


@attrs.frozen
class Awaited:
    """The job on the awaited face."""

    drift: Drift
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
        with self.log.job("create", len(self.people)) as job:
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
        with self.log.job("walk") as job:
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
        with self.log.job("update", len(contacts)) as job:
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
        batches = list(cut((person.external_id for person in self.people), BATCH))
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
