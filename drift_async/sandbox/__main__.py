"""`python -m drift_async.sandbox`: the sandbox as a process.

Once it listens, it prints one line of JSON with the URLs, tokens and the organisation's id that a
client needs. It logs to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys

from . import Sandbox

LOG = logging.getLogger("drift_async.sandbox")


def _arguments(given: list[str] | None, program: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--token", default="sandbox-token")
    parser.add_argument("--rate", type=float, help="calls a second for each token")
    parser.add_argument("--segmentstream-token", default="sandbox-stream", metavar="TOKEN")
    parser.add_argument("--event-rate", type=float, help="calls a second for each event API")
    parser.add_argument(
        "--burst",
        type=int,
        metavar="N",
        help="calls let in at once; by default a tenth of a second's worth of the rate",
    )
    parser.add_argument(
        "--window",
        type=float,
        metavar="SECONDS",
        help="count calls in fixed windows of so many seconds, without a burst",
    )
    parser.add_argument(
        "--no-retry-after",
        dest="retry_after",
        action="store_false",
        help="refuse calls over a limit without saying how long to wait",
    )
    for name, count in (
        ("contacts", 100),
        ("conversations", 50),
        ("messages", 3),
        ("users", 5),
        ("accounts", 20),
        ("playbooks", 3),
        ("meetings", 20),
        ("org-id", 123_458),
        ("keep", 10_000),
        ("keep-events", 100_000),
    ):
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N")
    parser.add_argument("--attachment-size", type=int, default=4096, metavar="BYTES")
    parser.add_argument("--client-id", default="sandbox-client", metavar="ID")
    parser.add_argument("--client-secret", default="sandbox-secret", metavar="SECRET")
    parser.add_argument("--lifetime", type=float, default=7200.0, help="of OAuth tokens, seconds")
    parser.add_argument("--verification-token", default="sandbox-verification", metavar="TOKEN")
    parser.add_argument("--webhook", action="append", default=[], metavar="URL", help="on loopback")
    parser.add_argument("--strict", action="store_true", help="no listing of all contacts")
    parser.add_argument("--denied-status", type=int, choices=(401, 403), default=401)
    parser.add_argument("--links-host", help="host in the links of the conversation listing")
    return parser.parse_args(given)


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    webhooks = vars(arguments).pop("webhook")
    async with Sandbox(**vars(arguments)) as box:
        for url in webhooks:
            await box.add_webhook(url)
        names = ("url", "token", "org_id", "segmentstream_url", "segmentstream_token")
        print(json.dumps({name: getattr(box, name) for name in names}), flush=True)
        LOG.info("listening on %s", box.url)
        await stop.wait()
        LOG.info("stopping after %d requests", box.count)


def main(given: list[str] | None = None, program: str = "python -m drift_async.sandbox") -> None:
    """Run until SIGINT or SIGTERM; exit 1 when it cannot start."""
    arguments = _arguments(given, program)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_run(arguments))
    except (OSError, OverflowError, ValueError) as error:  # a taken port, a count below 0
        sys.exit(f"drift_async.sandbox: {error}")


if __name__ == "__main__":
    main()
