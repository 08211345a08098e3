"""Fixtures for both faces: a sandbox, and an open client of it."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import hypothesis
import pytest
from blockbuster import blockbuster_ctx

import drift_async
import drift_async.sync
from drift_async.sandbox import Sandbox
from tests.support.flavours import Awaitable

# How fast a machine is must not decide.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Spare every collection of garbage a look at the thousands of tests, which stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _nothing_blocks_a_loop() -> Iterator[None]:
    """Let what blocks an event loop fail, unless it is called by a test or by the sandbox."""
    with blockbuster_ctx("drift_async", excluded_modules=["drift_async.sandbox"]) as guard:
        allow = guard.functions
        # The blocking face blocks its caller, in a notebook the one loop of that.
        allow["threading.Lock.acquire"].can_block_in("drift_async/sync/portal.py", "run")
        # Settings are read where a client is made, a small file among them.
        allow["io.TextIOWrapper.read"].can_block_in("drift_async/core/secret.py", "secret_from")
        yield


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
def make_oauth(face: str) -> Callable[..., Any]:
    """Return what makes an OAuth client of either face, like `make`."""
    if face == "awaited":
        return drift_async.OAuth
    return lambda *args, **kwargs: Awaitable(drift_async.sync.OAuth(*args, **kwargs))


@pytest.fixture
async def drift(box: Sandbox, make: Callable[..., Any]) -> AsyncIterator[Any]:
    """An open client of the sandbox, of either face."""
    async with make(box.token, base_url=box.url) as drift:
        yield drift


@pytest.fixture
def loopback() -> str:
    """An address that nothing listens on."""
    return "http://127.0.0.1:9"
