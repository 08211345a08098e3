"""Names to addresses, on one daemon thread.

The loop's own way asks a thread pool, which can start no thread once the interpreter is ending; but
what was accepted is delivered just then. And its threads are waited for at exit, this one is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from queue import SimpleQueue
from typing import Any

Question = tuple[str, int, int, "asyncio.Future[list[dict[str, Any]]]"]

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Resolver:
    """Asks the system for addresses; bound to no event loop, so it serves one after another.

    The thread starts at once. In a forked child it is not there: make another resolver.
    """

    def __init__(self) -> None:
        self._questions: SimpleQueue[Question | None] = SimpleQueue()
        threading.Thread(
            target=_serve, args=(self._questions,), name="drift-async-resolver", daemon=True
        ).start()

    async def resolve(
        self, host: str, port: int = 0, family: int = socket.AF_INET
    ) -> list[dict[str, Any]]:
        """Return the addresses of *host*, or raise OSError."""
        answer: asyncio.Future[list[dict[str, Any]]] = asyncio.get_running_loop().create_future()
        self._questions.put((host, port, family, answer))
        return await answer

    async def close(self) -> None:
        """End the thread, without waiting for what it is asking."""
        self._questions.put(None)

    def __del__(self) -> None:
        self._questions.put(None)


def _serve(questions: SimpleQueue[Question | None]) -> None:
    while (question := questions.get()) is not None:
        host, port, family, answer = question
        result: list[dict[str, Any]] | Exception
        try:
            result = _look_up(host, port, family)
        except Exception as error:  # whatever it is, the thread goes on
            result = error
        with contextlib.suppress(RuntimeError):  # the loop of that question has ended
            answer.get_loop().call_soon_threadsafe(_give, answer, result)
        del question, answer  # they would keep their loop until the next


def _give(answer: asyncio.Future[list[dict[str, Any]]], result: Any) -> None:
    if answer.done():
        return  # cancelled
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)


def _look_up(host: str, port: int, family: int) -> list[dict[str, Any]]:
    found = socket.getaddrinfo(
        host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return [
        {
            "hostname": host,
            # By this way an IPv6 address keeps its zone.
            "host": socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0],
            "port": address[1],
            "family": kind,
            "proto": proto,
            "flags": _NUMERIC,
        }
        for kind, _, proto, _, address in found
        if isinstance(address[0], str)  # a Python built without IPv6 gives something else
    ]
