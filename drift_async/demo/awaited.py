"""The job on the awaited face. Its twin is blocking.py, by deleting async and await."""

from __future__ import annotations

import attrs

from .. import (
    Contact,
    ContactUpdate,
    Drift,
    DriftEvents,
    Hit,
    Identify,
    SegmentStream,
    Track,
)
from ..core.batch import cut
from .people import BATCH, EVENT_BATCH, Person
from .received import compare_events
from .report import Difference, Log, Walked, compare


@attrs.frozen
class Awaited:
    """The job on the awaited face."""

    drift: Drift
    events: DriftEvents
    stream: SegmentStream
    people: list[Person]
    log: Log

    async def run(self) -> list[Difference]:
        """Create, walk, update, read back, and send events; return all differences."""
        contacts = await self.create_contacts()
        differences = await self.walk_conversations()
        await self.update_contacts(contacts)
        differences += await self.read_back(contacts)
        differences += await self.send_events()
        return differences + await self.send_hits()

    async def create_contacts(self) -> list[Contact]:
        """Create a contact for each of the people; return them in that order."""
        with self.log.job("create", len(self.people)) as job:
            new = [person.new_contact for person in self.people]
            bulk = self.drift.contacts.create_many(new, progress=job.follow)
            contacts = [outcome.value async for outcome in bulk]
            job.count(created=len(contacts))
        return contacts

    async def walk_conversations(self) -> list[Difference]:
        """Read every conversation: its transcript in bulk, its messages page by page."""
        differences: list[Difference] = []
        with self.log.job("walk") as job:
            conversations = self.drift.conversations
            ids = (conversation.id async for conversation in conversations.all())
            async for outcome in self.drift.bulk(conversations.transcript, ids):
                messages = await conversations.messages(outcome.item).collect()
                walked = Walked(outcome.item, len(messages), len(outcome.value.splitlines()))
                differences += walked.differences()
                job.count(conversations=1, messages=walked.messages, transcripts=1)
                job.step()
        return differences

    async def update_contacts(self, contacts: list[Contact]) -> None:
        """Update every contact."""
        with self.log.job("update", len(contacts)) as job:
            pairs = zip(self.people, contacts, strict=True)
            updates = [
                ContactUpdate(contact_id=contact.id, attributes=person.changes)
                for person, contact in pairs
            ]
            bulk = self.drift.contacts.update_many(updates, progress=job.follow)
            updated = [outcome.value async for outcome in bulk]
            job.count(updated=len(updated))

    async def read_back(self, contacts: list[Contact]) -> list[Difference]:
        """Find every contact by its external id, and compare it with what was sent."""
        found: dict[int, Contact] = {}
        batches = list(cut((person.external_id for person in self.people), BATCH))
        with self.log.job("read back", len(batches)) as job:
            for batch in batches:
                came = await self.drift.contacts.find_by_external_id(*batch)
                job.count(found=len(came))
                job.step()
                found.update((contact.id, contact) for contact in came)
        return compare(self.people, contacts, found)

    async def send_events(self) -> list[Difference]:
        """Send the identities and tracks of the people; return the differences on arrival."""
        sent: list[Identify | Track] = []
        with self.log.job("track", len(self.people)) as job:
            for people in cut(self.people, EVENT_BATCH):
                identities = [person.identity for person in people]
                tracks = [track for person in people for track in person.tracks]
                await self.events.identify_many(identities)
                await self.events.track_many(tracks)
                await self.events.flush()
                job.count(identified=len(identities), tracked=len(tracks))
                job.step(len(people))
                sent += [*identities, *tracks]
        return compare_events(sent, self.log.box, "drift")

    async def send_hits(self) -> list[Difference]:
        """Send the visits of the people to SegmentStream; return the differences on arrival."""
        sent: list[Hit] = []
        with self.log.job("stream", len(self.people)) as job:
            for people in cut(self.people, EVENT_BATCH):
                hits = [hit for person in people for hit in person.hits]
                await self.stream.track_many(hits)
                await self.stream.flush()
                job.count(hits=len(hits))
                job.step(len(people))
                sent += hits
        return compare_events(sent, self.log.box, "segmentstream")
