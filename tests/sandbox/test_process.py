"""The process form, its control API, and what the package imports."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import subprocess
import sys

import pytest

from drift_async.sandbox import Sandbox
from tests.support.sandbox_wire import ask, exchange, request_text

pytestmark = pytest.mark.anyio


async def test_the_control_api_shows_and_forgets_requests(box: Sandbox) -> None:
    await ask(box, "POST /emails/unsubscribe?x=%20", b'["\xc3\xa9"]')
    shown = (await ask(box, "GET /_sandbox/requests", token=None)).json
    [one] = shown["requests"]
    assert shown["count"] == 1
    assert (one["method"], one["raw_path"]) == ("POST", "/emails/unsubscribe?x=%20")
    assert base64.b64decode(one["body"]) == b'["\xc3\xa9"]'
    assert ["Host", "driftapi.com"] in one["headers"]
    assert (one["operation"], one["status"]) == ("contacts.unsubscribe", 200)
    assert one["applied"] is True
    assert (await ask(box, "DELETE /_sandbox/requests", token=None)).status == 204
    assert (await ask(box, "GET /_sandbox/requests/", token=None)).json["requests"] == []
    assert box.seen == []


async def test_the_control_api_scripts_faults_and_tokens(box: Sandbox) -> None:
    fault = {
        "operation": "users.all",
        "status": 503,
        "headers": {"Retry-After": "9"},
        "times": None,
    }
    assert (await ask(box, "POST /_sandbox/faults", fault, token=None)).status == 201
    answer = await ask(box, "GET /users/list")
    assert (answer.status, answer.headers["retry-after"]) == (503, "9")
    assert (await ask(box, "DELETE /_sandbox/faults", token=None)).status == 204
    raw = {"operation": "users.all", "raw": base64.b64encode(b"\xff").decode()}
    await ask(box, "POST /_sandbox/faults", raw, token=None)
    assert (
        await exchange(box, request_text("GET /users/list", None, "sandbox-token", "")) == b"\xff"
    )
    token = {"token": "new", "scopes": ["user_read"], "expires": 60}
    assert (await ask(box, "POST /_sandbox/tokens", token, token=None)).status == 201
    assert (await ask(box, "GET /users/list", token="new")).status == 200
    assert (await ask(box, "GET /contacts/1", token="new")).status == 403
    assert {one.raw_path for one in box.seen} == {"/users/list", "/contacts/1"}


@pytest.mark.parametrize(
    ("line", "body", "status"),
    [
        ("GET /_sandbox/nope", None, 404),
        ("PUT /_sandbox/faults", None, 405),
        ("POST /_sandbox/faults", {}, 400),
        ("POST /_sandbox/faults", {"operation": "nope"}, 400),
        ("POST /_sandbox/faults", {"operation": "*", "alter": 1}, 400),
        ("POST /_sandbox/faults", {"operation": "*", "delay": "1"}, 400),
        ("POST /_sandbox/faults", {"operation": "*", "status": 1.5}, 400),
        ("POST /_sandbox/faults", {"operation": "*", "skip": None}, 400),
        ("POST /_sandbox/faults", {"operation": "*", "reset": 1}, 400),
        ("POST /_sandbox/faults", {"operation": "*", "raw": "?"}, 400),
        ("POST /_sandbox/faults", {"operation": "*", "headers": {"a": 1}}, 400),
        ("POST /_sandbox/tokens", {}, 400),
        ("POST /_sandbox/tokens", {"token": "a", "scopes": ["x"]}, 400),
        ("POST /_sandbox/tokens", {"token": "a", "expires": "x"}, 400),
    ],
)
async def test_the_control_api_refuses_nonsense(
    box: Sandbox, line: str, body: object, status: int
) -> None:
    answer = await ask(box, line, body, token=None)
    assert (answer.status, "error" in answer.json) == (status, True)
    assert box.count == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_prints_one_line_and_ends_on_a_signal(number: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "drift_async.sandbox", "--contacts", "3", "--rate", "1000"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    line = json.loads(await process.stdout.readline())
    url, token = line["url"], line["token"]
    assert line == {
        "url": url,
        "token": token,
        "org_id": 123_458,
        "segmentstream_url": f"{url}/segmentstream",
        "segmentstream_token": "sandbox-stream",
    }
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request_text("GET /contacts", None, token, ""))
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    process.send_signal(number)
    rest, log = await process.communicate()
    writer.close()
    assert (process.returncode, rest) == (0, b"")
    assert b"listening" in log
    assert b"Traceback" not in log


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--burst", "2"], True),
        (["--window", "2000"], True),
        (["--window", "2000", "--no-retry-after"], False),
    ],
)
async def test_the_process_takes_the_limits(arguments: list[str], told: bool) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "drift_async.sandbox", "--rate", "0.001", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        url = json.loads(await process.stdout.readline())["url"]
        answers = [await ask(url, "GET /users/list") for _ in range(3)]
    finally:
        process.terminate()
        await process.wait()
    assert [one.status for one in answers] == [200, 200, 429]
    assert ("retry-after" in answers[2].headers) is told


async def test_the_process_says_why_it_cannot_start(box: Sandbox) -> None:
    port = box.url.rpartition(":")[2]
    for arguments in (
        ["--port", port],
        ["--users", "0"],
        ["--rate", "1", "--window", "1", "--burst", "1"],
        ["--webhook", "http://example.com/"],
    ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "drift_async.sandbox", *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, log = await process.communicate()
        assert (process.returncode, out) == (1, b"")
        assert log.startswith(b"drift_async.sandbox: ")
        assert b"Traceback" not in log


def test_the_package_imports_nothing_else_of_ours() -> None:
    code = (
        "import sys, drift_async\n"
        "before = set(sys.modules)\n"
        "import drift_async.sandbox\n"
        "new = {m for m in sys.modules if m.startswith('drift_async')} - before\n"
        "assert all(m.startswith('drift_async.sandbox') for m in new), new\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
