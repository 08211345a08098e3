"""The main job of this library from end to end, on both faces, against a sandbox.

Contacts are read from a CSV file and created; every conversation is read, with its messages and
its transcript; the contacts are updated, and read back by their external ids; their events go to
the event APIs, and are compared with the events that came in. ``awaited.py`` and ``blocking.py``
are the same program twice: delete ``async`` and ``await`` from one, and you have the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext

from .. import Drift, DriftEvents, InputError, SegmentStream, sync
from .awaited import Awaited
from .blocking import Blocking
from .people import Person, make_people, through_a_file
from .report import Box, Difference, Job, Log, Progress, Report, quiet

CONTACTS = 2_000
CONVERSATIONS = 500
EVENTS = 5
"""The most events of one contact."""


def run_demo(
    contacts: int = CONTACTS, sandbox: Box | None = None, progress: Progress = quiet
) -> Report:
    """Do the main job on the awaited face, then on the blocking one, and return the report.

    *contacts* are imported on each face. Without an open *sandbox*, which must run on another
    thread, one is started. Errors of the library are raised as they are.
    """
    if contacts < 1:
        raise InputError("contacts", "must be at least 1")
    jobs: list[Job] = []
    differences: list[Difference] = []
    with nullcontext(sandbox) if sandbox else start_sandbox(contacts) as box:
        for face, do in (("awaited", do_awaited), ("blocking", do_blocking)):
            people = through_a_file(make_people(face, contacts))
            log = Log(face, box, progress)
            differences += do(people, log, box.env)
            jobs += log.jobs
    return Report(contacts, tuple(jobs), tuple(differences))


def start_sandbox(contacts: int) -> sync.Sandbox:
    """Return a sandbox with a thread of its own, so that neither face has to share its loop.

    The sandbox keeps all events of so many contacts on each face.
    """
    return sync.Sandbox(conversations=CONVERSATIONS, keep_events=2 * EVENTS * contacts)


def do_awaited(people: list[Person], log: Log, env: Mapping[str, str]) -> list[Difference]:
    """Do the job on the awaited face."""

    async def main() -> list[Difference]:
        async with (
            Drift.from_env(env) as drift,
            DriftEvents.from_env(env) as events,
            SegmentStream.from_env(env) as stream,
        ):
            return await Awaited(drift, events, stream, people, log).run()

    return asyncio.run(main())


def do_blocking(people: list[Person], log: Log, env: Mapping[str, str]) -> list[Difference]:
    """Do the job on the blocking face."""
    with (
        sync.Drift.from_env(env) as drift,
        sync.DriftEvents.from_env(env) as events,
        sync.SegmentStream.from_env(env) as stream,
    ):
        return Blocking(drift, events, stream, people, log).run()
