"""An application that keeps its token, and the operations of a renewal."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

from drift_async import Token
from drift_async.sandbox import Sandbox
from tests.support.consent import granted

GET, REFRESH = "contacts.get", "oauth.refresh"


class Store:
    """Where an application keeps its token."""

    def __init__(self, token: Token) -> None:
        self.tokens = [token]
        self.threads: list[threading.Thread] = []

    def save(self, token: Token) -> None:
        self.tokens.append(token)
        self.threads.append(threading.current_thread())

    def access(self, number: int = -1) -> str:
        return self.tokens[number].access_token.reveal()


async def ended(box: Sandbox) -> Store:
    """Return the store of an application whose access token has just ended."""
    store = Store(await granted(box))
    box.expire(store.access())
    return store


async def waits_for_token(task: asyncio.Task[Any]) -> None:
    """Wait until a call waits for a refresh."""
    while "_renewed" not in [frame.cr_code.co_name for frame in awaited(task)]:  # noqa: ASYNC110
        await asyncio.sleep(0)


def awaited(task: asyncio.Task[Any]) -> list[Any]:
    """Return the coroutines that a task is in, outermost first."""
    coroutine: Any = task.get_coro()
    chain = []
    while inspect.iscoroutine(coroutine):
        chain.append(coroutine)
        coroutine = coroutine.cr_await
    return chain
