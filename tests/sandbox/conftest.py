from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from drift_async.sandbox import Sandbox
from tests.support.sandbox_wire import NOW


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def box() -> AsyncIterator[Sandbox]:
    async with Sandbox(now=lambda: NOW) as opened:
        yield opened
