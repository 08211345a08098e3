"""Fixtures for both faces: a sandbox, and an open client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import drift_async
import drift_async.sync
from drift_async.sandbox import Sandbox

from .flavours import Awaitable


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    async with Sandbox() as box:
        yield box


@pytest.fixture(params=["awaited", "blocking"])
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(face: str) -> Callable[..., Any]:
    """Return what makes a client of either face, with awaitable methods; it is not open yet."""
    if face == "awaited":
        return drift_async.Drift
    return lambda *args, **kwargs: Awaitable(drift_async.sync.Drift(*args, **kwargs))


@pytest.fixture
async def drift(box: Sandbox, make: Callable[..., Any]) -> AsyncIterator[Any]:
    """An open client of the sandbox, of either face."""
    async with make(box.token, base_url=box.url) as drift:
        yield drift


@pytest.fixture
def loopback() -> str:
    """An address that nothing listens on."""
    return "http://127.0.0.1:9"
