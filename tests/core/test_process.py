"""Hooks of forks and of the interpreter's end, without any client."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

import drift_async
from drift_async.core import process

EXIT = """
import asyncio
from drift_async.core import process

async def closes(name, seconds):
    await asyncio.sleep(0)
    if name == "bad":
        raise ZeroDivisionError
    print(name, flush=True)

async def main():
    for name in ("one", "bad", "two"):
        hook = process.at_exit(lambda seconds, name=name: closes(name, seconds), loop)
    forgotten = process.at_exit(lambda seconds: closes("forgotten", seconds), loop)
    process.cancel(forgotten)

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
{end}
"""


@pytest.mark.parametrize("end", ["", "loop.close()"])
def test_at_exit_each_client_is_closed_whatever_happens_to_the_others(end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT.format(end=end)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["one", "two"]
    assert "a client could not be closed at exit" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_an_object_is_not_kept_alive_by_its_fork_hook() -> None:
    class Owner:
        def forked(self) -> None: ...

    gc.collect()
    before = len(process._child_methods)
    owner = Owner()
    process.after_fork(owner.forked)
    assert len(process._child_methods) == before + 1
    del owner
    gc.collect()
    assert len(process._child_methods) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_hooks_of_a_fork_run_in_the_child() -> None:
    program = """
import os
from drift_async.core import process
class Owner:
    def forked(self):
        print("method", flush=True)
owner = Owner()
process.after_fork(owner.forked)
process.after_fork(lambda: print("function", flush=True))
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["function", "method"]


def test_the_package_has_one_fork_hook() -> None:
    root = Path(drift_async.__file__).parent
    texts = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.py")}
    uses = [name for name, text in texts.items() if "register_at_fork(" in text]
    assert uses == ["core/process.py"]
