"""The services of docs/examples in processes of their own, and all else that the sandbox sends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from drift_async import Drift, NewMessageEvent, Sandbox, WebhookEvent, Webhooks, to_json
from drift_async.webhooks.events import EVENTS
from tests.support.deliveries import TOKEN
from tests.support.models import unknown_fields
from tests.support.webhook_servers import SERVERS, Kept

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
COMMANDS = {
    path.name: re.findall(r"^    \.venv/bin/(?!pip )(.+)$", path.read_text(), re.MULTILINE)
    for path in sorted(EXAMPLES.glob("*.py"))
}
"""The commands in the head of each service that start it."""

PYTHON = os.environ.get("SERVICE_PYTHON", sys.executable)
"""The interpreter that the services run on; ``nox -s services`` gives one with nothing else."""


def test_each_service_has_one_command_that_starts_it() -> None:
    assert COMMANDS.keys() == {"aiohttp_service.py", "fastapi_service.py", "flask_service.py"}
    for command in COMMANDS.values():
        assert len(command) == 1


@asynccontextmanager
async def started(name: str, folder: Path, box: Sandbox) -> AsyncIterator[str]:
    """Run a copy of a service by the command in its head, on a free port; yield its address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
    (folder / name).write_text((EXAMPLES / name).read_text().replace("8000", port))
    words = COMMANDS[name][0].replace("8000", port).replace("docs/examples", str(folder))
    program, *arguments = words.split()
    command = [PYTHON, *([] if program == "python" else ["-m", program]), *arguments]
    env = {**os.environ, **box.env, "DRIFT_VERIFICATION_TOKEN": box.verification_token}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**env, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = []
    try:
        while b"unning on" not in (line := await process.stdout.readline()):
            said.append(line)
            assert line, b"".join(said).decode()
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        rest, _ = await process.communicate()
    assert process.returncode in (0, -signal.SIGTERM)
    assert b"Traceback" not in rest, rest.decode()


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_service_answers_a_contact_once(name: str, tmp_path: Path) -> None:
    heard: asyncio.Queue[WebhookEvent] = asyncio.Queue()
    listener = Webhooks(TOKEN)

    @listener.on(NewMessageEvent)
    async def hear(event: NewMessageEvent) -> None:
        await heard.put(event)

    author = {"id": 1, "type": "contact", "bot": False}
    async with (
        Sandbox(verification_token=TOKEN, webhook_retries=[0.05] * 100) as box,
        SERVERS["asgi"](listener) as port,
        started(name, tmp_path, box) as url,
        Drift.from_env(box.env) as drift,
    ):
        conversation = await drift.conversations.all().first()
        assert conversation is not None
        before = await drift.conversations.messages(conversation.id).collect()
        await box.add_webhook(f"{url}/drift", ["new_message"], copies=3)
        await box.add_webhook(f"http://127.0.0.1:{port}")
        await box.send_webhook("new_message", conversationId=conversation.id, author=author)
        for _ in ("the message", "the answer"):
            await heard.get()
        deliveries = await box.drain_webhooks()
        messages = await drift.conversations.messages(conversation.id).collect()
    answers = [message.body for message in messages[len(before) :]]
    assert answers == ["We will be with you shortly."]
    # A copy that comes while the handler runs is put off, where the answer tells of the handler.
    statuses = [delivery.status for delivery in deliveries]
    assert [status for status in statuses if status != 500] == [200] * 8
    assert name == "flask_service.py" or 500 not in statuses


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_service_refuses_what_is_not_from_drift(name: str, tmp_path: Path) -> None:
    async with Sandbox(webhook_retries=()) as box, started(name, tmp_path, box) as url:
        async with Sandbox(verification_token="another", webhook_retries=()) as stranger:
            await stranger.add_webhook(f"{url}/drift")
            await stranger.send_webhook("new_message")
            (delivery,) = await stranger.drain_webhooks()
        assert delivery.status == 401
        assert [request.method for request in box.seen] == []


async def test_what_the_sandbox_sends_is_what_is_read() -> None:
    kept = Kept()
    async with Sandbox(verification_token=TOKEN) as box, SERVERS["asgi"](kept.webhooks) as port:
        await box.add_webhook(f"http://127.0.0.1:{port}/drift")
        for kind in EVENTS:
            await box.send_webhook(kind)
        deliveries = await box.drain_webhooks()
        await kept.webhooks.drain()
    assert [delivery.status for delivery in deliveries] == [200] * len(EVENTS)
    assert [type(event) for event in kept.events] == list(EVENTS.values())
    for event, delivery in zip(kept.events, deliveries, strict=True):
        assert list(unknown_fields(event)) == []
        assert {**to_json(event), "token": TOKEN} == json.loads(delivery.body)
