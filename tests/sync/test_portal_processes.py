"""The life of a blocking client: threads, notebooks, Ctrl-C, forks, exits. Real processes, real
signals; each has to end within five seconds with nothing on stderr."""

from __future__ import annotations

import sys

import pytest

from drift_async.sandbox import Sandbox
from tests.support.processes import BOUND, FORKED, QUIET_FORK, run, silent_server

pytestmark = pytest.mark.anyio


@pytest.mark.smoke
async def test_a_script_that_forgets_to_close_ends_quietly(box: Sandbox) -> None:
    said = await run(
        box.env,
        """
        drift = Drift.from_env(env)
        say(drift.users.all().first().id)
        """,
    )
    assert len(said) == 1


async def test_a_script_that_ends_in_the_middle_of_calls_ends_quietly() -> None:
    async with silent_server() as (env, arrived):
        await run(
            env,
            """
            drift = Drift.from_env(env)
            def work():
                with contextlib.suppress(DriftError):
                    drift.users.get(1)
            for _ in range(3):
                threading.Thread(target=work, daemon=True).start()
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
            """,
            ready=arrived,
        )


async def test_a_client_that_nobody_refers_to_ends_its_thread(box: Sandbox) -> None:
    said = await run(
        box.env,
        """
        drift = Drift.from_env(env)
        pager = drift.accounts.all()
        say(pager.first().account_id)
        del drift
        gc.collect()
        say("drift-async" in [thread.name for thread in threading.enumerate()])
        say(pager.first().account_id)
        del pager
        gc.collect()
        say("drift-async" in [thread.name for thread in threading.enumerate()])
        """,
    )
    assert said[1] is True
    assert said[0] == said[2]
    assert said[3] is False


async def test_threads_share_one_client(box: Sandbox) -> None:
    said = await run(
        box.env,
        """
        drift = Drift.from_env(env)
        def work():
            for _ in range(4):
                counts.append(len(drift.accounts.all(page_size=11).collect()))
        counts = []
        threads = [threading.Thread(target=work) for _ in range(20)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        say(counts)
        say([thread.name for thread in threading.enumerate()].count("drift-async"))
        """,
    )
    assert said == [[20] * 80, 1]


async def test_it_works_beside_a_running_loop_as_in_a_notebook(box: Sandbox) -> None:
    said = await run(
        box.env,
        """
        async def cell():
            asyncio.get_running_loop().slow_callback_duration = 5  # blocks it on purpose
            with Drift.from_env(env) as drift:
                return len(drift.accounts.all().collect())
        say(asyncio.run(cell()))
        say(asyncio.run(cell()))
        """,
    )
    assert said == [20, 20]


async def test_after_close_it_stays_closed_until_it_is_opened(box: Sandbox) -> None:
    said = await run(
        box.env,
        """
        drift = Drift.from_env(env)
        drift.close()
        try:
            drift.conversations.stats()
        except ClosedError as error:
            say([type(error).__name__, error.applied])
        drift.open()
        say(drift.users.all().first().id)
        drift.close()
        drift.close()
        """,
    )
    assert said[0] == ["ClosedError", False]
    assert len(said) == 2


async def test_closing_ends_the_calls_of_other_threads() -> None:
    async with silent_server() as (env, arrived):
        said = await run(
            env,
            """
            drift = Drift.from_env(env)
            def work():
                try:
                    drift.contacts.create("ada@example.com")
                except DriftError as error:
                    say([type(error).__name__, error.applied])
            thread = threading.Thread(target=work)
            thread.start()
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
            drift.close()
            thread.join(2)
            say(thread.is_alive())
            """,
            ready=arrived,
        )
    assert said == [["OutcomeUnknownError", None], False]


