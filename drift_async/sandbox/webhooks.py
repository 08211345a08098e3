"""Sends webhooks to addresses on this machine only, and logs each attempt."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import aiohttp
import attrs
from yarl import URL

from .payloads import PAYLOADS
from .types import Json, encode

PENDING: Final = 10_000


@attrs.frozen
class Delivery:
    """One attempt to deliver a webhook.

    `status` is the answer of the receiver, None without one; `seconds` is how long it took.
    `attempt` counts from 1; 0 stands for a webhook that was not sent, because too many wait.
    """

    type: str
    url: str
    body: bytes = attrs.field(repr=False)
    attempt: int
    status: int | None
    seconds: float

    @property
    def delivered(self) -> bool:
        """Whether the receiver accepted the webhook; if not, it is tried again."""
        return self.status is not None and 200 <= self.status < 300


@attrs.define(eq=False)
class Hook:
    """An address and its webhooks; `Sandbox.add_webhook` explains the fields."""

    url: URL
    types: frozenset[str] | None
    copies: int
    reverse: int
    turn: asyncio.Semaphore
    held: list[tuple[str, bytes]] = attrs.field(init=False, factory=list)


def _loopback(url: str) -> URL:
    try:
        parsed = URL(url)
        host = parsed.host or ""
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local or parsed.scheme not in ("http", "https"):
        raise ValueError("url must be http or https, with localhost or a loopback address")
    return parsed


class Webhooks:
    """Sends webhooks in the background.

    Each address gets its webhooks one by one; a failed one is tried again beside the others.
    """

    def __init__(
        self,
        org_id: int,
        token: str,
        *,
        retries: Sequence[float],
        timeout: float,
        clock: Callable[[], float],
        keep: int,
    ) -> None:
        self.org_id, self.token = org_id, token
        self._retries = retries
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._clock = clock
        self._hooks: list[Hook] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self.log: deque[Delivery] = deque(maxlen=keep)

    def add(self, url: str, types: Iterable[str] | None, copies: int = 1, reverse: int = 1) -> None:
        """Send webhooks of these types (None: all) to this address from now on."""
        wanted = None if types is None else frozenset(types)
        if wanted and (unknown := wanted - PAYLOADS.keys()):
            raise ValueError(f"events: there is no {min(unknown)!r}")
        if copies < 1 or reverse < 1:
            raise ValueError("copies and reverse must be at least 1")
        turn = asyncio.Semaphore(copies)
        self._hooks.append(Hook(_loopback(url), wanted, copies, reverse, turn))

    def send(self, kind: str, data: Any) -> None:
        """Queue a webhook for every address that wants it."""
        hooks = [hook for hook in self._hooks if hook.types is None or kind in hook.types]
        if not hooks:
            return
        value: Json = {"orgId": self.org_id, "type": kind, "token": self.token, "data": data}
        body = encode(value).encode()
        for hook in hooks:
            hook.held.append((kind, body))
            if len(hook.held) >= hook.reverse:
                self._release(hook)

    def _release(self, hook: Hook) -> None:
        held, hook.held = hook.held, []
        for kind, body in reversed(held):
            for _ in range(hook.copies):
                if len(self._tasks) >= PENDING:
                    self.log.append(Delivery(kind, str(hook.url), body, 0, None, 0.0))
                    continue
                task = asyncio.create_task(self._deliver(hook, kind, body))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _deliver(self, hook: Hook, kind: str, body: bytes) -> None:
        async with hook.turn:
            done = await self._attempt(hook.url, kind, body, 1)
        for attempt, wait in enumerate(self._retries, 2):
            if done:
                break
            await asyncio.sleep(wait)
            done = await self._attempt(hook.url, kind, body, attempt)

    async def _attempt(self, url: URL, kind: str, body: bytes, attempt: int) -> bool:
        if self._session is None:
            connector = aiohttp.TCPConnector(force_close=True)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        headers = {"Content-Type": "application/json", "X-Verification-Token": self.token}
        status, began = None, self._clock()
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass  # logged below, without a status
        seconds = self._clock() - began
        self.log.append(Delivery(kind, str(url), body, attempt, status, seconds))
        return self.log[-1].delivered

    async def drain(self, timeout: float) -> None:
        """Wait until all webhooks are sent; TimeoutError after *timeout* seconds."""
        async with asyncio.timeout(timeout):
            while self._tasks or any(hook.held for hook in self._hooks):
                for hook in self._hooks:
                    self._release(hook)
                if self._tasks:
                    await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Drop the webhooks that are not sent yet."""
        for hook in self._hooks:
            hook.held.clear()
            hook.turn = asyncio.Semaphore(hook.copies)  # the old one belongs to this loop
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        session, self._session = self._session, None
        if session is not None:
            await session.close()
