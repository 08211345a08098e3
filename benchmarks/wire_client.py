"""A client in a process of its own: tasks that call as fast as the client lets them.

    python -m benchmarks.wire_client URL TOKEN [--rate RATE] [--tasks N] [--wait S] [--seconds S]

The program prints a `Log` as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass

from drift_async import Drift, Rate, ResponseInfo
from drift_async.sandbox.seed import CONTACT_ID


@dataclass(frozen=True)
class Log:
    """When replies came, in seconds of the monotonic clock, which all processes share.

    ``let_in`` are the replies with a 2xx status, ``refused`` those with 429, ``other`` are
    attempts that ended in another way. ``failed`` counts the calls that raised, by their error.
    """

    began: float
    let_in: list[float]
    refused: list[float]
    other: list[float]
    failed: dict[str, int]
    rate: float | None
    """The requests a second that the client held to at the end."""


async def call(
    url: str, token: str, rate: float | None, tasks: int, wait: float, seconds: float
) -> Log:
    """Let *tasks* read one contact again and again; *wait* before it."""
    let_in, refused, other = list[float](), list[float](), list[float]()
    failed = Counter[str]()

    def heard(info: ResponseInfo) -> None:
        now = time.monotonic()
        if info.status is None:
            if info.error not in ("held", "cancelled"):
                other.append(now)
        elif 200 <= info.status < 300:
            let_in.append(now)
        else:
            (refused if info.status == 429 else other).append(now)

    async def work() -> None:
        while True:
            try:
                await drift.contacts.get(CONTACT_ID)
            except Exception as error:
                failed[type(error).__name__] += 1
                await asyncio.sleep(0)  # a call that fails at once must not stop the loop

    async with Drift(
        token,
        base_url=url,
        rate=Rate(per_second=rate),
        on_response=heard,
    ) as drift:
        await asyncio.sleep(wait)
        began = time.monotonic()
        working = [asyncio.create_task(work()) for _ in range(tasks)]
        await asyncio.sleep(seconds)
        held_to = drift.rate.per_second
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    return Log(began, let_in, refused, other, failed, held_to)


def main() -> None:
    """Call, and print the log."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wire_client")
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("--rate", type=float, help="a fixed one, in requests a second")
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--wait", type=float, default=0.0, help="seconds before the first call")
    parser.add_argument("--seconds", type=float, default=30.0)
    print(json.dumps(asdict(asyncio.run(call(**vars(parser.parse_args()))))))


if __name__ == "__main__":
    main()
