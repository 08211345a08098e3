"""A TCP proxy that holds back what passes: a network with latency and jitter.

    python -m benchmarks.delay_proxy PORT [--latency S] [--jitter S]

The proxy connects to PORT of this machine, and prints the port where it listens itself. Half of the
latency goes to each way, the jitter to the way there: a random time for each piece, so for each
small request. No piece overtakes another one of its connection. The proxy ends when its standard
input does.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import threading
from collections import deque

from .server import end_with_parent


class Pipe(asyncio.Protocol):
    """One way of a connection: reads pieces, and writes each of them to the other end in time."""

    def __init__(self, delay: float, jitter: float = 0.0) -> None:
        self._delay, self._jitter = delay, jitter
        self._pieces: deque[bytes] = deque()  # b"" is the end of them
        self._latest = 0.0
        self._transport: asyncio.Transport | None = None
        self.other: Pipe | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Let the other end have it later."""
        loop = asyncio.get_running_loop()
        at = loop.time() + self._delay + random.uniform(0, self._jitter)
        self._latest = max(self._latest, at)
        self._pieces.append(data)
        loop.call_at(self._latest, self._pass_on)

    def connection_lost(self, error: Exception | None) -> None:
        """Close the other end, too, behind all that is under way."""
        self.data_received(b"")

    def _pass_on(self) -> None:
        # Timers of the same moment come in any order, so each of them passes on the first piece.
        data = self._pieces.popleft()
        if self.other is None or self.other._transport is None:
            return
        if data:
            self.other._transport.write(data)
        else:
            self.other._transport.close()


class Entrance(Pipe):
    """The way there: takes a client's connection, and opens one to the server for it."""

    def __init__(self, port: int, latency: float, jitter: float) -> None:
        super().__init__(latency / 2, jitter)
        self._port = port
        self._back = Pipe(latency / 2)
        self._back.other = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the server, and read no request before that."""
        super().connection_made(transport)
        assert self._transport is not None
        self._transport.pause_reading()
        self._opening = asyncio.create_task(self._open(self._transport))

    async def _open(self, client: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self._back, "127.0.0.1", self._port)
        except OSError:
            client.abort()
            return
        self.other = self._back
        if client.is_closing():
            self.data_received(b"")
        else:
            client.resume_reading()


async def serve(port: int, latency: float, jitter: float) -> None:
    """Listen on a free port until the parent process is gone."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Entrance(port, latency, jitter), "127.0.0.1", 0, backlog=512
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delay_proxy")
    parser.add_argument("port", type=int)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds, there and back")
    parser.add_argument("--jitter", type=float, default=0.005, help="seconds at most")
    options = parser.parse_args()
    threading.Thread(target=end_with_parent, daemon=True).start()
    asyncio.run(serve(**vars(options)))


if __name__ == "__main__":
    main()
