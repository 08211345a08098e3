"""Work that would hold up the event loop, done in a thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")
A = TypeVar("A")

BIG = 1_000_000
"""Bytes of a body from which on it is read in a thread; that many cost about 10 ms."""

_executor: ThreadPoolExecutor | None = None


async def in_thread(work: Callable[[A], T], given: A) -> T:
    """Return what *work* makes of *given*, while the event loop goes on.

    All such work of a process is done by one thread: two would only take the interpreter from each
    other, and from the loop. The loop's own executor is the user's, whose work may wait for ours.
    """
    global _executor
    try:
        if _executor is None:
            from concurrent.futures import ThreadPoolExecutor

            _executor = ThreadPoolExecutor(1, thread_name_prefix="drift-async-reader")
        future = _executor.submit(work, given)
    except RuntimeError:  # the interpreter is ending and starts no threads any more
        return work(given)
    return await asyncio.wrap_future(future)


def _after_fork_in_child() -> None:
    """Forget the thread, which only the parent has."""
    global _executor
    _executor = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