INTERRUPTED = """
drift = Drift.from_env(env)
began = time.monotonic()
try:
    drift.{call}
except KeyboardInterrupt as stop:
    say(getattr(stop, "__notes__", []))
say(time.monotonic() - began)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process there")
@pytest.mark.parametrize(
    ("call", "notes"),
    [
        ("contacts.get(7)", []),
        (
            "contacts.create('ada@example.com')",
            ["POST /contacts: was under way and may have been applied"],
        ),
    ],
)
async def test_ctrl_c_cancels_the_call_and_says_if_it_may_have_been_applied(
    call: str, notes: list[str]
) -> None:
    async with silent_server() as (env, arrived):
        said = await run(env, INTERRUPTED.format(call=call), ready=arrived)
    assert said[0] == notes
    assert said[1] < BOUND


@FORKED
@pytest.mark.smoke
async def test_a_client_that_opened_itself_works_in_a_forked_child_and_in_the_parent(
    box: Sandbox,
) -> None:
    said = await run(
        box.env,
        """
        drift = Drift.from_env(env)
        first = drift.users.all().first().id
        child = os.fork()
        if not child:
            say(drift.users.all().first().id == first)
            sys.exit()
        say(os.waitpid(child, 0)[1])
        say(drift.users.all().first().id == first)
        """,
        options=QUIET_FORK,
    )
    assert said == [True, 0, True]


@FORKED
@pytest.mark.smoke
async def test_a_forked_child_of_a_process_with_uvloop_ends_well(box: Sandbox) -> None:
    pytest.importorskip("uvloop")
    said = await run(
        box.env,
        """
        drift = Drift.from_env(env)
        first = drift.users.all().first().id
        say(type(drift._portal._thread._loop).__mro__[1].__module__)
        say([thread for thread in os.listdir("/proc/self/task")
             if "libuv" in open(f"/proc/self/task/{thread}/comm").read()])
        for _ in range(3):
            child = os.fork()
            if not child:
                say(drift.users.all().first().id == first)
                sys.exit()
            say(os.waitpid(child, 0)[1])
        say(drift.users.all().first().id == first)
        """,
        options=QUIET_FORK,
    )
    assert said == ["uvloop", [], *[True, 0] * 3, True]


@FORKED
async def test_a_client_held_by_with_raises_in_a_forked_child(box: Sandbox) -> None:
    said = await run(
        box.env,
        """
        with Drift.from_env(env) as drift:
            first = drift.users.all().first().id
            child = os.fork()
            if not child:
                try:
                    drift.users.all().first()
                except ForkError as error:
                    say([type(error).__name__, error.applied])
            else:
                say(os.waitpid(child, 0)[1])
                say(drift.users.all().first().id == first)
        """,
        options=QUIET_FORK,
    )
    assert said == [["ForkError", False], 0, True]


@FORKED
async def test_prefork_workers_share_a_client_made_at_import(box: Sandbox) -> None:
    said = await run(
        box.env,
        """
        drift = Drift.from_env(env)
        def work(number):
            return len(drift.accounts.all().collect())
        say(work(0))
        with multiprocessing.get_context("fork").Pool(3) as pool:
            say(pool.map(work, range(9)))
        say(work(0))
        """,
        options=QUIET_FORK,
    )
    assert said == [20, [20] * 9, 20]


@FORKED
async def test_a_walk_begun_before_a_fork_goes_on_in_the_child_and_in_the_parent(
    box: Sandbox,
) -> None:
    box.fail("accounts.all", delay=0.5, skip=1, times=1)  # so that it is on its way at the fork
    said = await run(
        box.env,
        """
        drift = Drift.from_env(env)
        pages = drift.accounts.all(page_size=7).pages()
        first = len(next(pages).items)
        child = os.fork()
        said = [first, *(len(page.items) for page in pages)]
        if child:
            say(os.waitpid(child, 0)[1])
        say(said)
        """,
        options=QUIET_FORK,
    )
    assert said == [[7, 7, 6], 0, [7, 7, 6]]


@FORKED
async def test_a_child_forked_during_the_first_call_starts_clean(box: Sandbox) -> None:
    said = await run(
        box.env,
        """
        from drift_async.sync.portal import LoopThread
        drift = Drift.from_env(env)
        opened, forked = threading.Event(), threading.Event()
        run = LoopThread.run
        def held(self, coroutine, timeout=None):
            result = run(self, coroutine, timeout)
            if not opened.is_set():
                opened.set()
                forked.wait()
            return result
        LoopThread.run = held
        thread = threading.Thread(target=lambda: say(len(drift.accounts.all().collect())))
        thread.start()
        opened.wait()
        child = os.fork()
        if not child:
            say(len(drift.accounts.all().collect()))
            os._exit(0)
        say(os.waitpid(child, 0)[1])
        forked.set()
        thread.join()
        """,
        options=QUIET_FORK,
    )
    assert said == [20, 0, 20]


async def test_a_call_on_the_clients_own_thread_is_refused(box: Sandbox) -> None:
    said = await run(
        box.env,
        """
        drift = Drift.from_env(env)
        async def on_the_loop():
            drift.users.get(1)
        try:
            drift._portal.run(on_the_loop())
        except WrongLoopError as error:
            say(str(error))
        """,
    )
    assert "own loop thread" in said[0]


async def test_context_variables_of_the_caller_are_seen_inside_the_call(box: Sandbox) -> None:
    said = await run(
        box.env,
        """
        from contextvars import ContextVar
        trace = ContextVar("trace")
        async def seen():
            return trace.get()
        drift = Drift.from_env(env)
        trace.set("mine")
        say(drift._portal.run(seen()))
        """,
    )
    assert said == ["mine"]


async def test_the_awaited_face_can_be_opened_in_one_loop_after_another(box: Sandbox) -> None:
    said = await run(
        box.env,
        """
        import drift_async
        drift = drift_async.Drift.from_env(env)
        async def forgetful():
            await drift.open()
            return len(await drift.accounts.all().collect())
        say(asyncio.run(forgetful()))
        async def unopened():
            try:
                await drift.users.get(1)
            except WrongLoopError as error:
                say(type(error).__name__)
        asyncio.run(unopened())
        async def tidy():
            async with drift:
                return len(await drift.accounts.all().collect())
        say(asyncio.run(tidy()))
        """,
        options=(),
    )
    assert said == [20, "WrongLoopError", 20]
