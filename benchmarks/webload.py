"""Load for a web service: so many requests over 16 connections.

python webload.py PORT REQUESTS
"""

from __future__ import annotations

import asyncio
import sys

CONNECTIONS = 16


async def connection(port: int, requests: int) -> None:
    """Send requests one after another."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for n in range(requests):
        writer.write(b"GET /?user-%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % (n % 500))
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        await reader.readexactly(size)
    writer.close()


async def main(port: int, requests: int) -> None:
    """Send them all."""
    await asyncio.gather(*(connection(port, requests // CONNECTIONS) for _ in range(CONNECTIONS)))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
