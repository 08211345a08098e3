"""Refreshes and the life of clients, loops and processes; on both faces."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from drift_async import ClosedError, Drift, OAuth, Token, to_json
from drift_async.core import call
from drift_async.sandbox import Sandbox
from tests.support.consent import SOMEBODY, app_of, granted, made, operations
from tests.support.examples import blocking
from tests.support.processes import FORKED, QUIET_FORK, run
from tests.support.renewal import GET, REFRESH, ended, waits_for_token

pytestmark = pytest.mark.anyio


async def test_a_client_that_is_closed_gives_a_refresh_time_to_be_stored(
    make: Any, box: Sandbox
) -> None:
    store, begun, go = await ended(box), threading.Event(), threading.Event()

    def save(token: Token) -> None:
        begun.set()
        assert go.wait(15)
        store.save(token)

    auth = app_of(box).auth(store.tokens[0], on_refresh=save)
    drift = make(auth=auth, base_url=box.url)
    await drift.open()
    waiting = asyncio.create_task(drift.contacts.get(SOMEBODY))
    await asyncio.to_thread(begun.wait)
    threading.Timer(0.05, go.set).start()
    await drift.close()
    assert len(store.tokens) == 2
    with pytest.raises(ClosedError):
        await waiting
    async with make(auth=auth, base_url=box.url) as drift:
        await drift.contacts.get(SOMEBODY)
    assert operations(box).count(REFRESH) == 1


async def test_that_time_is_bounded(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "RENEWAL_BOUND", 0.05)
    begun = asyncio.Event()

    async def save(token: Token) -> None:
        begun.set()
        await asyncio.sleep(3600)

    store = await ended(box)
    auth = app_of(box).auth(store.tokens[0], on_refresh=save)
    drift = Drift(auth=auth, base_url=box.url)
    await drift.open()
    waiting = asyncio.create_task(drift.contacts.get(SOMEBODY))
    await begun.wait()
    await drift.close()
    with pytest.raises(ClosedError):
        await waiting
    auth._on_refresh = store.save  # the token itself is still there
    async with Drift(auth=auth, base_url=box.url) as drift:
        await drift.contacts.get(SOMEBODY)
    assert operations(box).count(REFRESH) == 1
    assert len(store.tokens) == 2


async def test_another_client_goes_on_with_a_refresh_that_ended_with_the_first(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "RENEWAL_BOUND", 0.0)
    store, begun, go = await ended(box), asyncio.Event(), asyncio.Event()

    async def save(token: Token) -> None:
        begun.set()
        await go.wait()
        store.save(token)

    auth = app_of(box).auth(store.tokens[0], on_refresh=save)
    first = Drift(auth=auth, base_url=box.url)
    await first.open()
    one = asyncio.create_task(first.contacts.get(SOMEBODY))
    await begun.wait()
    async with Drift(auth=auth, base_url=box.url) as second:
        two = asyncio.create_task(second.contacts.get(SOMEBODY))
        await waits_for_token(two)
        await first.close()
        go.set()
        assert (await two).id == SOMEBODY
    with pytest.raises(ClosedError):
        await one
    assert operations(box).count(REFRESH) == 1


def test_a_refresh_in_a_loop_that_ended_does_not_block_the_next_loop() -> None:
    asked = []

    async def refresh(token: Token) -> Token:
        asked.append(token)
        if len(asked) == 1:
            await asyncio.sleep(3600)
        return made("access-2")

    auth = OAuth("id", "secret").auth(made())
    auth._refresh = refresh
    drift = Drift(auth=auth)

    async def renew(seconds: float) -> None:
        await drift.open()
        live = drift._caller.site.live
        assert live is not None
        async with asyncio.timeout(seconds):
            await auth.renew(auth.secret, live)
        await drift.close()

    loop = asyncio.new_event_loop()
    with pytest.raises(TimeoutError):
        loop.run_until_complete(renew(0.01))
    left = asyncio.all_tasks(loop)
    loop.close()  # without a thought for what is under way
    asyncio.run(renew(10))
    assert auth.secret.reveal() == "access-2"
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.get_coro().close()


class MeetingLoop(asyncio.SelectorEventLoop):
    """Holds who finds it closed first until somebody else does too, or nobody comes."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def is_closed(self) -> bool:
        if not super().is_closed():
            return False
        self.found += 1
        if self.found == 1:
            until = time.monotonic() + 0.2
            while self.found == 1 and time.monotonic() < until:
                pass  # not a wait that the guard against blocking would see
        return True


