"""Programs that end without closing, fork, or use a client in one loop after another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drift_async.core.process import EXIT_BOUND
from drift_async.sandbox import Sandbox
from tests.support.event_programs import run
from tests.support.server import Server, dead_url, reply

pytestmark = pytest.mark.anyio

START = 5.0
"""Seconds that starting an interpreter may take here."""

QUIET_FORK = ("-W", "ignore:.*fork:DeprecationWarning")

# The exit bound is cut short in the suite; the slow session takes the real one.
BOUNDS = pytest.mark.parametrize("bound", [1.0, pytest.param(EXIT_BOUND, marks=pytest.mark.slow)])
SHORTEN = """
import drift_async.core.process as process
process.EXIT_BOUND = {bound}
"""

# However long it takes, nothing is under way when it ends, which would be sent again.
SCRIPT = """
events = DriftEvents.from_env(env, linger=60{outbox})
await events.open()
for n in range(2000):
    await events.track("Step", user_id=n % 100, attributes={{"n": n}})
say(events.stats().accepted)
"""


MANY = """
clients = [DriftEvents.from_env(env) for _ in range(4)]
for client in clients:
    client.track("Step", user_id=1)
"""


def in_order(box: Sandbox) -> bool:
    steps: dict[str, list[int]] = {}
    for event in box.events("drift"):
        steps.setdefault(event.user, []).append(event.value["attributes"]["n"])
    return all(numbers == sorted(numbers) for numbers in steps.values())


@pytest.mark.smoke
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_script_that_just_ends_has_delivered_everything(
    box: Sandbox, face: str, host: str
) -> None:
    env = {**box.env, "DRIFT_EVENTS_URL": box.url.replace("127.0.0.1", host)}
    ended = await run(env, SCRIPT.format(outbox=""), face=face)
    assert ended.errors == ""
    assert ended.code == 0
    assert box.event_counts("drift").accepted == 2000
    assert box.event_counts("drift").repeats == 0
    assert in_order(box)


async def test_so_it_has_with_an_outbox_on_disk(box: Sandbox, face: str, tmp_path: Path) -> None:
    program = SCRIPT.format(outbox=f", outbox={str(tmp_path / 'o')!r}").replace("2000", "200")
    ended = await run(box.env, program, face=face)
    assert ended.errors == ""
    assert box.event_counts("drift").accepted == 200
    assert in_order(box)


@pytest.mark.parametrize("client", ["Drift", "DriftEvents"])
async def test_connections_that_nobody_closed_end_with_their_loop(
    box: Sandbox, face: str, client: str
) -> None:
    uses = {
        "Drift": "users.all().first()",
        "DriftEvents": "identify(user_id=1); await client.flush(10)",
    }
    program = f"""
        client = {client}.from_env(env)
        await client.open()
        await client.{uses[client]}
    """
    ended = await run(box.env, program, face=face)
    assert (ended.errors, ended.code) == ("", 0)
    assert box.count == 1


@BOUNDS
async def test_with_a_dead_server_it_ends_in_time_and_says_what_is_left(
    face: str, bound: float
) -> None:
    async with dead_url() as url:
        env = {"DRIFT_ORG_ID": "1", "DRIFT_EVENTS_URL": url}
        program = SHORTEN.format(bound=bound) + SCRIPT.format(outbox="")
        ended = await run(env, program, face=face)
    assert ended.code == 0
    assert bound <= ended.seconds < bound + START
    assert ended.errors == "closed with 2000 events not delivered, in memory\n"


@BOUNDS
async def test_with_a_dead_server_an_outbox_on_disk_keeps_them(
    box: Sandbox, face: str, bound: float, tmp_path: Path
) -> None:
    outbox = f", outbox={str(tmp_path)!r}"
    async with dead_url() as url:
        env = {**box.env, "DRIFT_EVENTS_URL": url}
        program = SHORTEN.format(bound=bound) + SCRIPT.format(outbox=outbox).replace("2000", "200")
        ended = await run(env, program, face=face)
    assert ended.errors == "closed with 200 events not delivered, on disk\n"
    await run(box.env, f"await DriftEvents.from_env(env{outbox}).open()", face=face)
    assert box.event_counts("drift").accepted == 200
    assert in_order(box)


@pytest.mark.slow
async def test_ten_thousand_events_do_not_hold_up_an_exit_with_a_dead_server(
    box: Sandbox, face: str, tmp_path: Path
) -> None:
    outbox = f", outbox={str(tmp_path)!r}"
    program = f"""
