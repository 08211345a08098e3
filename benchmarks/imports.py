"""P11: what importing costs, each in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial

from .harness import Bench
from .measure import Row, Target

STATEMENTS = (("from drift_async import Drift", 0.6), ("import drift_async", 0.1))


def p11(bench: Bench) -> Iterator[Row]:
    """The import that every user makes, and the bare one, against the HTTP client's."""
    # Compiled code is kept for the run, wherever the packages live and whatever the environment
    # says: installers compile, checkouts do not.
    with tempfile.TemporaryDirectory() as cache:
        env = dict(os.environ)
        if not bench.quick:
            env["PYTHONPYCACHEPREFIX"] = cache
            env.pop("PYTHONDONTWRITEBYTECODE", None)
        for statement, bound in STATEMENTS[: 1 if bench.quick else None]:
            yield bench.compare(
                "P11",
                statement,
                "import aiohttp",
                Target(bound),
                partial(seconds, statement, env),
                partial(seconds, "import aiohttp", env),
                rounds=24,
            )


def seconds(statement: str, env: dict[str, str]) -> float:
    """Return how long a statement takes in a fresh interpreter."""
    clock = "from time import perf_counter as clock; began = clock()"
    program = f"{clock}; {statement}; print(clock() - began)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    return float(done.stdout)
