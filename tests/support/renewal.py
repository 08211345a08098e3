"""An application that keeps its token, and the operations of a renewal."""

from __future__ import annotations

import asyncio
import threading

from drift_async import ResponseInfo, Token
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


class Refused:
    """An ``on_response`` that counts refused tokens; after each, its call waits for a refresh."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, info: ResponseInfo) -> None:
        self.count += info.status == 401

    async def reaches(self, count: int) -> None:
        while self.count < count:  # noqa: ASYNC110  # it has no event to wait for
            await asyncio.sleep(0)
