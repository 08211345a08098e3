"""Load for a web service: for each line `PATH COUNT FLIGHT` so many requests, so many in flight.

python webload.py PORT
"""

from __future__ import annotations

import asyncio
import sys

CONNECTIONS = 16

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(connection: Connection, path: str, requests: int) -> None:
    """Send requests one after another."""
    reader, writer = connection
    for n in range(requests):
        line = f"GET {path}?user-{n % 500} HTTP/1.1"
        writer.write(f"{line}\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        await reader.readexactly(size)


async def main(port: int) -> None:
    """Do what the lines ask for, and say when it is done."""
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    while line := await asyncio.to_thread(sys.stdin.readline):
        path, count, flight = line.split()
        share = int(count) // int(flight)
        await asyncio.gather(*(ask(one, path, share) for one in connections[: int(flight)]))
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
