"""The command line, and the demo that it runs."""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import attrs
import pytest
from anyio.from_thread import start_blocking_portal

import drift_async
from drift_async import cli, demo, errors
from drift_async.demo.awaited import Awaited
from drift_async.demo.blocking import Blocking
from drift_async.demo.people import make_people, read_csv, through_a_file, write_csv
from drift_async.demo.report import Difference
from drift_async.sandbox import Event, Sandbox

pytest.importorskip("typer")
from typer.testing import CliRunner, Result

CONTACTS = 60  # more than fit into one request that reads back
VISITS = sum(person.seats % 3 for person in make_people("awaited", CONTACTS))
FEW, MANY = 3, 101  # conversations; the list gives 100 to a page
LONG = 130  # messages of one conversation, in three requests; the others have three, in one
CLI = "import sys; from drift_async.cli import main; sys.exit(main())"
CALL: dict[str, Any] = {"operation": "GET /x"}
API: dict[str, Any] = {"status": 400, "type": None, "message": "no", **CALL}


@contextmanager
def started(sandbox: Sandbox) -> Iterator[Sandbox]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sandbox) as box:
        yield box


@pytest.fixture
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox on a thread of its own."""
    with started(Sandbox(conversations=getattr(request, "param", FEW))) as box:
        yield box


@pytest.fixture
def run(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command line in this process, with the demo in this sandbox."""
    start: Callable[[int], AbstractContextManager[Sandbox]] = lambda _: nullcontext(box)  # noqa: E731
    monkeypatch.setattr(demo, "start_sandbox", start)
    return lambda *arguments: CliRunner().invoke(cli.build(), arguments)


def spawn(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=20, check=False, **options
    )


def corrupted(record: str, field: str, value: object) -> Callable[[Any], Any]:
    """Return what changes one field of one contact in a reply of the sandbox."""

    def alter(reply: Any) -> Any:
        rows = [
            {**row, "attributes": {**row["attributes"], field: value}}
            if row["attributes"]["externalId"] == record
            else row
            for row in reply["data"]
        ]
        return {**reply, "data": rows}

    return alter


def external_id(face: str, number: int) -> str:
    return list(make_people(face, number + 1))[number].external_id


# demo: what it says


