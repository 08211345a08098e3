"""The command line, ``drift-async``. Its libraries are those of the extra ``cli``."""

# No `from __future__ import annotations` here: typer reads the annotations of the commands, and
# the names in them are imported inside `build`, where typer could not find them again.

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from . import errors
from ._version import __version__

if TYPE_CHECKING:
    from rich.table import Table
    from typer import Typer

    from .demo.report import Job, Progress, Report

HINT = "drift-async: the command line needs typer and rich: pip install 'drift-async[cli]'"

SHOWN = 5
"""The most differing records to name."""

KINDS: tuple[tuple[int, tuple[type[errors.DriftError], ...]], ...] = (
    (3, (errors.CredentialsError, errors.AuthenticationError)),
    (4, (errors.APIError,)),
    (
        5,
        (
            errors.ConnectError,
            errors.ConnectionLostError,
            errors.DeadlineError,
            errors.OutcomeUnknownError,
        ),
    ),
    (6, (errors.CallError,)),
    (2, (errors.DriftError,)),
)
"""The exit code of each kind of error; the first that fits."""

EPILOG = """\b
Exit codes:
  0  all records read back, and all events that came in, equal those that were sent
  1  something differs; the records are named
  2  wrong usage, or bad input
  3  no credentials, or the token was refused or lacks a scope
  4  refused by the server
  5  no connection, deadline over, or outcome unknown
  6  a reply that cannot be used
"""

APPLIED = {True: "it was applied", False: "nothing was applied", None: "it may have been applied"}


def main() -> None:
    """Run the command line; without the extra, say how to install it and exit 2."""
    try:
        app = build()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        print(HINT, file=sys.stderr)
        sys.exit(2)
    app()


def build() -> "Typer":
    """Return the application with its commands."""
    import rich  # noqa: F401  # if it is missing, fail now and not in the middle of the demo
    import typer

    app = typer.Typer(
        name="drift-async",
        help="Tools around the client of the Drift API.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            print(f"drift-async {__version__}")
            raise typer.Exit

    @app.callback()
    def start(
        version: Annotated[
            bool,
            typer.Option(
                "--version", callback=show_version, is_eager=True, help="Show the version."
            ),
        ] = False,
    ) -> None:
        pass

    @app.command(epilog=EPILOG)
    def demo(
        contacts: Annotated[
            int, typer.Option(min=1, metavar="N", help="Contacts to import on each face.")
        ] = 2000,
        as_json: Annotated[
            bool, typer.Option("--json", help="Print one JSON object instead of the table.")
        ] = False,
    ) -> None:
        """Do the main job end to end, against a sandbox, on both faces.

        Contacts are imported from a CSV file, every conversation is walked, the contacts are
        updated and read back, and events are sent. The records read back, and the events that came
        in, are compared with those that were sent. Nothing leaves this machine.
        """
        sys.exit(_demo(contacts, as_json=as_json))

    settings = {"allow_extra_args": True, "ignore_unknown_options": True}

    @app.command(context_settings=settings, add_help_option=False)
    def sandbox(context: typer.Context) -> None:
        """Run the sandbox server; see its own --help."""
        _sandbox(context.args)

    return app


def exit_code(error: errors.DriftError) -> int:
    """Return the exit code for an error of the library."""
    return next(code for code, kinds in KINDS if isinstance(error, kinds))


def _demo(contacts: int, *, as_json: bool) -> int:
    from . import demo

    try:
        with _bars() as progress:
            report = demo.run_demo(contacts, progress=progress)
    except errors.DriftError as error:
        print(f"drift-async: {error} ({APPLIED[error.applied]})", file=sys.stderr)
        return exit_code(error)
    if as_json:
        print(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        _print_table(report)
    for line in _differing(report):
        print(line, file=sys.stderr)
    return 1 if report.differences else 0


def _differing(report: "Report") -> Iterator[str]:
    """Name the first records that differ, with their fields."""
    fields: dict[str, list[str]] = {}
    for one in report.differences:
        fields.setdefault(one.record, []).append(one.field)
    for record in list(fields)[:SHOWN]:
        yield f"drift-async: {record} differs in {', '.join(fields[record])}"
    if len(fields) > SHOWN:
        yield f"drift-async: {len(fields) - SHOWN} more records differ"


@contextmanager
def _bars() -> "Iterator[Progress]":
    """Show a bar for each job, on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TaskID

    console = Console(stderr=True)
    columns = *Progress.get_default_columns(), MofNCompleteColumn()
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:

        def show(face: str, job: str, done: int, total: int | None, /) -> None:
            name = f"{face}: {job}"
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield show


def _print_table(report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("face", "job", "items", title=f"{report.contacts:,} contacts on each face")
    for heading in ("requests", "seconds", "requests/s"):
        table.add_column(heading, justify="right")
    for total in report.totals:
        for job in report.jobs:
            if job.face == total.face:
                _add_row(table, job)
        _add_row(table, total)
        table.add_section()
    console = Console()
    console.print(table)
    outcome = "differ from" if report.differences else "equal"
    console.print(f"The records read back and the events received {outcome} what was sent.")


def _add_row(table: "Table", job: "Job") -> None:
    total = job.name == "total"
    items = "" if total else "\n".join(f"{count:,} {name}" for name, count in job.items.items())
    figures = f"{job.requests:,}", f"{job.seconds:.2f}", f"{job.rate:,.0f}"
    table.add_row(job.face, job.name, items, *figures, style="bold" if total else None)


def _sandbox(arguments: list[str]) -> None:
    from .sandbox.__main__ import main

    main(arguments, "drift-async sandbox")