events = DriftEvents.from_env(env{outbox})
await events.open()
say(await events.track_many(
    Track("Step", user_id=n % 100, attributes={{"n": n}}) for n in range(10_000)
))
began = time.monotonic()
"""
    async with dead_url() as url:
        env = {**box.env, "DRIFT_EVENTS_URL": url}
        closes = program + "stats = await events.close(2)\nsay([stats.pending, stats.delivered])\n"
        closed = await run(env, closes + "say(time.monotonic() - began)\n", face=face)
        left = await run(env, program, face=face)
    assert closed.said[:2] == [10_000, [10_000, 0]]
    assert 1.999 <= closed.said[2] < 2.5  # type: ignore[operator]
    assert left.errors == "closed with 20000 events not delivered, on disk\n"
    assert left.seconds < EXIT_BOUND + START
    opens = f"await DriftEvents.from_env(env{outbox}).open()"
    await run(box.env, opens, face=face)
    assert box.event_counts("drift").accepted == 20_000


@BOUNDS
async def test_several_clients_share_the_exit_bound(bound: float) -> None:
    async with dead_url() as url:
        ended = await run(
            {"DRIFT_ORG_ID": "1", "DRIFT_EVENTS_URL": url},
            SHORTEN.format(bound=bound) + MANY,
        )
    assert ended.seconds < 2 * bound + START
    assert ended.errors.count("closed with 1 events not delivered") == 4


async def test_a_server_that_says_503_does_not_hold_up_close(face: str) -> None:
    async with Server(reply(status="503 Busy", Retry_After="30")) as server:
        ended = await run(
            {"DRIFT_ORG_ID": "1", "DRIFT_EVENTS_URL": server.url},
            """
            logging.disable()
            events = DriftEvents.from_env(env)
            await events.open()
            for n in range(120):
                await events.track("Step", user_id=n)
            began = time.monotonic()
            stats = await events.close(1)
            say(time.monotonic() - began)
            say([stats.accepted, stats.delivered, stats.pending])
            """,
            face=face,
        )
    assert ended.errors == ""
    assert 0.999 <= ended.said[0] < 2  # type: ignore[operator]
    assert ended.said[1] == [120, 0, 120]
    assert len(server.got) <= 4


async def test_a_burst_over_all_limits_waits_and_arrives(box: Sandbox, face: str) -> None:
    ended = await run(
        box.env,
        """
        events = DriftEvents.from_env(env, max_events=2_000, linger=0)
        await events.open()
        say(await events.track_many(Track("Step", user_id=n) for n in range(6_000)))
        say((await events.close()).delivered)
        """,
        face=face,
    )
    assert ended.errors == ""
    assert ended.said == [6000, 6000]
    assert box.event_counts("drift").accepted == 6000


FORKED = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


@FORKED
@pytest.mark.parametrize("outbox", ["None", "'outbox'"])
@pytest.mark.parametrize("face", ["awaited", "blocking"])
async def test_a_forked_child_starts_clean_and_the_parent_goes_on(
    box: Sandbox, face: str, outbox: str, tmp_path: Path
) -> None:
    ended = await run(
        box.env,
        f"""
        os.chdir({str(tmp_path)!r})
        events = DriftEvents.from_env(env, outbox={outbox})
        {"await events.open()" if face == "awaited" else ""}
        for n in range(100):
            await events.track("Parent", user_id=n)
        child = os.fork()
        if not child:
            say([events.stats().accepted, events.stats().pending])
            if {face == "awaited"}:
                # The loop is the parent's; its own begins in another thread.
                import threading
                def work():
                    async def sends():
                        async with events:
                            for n in range(100):
                                await events.track("Child", user_id=n)
                    asyncio.run(sends())
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
                os._exit(0)
            for n in range(100):
                await events.track("Child", user_id=n)
            sys.exit()
        say(os.waitpid(child, 0)[1])
        say((await events.close()).delivered)
        """,
        face=face,
        options=QUIET_FORK,
    )
    assert ended.errors == ""
    assert ended.said == [[0, 0], 0, 100]
    names = [event.value["event"] for event in box.events("drift")]
    assert (names.count("Parent"), names.count("Child")) == (100, 100)
    assert box.event_counts("drift").repeats == 0


async def test_one_client_serves_two_loops_also_when_it_was_not_closed(box: Sandbox) -> None:
    ended = await run(
        box.env,
        """
        events = DriftEvents.from_env(env, linger=5)
        async def forgetful(name):
            await events.open()
            for n in range(50):
                await events.track(name, user_id=n)
            say(events.stats().pending)
        asyncio.run(forgetful("One"))
        asyncio.run(forgetful("Two"))
        """,
        face="plain",
    )
    assert ended.errors == ""
    assert ended.said == [50, 100]
    assert box.event_counts("drift").accepted == 100
    assert box.event_counts("drift").repeats == 0


async def test_a_loop_that_was_only_stopped_goes_on_at_exit(box: Sandbox) -> None:
    ended = await run(
        box.env,
        """
        events = DriftEvents.from_env(env, linger=5)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(events.open())
        loop.run_until_complete(events.track("Step", user_id=1))
        """,
        face="plain",
    )
    assert box.event_counts("drift").accepted == 1
    assert ended.code == 0


async def test_sigterm_in_an_ordinary_service_drains_through_the_ordinary_close(
    box: Sandbox,
) -> None:
    ended = await run(
        box.env,
        """
        import signal
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with DriftEvents.from_env(env, linger=60) as events:
            for n in range(300):
                await events.track("Step", user_id=n)
            os.kill(os.getpid(), signal.SIGTERM)
            await stop.wait()
        say(events.stats().delivered)
        """,
        face="awaited",
    )
    assert (ended.errors, ended.said) == ("", [300])
    assert box.event_counts("drift").accepted == 300