def test_two_threads_that_find_such_a_refresh_make_one_together() -> None:
    asked: list[Token] = []
    waiting: list[asyncio.Task[None]] = []

    async def refresh(token: Token) -> Token:
        asked.append(token)
        if len(asked) == 1:
            await asyncio.sleep(3600)
        await asyncio.sleep(0.05)
        return made("access-2")

    auth = OAuth("id", "secret").auth(made())
    auth._refresh, stale = refresh, auth.secret

    async def renew(seconds: float) -> None:
        async with Drift(auth=auth) as drift, asyncio.timeout(seconds):
            live = drift._caller.site.live
            assert live is not None
            await auth.renew(stale, live)

    first = Drift(auth=auth)

    async def begin() -> None:
        await first.open()
        live = first._caller.site.live
        assert live is not None
        waiting.append(asyncio.create_task(auth.renew(stale, live)))
        while not asked:  # noqa: ASYNC110
            await asyncio.sleep(0)

    loop = MeetingLoop()
    loop.run_until_complete(begin())
    left = asyncio.all_tasks(loop)
    loop.close()
    threads = [threading.Thread(target=asyncio.run, args=(renew(5),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(first.close())
    assert len(asked) == 2
    assert auth.secret.reveal() == "access-2"
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.get_coro().close()


async def test_a_refresh_at_the_very_end_of_the_process_is_stored_too(box: Sandbox) -> None:
    token = await granted(box)
    refused = {"error": {"type": "authentication_error", "message": "ended"}}
    box.fail(GET, status=401, body=refused, skip=1)
    said = await run(
        {**box.env, "TOKEN": json.dumps(to_json(token))},
        """
        import atexit
        from drift_async.sync import OAuth, Token, from_json
        token = from_json(Token, json.loads(env["TOKEN"]))
        auth = OAuth.from_env(env).auth(token, on_refresh=lambda token: say("stored"))
        drift = Drift.from_env(env, auth=auth)
        drift.contacts.get(15_811_400_007)
        atexit.register(lambda: say(drift.contacts.get(15_811_400_007).id))
        """,
    )
    assert said == ["stored", SOMEBODY]
    assert operations(box) == [GET, GET, REFRESH, GET]


@FORKED
async def test_a_forked_child_does_not_wait_for_the_refresh_of_its_parent(box: Sandbox) -> None:
    store = await ended(box)
    env = {**box.env, "TOKEN": json.dumps(to_json(store.tokens[0]))}
    said = await run(
        env,
        """
        from drift_async.sync import OAuth, Token, from_json
        begun, go, parent = threading.Event(), threading.Event(), os.getpid()
        def save(token):
            begun.set()
            if os.getpid() == parent:
                go.wait()
        token = from_json(Token, json.loads(env["TOKEN"]))
        drift = Drift.from_env(env, auth=OAuth.from_env(env).auth(token, on_refresh=save))
        caller = threading.Thread(target=lambda: say(drift.contacts.get(15_811_400_007).id))
        caller.start()
        begun.wait()
        child = os.fork()
        if not child:
            say(["child", drift.contacts.get(15_811_400_007).id])
            os._exit(0)
        say(os.waitpid(child, 0)[1])
        go.set()
        caller.join()
        """,
        options=QUIET_FORK,
    )
    assert said == [["child", SOMEBODY], 0, SOMEBODY]
    assert operations(box).count(REFRESH) == 1  # what the parent had got was there at the fork


PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from drift_async import CredentialsError, Drift, OAuth, Token, from_json, to_json

url, file, when = sys.argv[1:]
file = Path(file)

def save(token):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    file.with_suffix(".new").write_text(json.dumps(to_json(token)))
    os.replace(file.with_suffix(".new"), file)
    if when == "after":
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    token = from_json(Token, json.loads(file.read_text()))
    oauth = OAuth("sandbox-client", "sandbox-secret", base_url=url)
    async with Drift(auth=oauth.auth(token, on_refresh=save), base_url=url) as drift:
        for _ in range(3):
            try:
                print((await drift.contacts.get(15_811_400_007)).id)
            except CredentialsError as error:
                print(type(error).__name__)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
@pytest.mark.parametrize("face", ["awaited", "blocking"])
@pytest.mark.parametrize(
    ("when", "then", "refreshes"),
    [("after", [str(SOMEBODY)] * 3, 1), ("before", ["CredentialsError"] * 3, 2)],
)
async def test_a_process_that_is_killed_around_storing_its_token(
    box: Sandbox, tmp_path: Path, face: str, when: str, then: list[str], refreshes: int
) -> None:
    store, file = await ended(box), tmp_path / "token.json"
    file.write_text(json.dumps(to_json(store.tokens[0])))
    awaited = "import asyncio\n" + PROGRAM + "\nasyncio.run(main())\n"
    program = awaited if face == "awaited" else blocking(PROGRAM) + "\nmain()\n"

    def started(when: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, box.url, str(file), when]
        return subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)

    killed = await asyncio.to_thread(started, when)
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, ""), killed.stderr
    again = await asyncio.to_thread(started, "never")
    assert (again.stdout.split(), again.stderr) == (then, "")
    assert operations(box).count(REFRESH) == refreshes
