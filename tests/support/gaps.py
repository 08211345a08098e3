"""How long an event loop does nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Self


class Gaps:
    """Measures the longest time between two turns of the loop, in seconds of *clock*.

    The clock of the thread's own CPU time tells nothing of what else the machine does.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self.longest = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)  # a last turn, after what has just ended
        self._task.cancel()

    async def _tick(self) -> None:
        last = self._clock()
        while True:
            await asyncio.sleep(0)
            now = self._clock()
            self.longest = max(self.longest, now - last)
            last = now
