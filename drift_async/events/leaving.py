"""Ends that nobody arranged: the interpreter exits with clients open, or the process forks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import EventClient

EXIT_BOUND = 5.0
"""Seconds that delivery may take at interpreter exit, for all clients together."""


class _Anchor:
    """Lives until the interpreter ends."""


_anchor = _Anchor()
_open: dict[EventClient, weakref.finalize[[], _Anchor]] = {}
_clients: weakref.WeakSet[EventClient] = weakref.WeakSet()


def enroll(client: EventClient) -> None:
    """Have a new client start clean in a forked child."""
    _clients.add(client)


def hold(client: EventClient) -> None:
    """Deliver what an open client has at interpreter exit, unless it is let go.

    The last one registered is called first: so before what ends the thread of a blocking client.
    """
    let_go(client)  # of a loop that has ended
    _open[client] = weakref.finalize(_anchor, _deliver_at_exit)


def let_go(client: EventClient) -> None:
    """Leave a client that is closed alone."""
    if (exit := _open.pop(client, None)) is not None:
        exit.detach()


def _deliver_at_exit() -> None:
    """Deliver what clients that nobody closed still hold, all within the exit bound."""
    until = time.monotonic() + EXIT_BOUND
    waiting: list[Future[Any]] = []
    mine: dict[asyncio.AbstractEventLoop | None, list[EventClient]] = {}
    for client in list(_open):
        session = client._caller.state.session
        loop = None if session is None or session.loop.is_closed() else session.loop
        if loop is not None and loop.is_running():  # in another thread, as on the blocking face
            closing = client.close(_seconds_to(until))
            waiting.append(asyncio.run_coroutine_threadsafe(closing, loop))
        else:
            mine.setdefault(loop, []).append(client)
    for loop, clients in mine.items():
        with contextlib.suppress(Exception):
            if loop is None:  # it has ended: a new one serves
                asyncio.run(_close(clients, until))
            else:
                loop.run_until_complete(_close(clients, until))
    for leaving in waiting:
        with contextlib.suppress(Exception):
            leaving.result(_seconds_to(until) + 1)


async def _close(clients: Sequence[EventClient], until: float) -> None:
    await asyncio.gather(*(client.close(_seconds_to(until)) for client in clients))


def _seconds_to(moment: float) -> float:
    return max(0.1, moment - time.monotonic())


def _after_fork_in_child() -> None:
    _open.clear()
    for client in list(_clients):
        client._start_clean()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
