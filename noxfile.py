"""The project's tasks. `nox` alone does what a change has to pass; `nox -l` lists all of them."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
# The supported Pythons are those of the classifiers, and nowhere else.
PYTHONS = [
    found[1]
    for line in PROJECT["project"]["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
]

nox.needs_version = ">=2025.2.9"  # dependency_groups()
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "twin", "tests"]
nox.options.reuse_venv = "yes"


def interpreter(version: str) -> str | None:
    """Return a working interpreter of that version; one whose `-V` fails counts as absent.

    Version managers put stand-ins on the path that fail for versions not switched on, so their own
    folders are looked through as well.
    """
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin"))
    for folder in folders:
        python = folder / f"python{version}"
        if python.is_file():
            answer = subprocess.run([python, "-V"], capture_output=True, text=True, check=False)
            if answer.returncode == 0 and answer.stdout.startswith(f"Python {version}"):
                return str(python)
    return None


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group and of the groups it includes."""
    return nox.project.dependency_groups(PROJECT, name)


FOUND = [python for version in PYTHONS if (python := interpreter(version))]
NEWEST = FOUND[-1:] or [None]
OLDEST = FOUND[:1] or [None]
ON_ALL_CORES = ("-n", "auto")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, and which part of the house imports which."""
    session.install("-e", ".[cli]", *group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, of both faces, of the tests and of the example services."""
    session.install("-e", ".[cli,fast]", *group("types"), *group("test"))
    session.run("mypy")
    session.run("mypy", "docs/examples")


@nox.session
def twin(session: nox.Session) -> None:
    """Check that the blocking twin is what the generator writes; `-- --write` writes it."""
    session.install("-e", ".", *group("format"))
    check = () if "--write" in session.posargs else ("--check",)
    session.run("python", "-m", "drift_async.sync.generate", *check)


@nox.session(python=OLDEST)
def tests(session: nox.Session) -> None:
    """Run the whole suite on the oldest supported Python that is here."""
    session.install("-e", ".[cli]", *group("test"))
    session.run("pytest", *ON_ALL_CORES, *session.posargs)


@nox.session(python=NEWEST)
def newest(session: nox.Session) -> None:
    """Run the short path through everything on the newest Python that is here."""
    session.install("-e", ".[cli]", *group("test"))
    session.run("pytest", *ON_ALL_CORES, "-m", "smoke", *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the short path on the lowest versions of what is required."""
    floors = [
        re.sub(r">=([^,]+).*", r"==\1", requirement)
        for requirement in tomllib.loads(Path("pyproject.toml").read_text())["project"][
            "dependencies"
        ]
    ]
    session.install("-e", ".[cli]", *group("test"), *floors)
    session.run("pytest", *ON_ALL_CORES, "-m", "smoke", *session.posargs)


@nox.session
def fast(session: nox.Session) -> None:
    """Run the short path with orjson and uvloop installed."""
    session.install("-e", ".[cli,fast]", *group("test"))
    session.run("pytest", *ON_ALL_CORES, "-m", "smoke", *session.posargs)


@nox.session
def services(session: nox.Session) -> None:
    """Run the services of docs/examples with nothing installed but the packages they name."""
    heads = [path.read_text() for path in Path("docs/examples").glob("*.py")]
    named = re.findall(r"pip install \. (.+)", "\n".join(heads))
    clean = Path(session.create_tmp()).resolve() / "clean"
    session.run("python", "-m", "venv", "--clear", str(clean))
    python = str(clean / "bin" / "python")
    packages = sorted(set(" ".join(named).split()))
    session.run(python, "-m", "pip", "install", "-q", ".", *packages, external=True)
    session.install("-e", ".", *group("test"))
    session.run("pytest", "tests/webhooks/test_services.py", env={"SERVICE_PYTHON": python})


@nox.session
def slow(session: nox.Session) -> None:
    """Run what takes long: load, kill loops, wall-clock timing (600 s a test)."""
    session.install("-e", ".[cli]", *group("test"))
    session.run("pytest", "-m", "slow", "--timeout", "600", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against the peers, all or `-- P4 P6`; exits 1 when a target is missed."""
    session.install("-e", ".", *group("bench"))
    # As a wheel it puts its own urllib3 under requests, which is then slower than it has to be.
    alone = ("niquests", "--no-binary", "urllib3-future")
    session.install(*alone, env={"URLLIB3_NO_OVERRIDE": "1"})
    session.run("python", "-m", "benchmarks", *session.posargs)
