"""Look-ups of host names on one daemon thread.

asyncio looks names up in a thread pool. The pool can start no thread while the interpreter exits,
when accepted events are still being delivered, and the exit waits for its threads.
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
    """Asks the system for addresses. A resolver is bound to no event loop.

    The thread starts at once. A forked child has no such thread, and needs another resolver.
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
        """Stop the thread, without waiting for a look-up under way."""
        self._questions.put(None)

    def __del__(self) -> None:
        self._questions.put(None)


def _serve(questions: SimpleQueue[Question | None]) -> None:
    while (question := questions.get()) is not None:
        host, port, family, answer = question
        result: list[dict[str, Any]] | Exception
        try:
            result = _look_up(host, port, family)
        except Exception as error:  # the thread must survive every error
            result = error
        with contextlib.suppress(RuntimeError):  # the event loop of the question is closed
            answer.get_loop().call_soon_threadsafe(_set_answer, answer, result)
        del question, answer  # they would keep the event loop alive until the next question


def _set_answer(answer: asyncio.Future[list[dict[str, Any]]], result: Any) -> None:
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
            # getnameinfo keeps the zone of an IPv6 address.
            "host": socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0],
            "port": address[1],
            "family": kind,
            "proto": proto,
            "flags": _NUMERIC,
        }
        for kind, _, proto, _, address in found
        if isinstance(address[0], str)  # a Python built without IPv6 gives something else
    ]