@pytest.mark.smoke
@pytest.mark.parametrize("box", [MANY], indirect=True)
def test_the_demo_counts_what_the_sandbox_has_seen(
    box: Sandbox, run: Callable[..., Result]
) -> None:
    result = run("demo", "--contacts", str(CONTACTS), "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report["contacts"] == CONTACTS
    assert report["equal"] is True
    assert report["differences"] == []
    assert sum(total["requests"] for total in report["totals"]) == box.count
    assert sum(job["requests"] for job in report["jobs"]) == box.count
    messages = LONG + 3 * (MANY - 1)
    walk = {"conversations": MANY, "messages": messages, "transcripts": MANY}
    expected = [
        ("create", {"created": CONTACTS}, CONTACTS),
        ("walk", walk, 2 + 2 * MANY + 2),
        ("update", {"updated": CONTACTS}, CONTACTS),
        ("read back", {"found": CONTACTS}, 2),
        ("track", {"identified": CONTACTS, "tracked": 2 * CONTACTS}, None),
        ("stream", {"hits": VISITS}, VISITS),
    ]
    for face in ("awaited", "blocking"):
        jobs = [job for job in report["jobs"] if job["face"] == face]
        [track] = [job for job in jobs if job["name"] == "track"]
        assert 2 <= track["requests"] < CONTACTS  # events go in batches, cut as time has it
        track["requests"] = None
        assert [(job["name"], job["items"], job["requests"]) for job in jobs] == expected
        assert all(job["seconds"] > 0 < job["requests_per_second"] for job in jobs)


def test_the_sandbox_holds_what_the_demo_says_it_sent(box: Sandbox) -> None:
    assert demo.run_demo(3, box).differences == ()

    async def stored() -> list[drift_async.Contact]:
        async with drift_async.Drift.from_env(box.env) as drift:
            return [
                contact
                for face in ("awaited", "blocking")
                for contact in await drift.contacts.find_by_external_id(
                    *(person.external_id for person in make_people(face, 3))
                )
            ]

    contacts = asyncio.run(stored())
    assert [contact.attributes["name"] for contact in contacts] == [
        "Ada Müller",
        "José O'Neil",
        "Zoë García",
    ] * 2
    assert [contact.attributes["plan"] for contact in contacts] == ["team", "größer", "größer"] * 2
    assert [contact.attributes["seats"] for contact in contacts] == [1, 2, 3] * 2


def test_the_table_has_a_row_for_each_job(box: Sandbox, run: Callable[..., Result]) -> None:
    result = run("demo", "--contacts", "2")
    assert result.exit_code == 0
    for words in (
        "2 contacts on each face",
        "2 created",
        "3 conversations",
        "136 messages",
        "2 updated",
        "2 found",
        "2 identified",
        "4 tracked",
        "3 hits",
        "The records read back and the events received equal what was sent.",
    ):
        assert words in result.stdout
    assert len(re.findall("total", result.stdout)) == 2


def test_steps_are_told_while_they_are_done(box: Sandbox) -> None:
    told: list[tuple[str, str, int, int | None]] = []
    demo.run_demo(2, box, lambda *step: told.append(step))
    for face in ("awaited", "blocking"):
        created = [step[2:] for step in told if step[:2] == (face, "create")]
        walked = [step[2:] for step in told if step[:2] == (face, "walk")]
        assert {total for _, total in created} == {2}
        assert [done for done, _ in created] == sorted(done for done, _ in created)
        assert created[-1] == (2, 2)
        assert walked == [(1, None), (2, None), (3, None), (3, 3)]


def test_a_terminal_gets_bars_on_stderr(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = run("demo", "--contacts", "2", "--json")
    assert "awaited: create" in result.stderr
    assert "blocking: read back" in result.stderr
    assert json.loads(result.stdout)["equal"] is True


# demo: what differs


@pytest.mark.parametrize("face", ["awaited", "blocking"])
def test_a_record_that_is_read_back_differently_is_named(
    face: str, box: Sandbox, run: Callable[..., Result]
) -> None:
    record = external_id(face, 3)
    alter = corrupted(record, "name", "secret value")
    box.fail("contacts.find_by_external_id", alter=alter, skip=face == "blocking")
    result = run("demo", "--contacts", "5")
    assert result.exit_code == 1
    assert result.stderr == f"drift-async: {record} differs in name\n"
    assert "differ from" in result.stdout
    assert "secret value" not in result.output


@pytest.mark.parametrize(("field", "value"), [("seats", 1.0), ("seats", True), ("plan", None)])
def test_a_value_of_another_type_differs(field: str, value: object, box: Sandbox) -> None:
    record = external_id("awaited", 0)
    box.fail("contacts.find_by_external_id", alter=corrupted(record, field, value))
    assert demo.run_demo(1, box).differences == (Difference(record, field),)


def test_of_many_records_that_differ_the_first_few_are_named(
    box: Sandbox, run: Callable[..., Result]
) -> None:
    box.fail("contacts.find_by_external_id", body={"data": []})
    result = run("demo", "--contacts", "7", "--json")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    fields = "email, externalId, name, plan, seats, signed_up, last_seen"
    assert lines[:5] == [
        f"drift-async: {external_id('awaited', n)} differs in {fields}" for n in range(5)
    ]
    assert lines[5:] == ["drift-async: 2 more records differ"]
    report = json.loads(result.stdout)
    assert report["equal"] is False
    assert len(report["differences"]) == 7 * 7


def test_a_transcript_without_some_messages_is_named(
    box: Sandbox, run: Callable[..., Result]
) -> None:
    box.fail("conversations.transcript", body="a line\n")
    result = run("demo", "--contacts", "1")
    assert result.exit_code == 1
    assert re.fullmatch(r"drift-async: conversation \d+ differs in transcript\n", result.stderr)


Events = list[Event]


@pytest.mark.parametrize("face", ["awaited", "blocking"])
@pytest.mark.parametrize("api", ["drift", "segmentstream"])
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda events: events[:-1], id="lost"),
        pytest.param(lambda events: [*events, events[-1]], id="twice"),
        pytest.param(lambda events: [*events[:-2], events[-1], events[-2]], id="disordered"),
        pytest.param(lambda events: [*events[:-1], corrupt(events[-1])], id="corrupt"),
    ],
)
def test_events_that_come_in_otherwise_are_named(
    spoil: Callable[[Events], Events],
    api: str,
    face: str,
    box: Sandbox,
    run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = external_id(face, 1)
    kept = box.events

    def events(which: str) -> Events:
        mine = kept(which, record)
        others = [event for event in kept(which) if event.user != record]
        return [*others, *(spoil(mine) if mine and which == api else mine)]

    monkeypatch.setattr(box, "events", events)
    result = run("demo", "--contacts", "3")
    assert result.exit_code == 1
    assert result.stderr == f"drift-async: {record} differs in {api} events\n"


def corrupt(event: Event) -> Event:
    return attrs.evolve(event, value={**event.value, "more": None})


@pytest.mark.parametrize(
    ("operation", "api"), [("events.track_many", "drift"), ("segmentstream.track", "segmentstream")]
)
def test_events_that_a_server_confirms_and_forgets_are_named(
    operation: str, api: str, box: Sandbox, run: Callable[..., Result]
) -> None:
    box.fail(operation, body={}, apply=False)
    result = run("demo", "--contacts", "1")
    assert result.exit_code == 1
    assert result.stderr == f"drift-async: {external_id('awaited', 0)} differs in {api} events\n"


# demo: errors


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (2, errors.InputError("contacts", "must be at least 1")),
        (2, errors.ClosedError("closed")),
        (2, errors.WrongLoopError("other loop")),
        (2, errors.ForkError("forked")),
        (3, errors.CredentialsError("no token")),
        (3, errors.AuthenticationError(**API)),
        (3, errors.ScopeError(scope="contact_read", **API)),
        (4, errors.APIError(**API)),
        (4, errors.BadRequestError(**API)),
        (4, errors.NotFoundError(**API)),
        (4, errors.ConflictError(**API)),
        (4, errors.RateLimitError(**API)),
        (4, errors.ServerError(**API)),
        (5, errors.ConnectError("refused", **CALL)),
        (5, errors.ConnectionLostError("lost", **CALL)),
        (5, errors.DeadlineError("late", **CALL)),
        (5, errors.OutcomeUnknownError("lost", settle="look", **CALL)),
        (6, errors.ProtocolError("no HTTP", **CALL)),
        (6, errors.ResponseTooLargeError("large", **CALL)),
        (6, errors.DecodeError("no JSON", **CALL)),
        (6, errors.CursorError("repeats", **CALL)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_kind_of_error_has_its_exit_code(code: int, error: errors.DriftError) -> None:
    assert cli.exit_code(error) == code
    assert f"  {code}  " in cli.EPILOG


@pytest.mark.parametrize("face", ["awaited", "blocking"])
@pytest.mark.parametrize(
    ("code", "fault", "words"),
    [
        (3, {"status": 401}, "POST /contacts: 401 .* (nothing was applied)"),
        (4, {"status": 409}, "POST /contacts: 409 .* (nothing was applied)"),
        (5, {"cut": "after"}, "contacts.find_by_external_id.* (it may have been applied)"),
        (6, {"body": "no JSON"}, "POST /contacts: .* (it was applied)"),
    ],
)
def test_an_error_ends_the_demo_with_one_line(
    face: str,
    code: int,
    fault: dict[str, Any],
    words: str,
    box: Sandbox,
    run: Callable[..., Result],
) -> None:
    box.fail("contacts.create", skip=3 if face == "awaited" else 13, **fault)
    result = run("demo", "--contacts", "10")
    assert result.exit_code == code
    assert result.stdout == ""
    head, tail = map(re.escape, words.split(".*"))
    assert re.fullmatch(f"drift-async: .*{head}.*{tail}\n", result.stderr)


def test_fewer_than_one_contact_are_refused(run: Callable[..., Result]) -> None:
    assert run("demo", "--contacts", "0").exit_code == 2
    with pytest.raises(errors.InputError, match="contacts"):
        demo.run_demo(0)


def test_the_help_documents_the_exit_codes(run: Callable[..., Result]) -> None:
    result = run("demo", "--help")
    assert result.exit_code == 0
    for line in cli.EPILOG.strip("\b\n").splitlines():
        assert line in result.stdout
    assert f"default: {demo.CONTACTS};" in result.stdout


# demo: as an example


def methods(face: type) -> dict[str, str]:
    return {
        name: textwrap.dedent(inspect.getsource(method))
        for name, method in vars(face).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


def test_the_blocking_half_is_the_awaited_one_without_async_and_await() -> None:
    awaited, blocking = methods(Awaited), methods(Blocking)
    assert list(awaited) == list(blocking)
    for name in awaited:
        twin = re.sub(r"\b(?:async|await) ", "", awaited[name])
        assert ast.dump(ast.parse(twin)) == ast.dump(ast.parse(blocking[name])), name


def test_people_survive_the_file_and_are_the_same_each_time(tmp_path: Path) -> None:
    people = list(make_people("awaited", 200))
    write_csv(tmp_path / "people.csv", people)
    assert read_csv(tmp_path / "people.csv") == people
    assert through_a_file(make_people("awaited", 200)) == people
    assert any(not person.name.isascii() for person in people)
    assert len({person.external_id for person in people}) == 200
    assert len({person.email for person in people}) == 200


def test_the_demo_starts_a_sandbox_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CONVERSATIONS", 2)
    report = demo.run_demo(1)
    assert attrs.asdict(report)["contacts"] == 1
    assert [total.items["conversations"] for total in report.totals] == [2, 2]


# the rest of the command line


@pytest.mark.smoke
def test_the_version_is_shown(run: Callable[..., Result]) -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"drift-async {drift_async.__version__}\n")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_the_way_to_install_it_is_shown(missing: str) -> None:
    done = spawn(f"import sys; sys.modules[{missing!r}] = None; {CLI}", "--version")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"{cli.HINT}\n"


def test_a_module_missing_elsewhere_is_not_taken_for_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build() -> None:
        raise ModuleNotFoundError("No module named 'other'", name="other")

    monkeypatch.setattr(cli, "build", build)
    with pytest.raises(ModuleNotFoundError, match="other"):
        cli.main()


def test_importing_the_command_line_loads_neither_its_libraries_nor_the_sandbox() -> None:
    modules = "typer", "rich", "aiohttp", "anyio", "drift_async.sandbox", "drift_async.demo"
    done = spawn(f"import sys, drift_async.cli; print([m for m in {modules} if m in sys.modules])")
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM to catch")
def test_the_sandbox_prints_where_it_is_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-W", "error", "-c", CLI, "sandbox", "--port", "0", "--token", "t"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            assert isinstance(process.stdout, io.TextIOBase)
            told = json.loads(process.stdout.readline())
            process.send_signal(signal.SIGTERM)
            _, logged = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0
    assert told["url"].startswith("http://127.0.0.1:")
    assert told["token"] == "t"
    assert "Traceback" not in logged


def test_the_options_of_the_sandbox_are_its_own() -> None:
    done = spawn(CLI, "sandbox", "--help")
    assert done.returncode == 0
    assert "--links-host" in done.stdout


@pytest.mark.parametrize("arguments", [("--contacts", "-1"), ("--port", "x"), ("--nonsense",)])
def test_a_sandbox_that_cannot_start_says_why(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, run: Callable[..., Result]
) -> None:
    monkeypatch.setattr(sys, "argv", ["drift-async"])
    result = run("sandbox", *arguments)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
