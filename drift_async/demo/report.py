"""The report: jobs, their steps and requests, and records that were not read back as sent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import attrs

from ..core.outcome import BulkProgress
from ..resources.contacts import Contact
from .people import Person


class Received(Protocol):
    """An event that a sandbox has accepted."""

    @property
    def kind(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def value(self) -> Mapping[str, Any]: ...


class Box(Protocol):
    """The part of a sandbox that the demo uses: its address, requests and events."""

    @property
    def env(self) -> dict[str, str]: ...
    @property
    def count(self) -> int: ...
    def events(self, api: str) -> Sequence[Received]: ...


class Progress(Protocol):
    """Called after each step: face, job, steps done, and steps in all, if known."""

    def __call__(self, face: str, job: str, done: int, total: int | None, /) -> None: ...


def quiet(face: str, job: str, done: int, total: int | None, /) -> None:
    """Show no progress."""


@attrs.frozen
class Difference:
    """A field of a record that was not read back as it was sent; its values are not shown."""

    record: str
    field: str


@attrs.frozen
class Job:
    """One job of one face: the number of items, requests and seconds."""

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
    """All jobs of the demo, and the records that were not read back as they were sent."""

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


def _total(jobs: list[Job]) -> Job:
    items = {name: count for job in jobs for name, count in job.items.items()}
    requests = sum(job.requests for job in jobs)
    return Job(jobs[0].face, "total", items, requests, sum(job.seconds for job in jobs))


def _as_json(job: Job) -> dict[str, Any]:
    seconds = round(job.seconds, 3)
    return {**attrs.asdict(job), "seconds": seconds, "requests_per_second": round(job.rate, 1)}


@attrs.frozen
class Log:
    """The jobs of one face, with the requests that the sandbox has counted."""

    face: str
    box: Box
    progress: Progress
    jobs: list[Job] = attrs.field(factory=list, init=False)

    @contextmanager
    def job(self, name: str, total: int | None = None) -> Iterator[OpenJob]:
        """Measure one job, whose steps are *total*, if known."""
        job = OpenJob(lambda done: self.progress(self.face, name, done, total))
        began, before = time.perf_counter(), self.box.count
        yield job
        seconds = time.perf_counter() - began
        requests = self.box.count - before
        self.progress(self.face, name, job.steps, job.steps)  # now the total is known
        self.jobs.append(Job(self.face, name, dict(job.items), requests, seconds))


@attrs.define
class OpenJob:
    """A job under way: counts its items, and reports its steps."""

    _report: Callable[[int], None]
    items: Counter[str] = attrs.field(factory=Counter, init=False)
    steps: int = attrs.field(default=0, init=False)

    def count(self, **items: int) -> None:
        """Add to the number of finished items."""
        self.items.update(items)

    def follow(self, progress: BulkProgress) -> None:
        """Report the progress of a bulk."""
        self.steps = progress.done
        self._report(self.steps)

    def step(self, more: int = 1) -> None:
        """Report that *more* steps are done."""
        self.steps += more
        self._report(self.steps)


@attrs.frozen
class Walked:
    """A conversation that was read: its messages, and the lines of its transcript."""

    id: int
    messages: int
    lines: int

    def differences(self) -> list[Difference]:
        """Return a difference unless the transcript has one line for each message."""
        if self.messages == self.lines:
            return []
        return [Difference(f"conversation {self.id}", "transcript")]


def compare(
    people: list[Person], contacts: list[Contact], found: Mapping[int, Contact]
) -> list[Difference]:
    """Return the fields that differ from the sent ones; all fields of a contact that is lost."""
    differences = []
    for person, contact in zip(people, contacts, strict=True):
        read = found[contact.id].attributes if contact.id in found else {}
        for field, sent in person.expected.items():
            got = read.get(field)
            if type(got) is not type(sent) or got != sent:
                differences.append(Difference(person.external_id, field))
    return differences
