"""The job on the blocking face. Its twin is awaited.py, which has async and await besides."""

from __future__ import annotations

import attrs

from ..core.batch import cut
from ..sync import (
    Contact,
    ContactUpdate,
    Drift,
    DriftEvents,
    Hit,
    Identify,
    SegmentStream,
    Track,
)
from .people import BATCH, EVENT_BATCH, Person
from .received import compare_events
from .report import Difference, Log, Walked, compare


@attrs.frozen
class Blocking:
    """The job on the blocking face."""

    drift: Drift
    events: DriftEvents
    stream: SegmentStream
    people: list[Person]
    log: Log

    def run(self) -> list[Difference]:
        """Create, walk, update, read back, and send events; return all differences."""
        contacts = self.create_contacts()
        differences = self.walk_conversations()
        self.update_contacts(contacts)
        differences += self.read_back(contacts)
        differences += self.send_events()
        return differences + self.send_hits()

    def create_contacts(self) -> list[Contact]:
        """Create a contact for each of the people; return them in that order."""
        with self.log.job("create", len(self.people)) as job:
            new = [person.new_contact for person in self.people]
            bulk = self.drift.contacts.create_many(new, progress=job.follow)
            contacts = [outcome.value for outcome in bulk]
            job.count(created=len(contacts))
        return contacts

    def walk_conversations(self) -> list[Difference]:
        """Read every conversation: its transcript in bulk, its messages page by page."""
        differences: list[Difference] = []
        with self.log.job("walk") as job:
            conversations = self.drift.conversations
            ids = (conversation.id for conversation in conversations.all())
            for outcome in self.drift.bulk(conversations.transcript, ids):
                messages = conversations.messages(outcome.item).collect()
                walked = Walked(outcome.item, len(messages), len(outcome.value.splitlines()))
                differences += walked.differences()
                job.count(conversations=1, messages=walked.messages, transcripts=1)
                job.step()
        return differences

    def update_contacts(self, contacts: list[Contact]) -> None:
        """Update every contact."""
        with self.log.job("update", len(contacts)) as job:
            pairs = zip(self.people, contacts, strict=True)
            updates = [
                ContactUpdate(contact_id=contact.id, attributes=person.changes)
                for person, contact in pairs
            ]
            bulk = self.drift.contacts.update_many(updates, progress=job.follow)
            updated = [outcome.value for outcome in bulk]
            job.count(updated=len(updated))

    def read_back(self, contacts: list[Contact]) -> list[Difference]:
        """Find every contact by its external id, and compare it with what was sent."""
        found: dict[int, Contact] = {}
        batches = list(cut((person.external_id for person in self.people), BATCH))
        with self.log.job("read back", len(batches)) as job:
            for batch in batches:
                came = self.drift.contacts.find_by_external_id(*batch)
                job.count(found=len(came))
                job.step()
                found.update((contact.id, contact) for contact in came)
        return compare(self.people, contacts, found)

    def send_events(self) -> list[Difference]:
        """Send the identities and tracks of the people; return the differences on arrival."""
        sent: list[Identify | Track] = []
        with self.log.job("track", len(self.people)) as job:
            for people in cut(self.people, EVENT_BATCH):
                identities = [person.identity for person in people]
                tracks = [track for person in people for track in person.tracks]
                self.events.identify_many(identities)
                self.events.track_many(tracks)
                self.events.flush()
                job.count(identified=len(identities), tracked=len(tracks))
                job.step(len(people))
                sent += [*identities, *tracks]
        return compare_events(sent, self.log.box, "drift")

    def send_hits(self) -> list[Difference]:
        """Send the visits of the people to SegmentStream; return the differences on arrival."""
        sent: list[Hit] = []
        with self.log.job("stream", len(self.people)) as job:
            for people in cut(self.people, EVENT_BATCH):
                hits = [hit for person in people for hit in person.hits]
                self.stream.track_many(hits)
                self.stream.flush()
                job.count(hits=len(hits))
                job.step(len(people))
                sent += hits
        return compare_events(sent, self.log.box, "segmentstream")
