"""The event-loop thread of a blocking client, and the way across to it.

A call crosses by a deque, one wake-up of the loop, and a lock to wait on: about a third of what a
general-purpose portal costs. The thread ends with the client: by `close`, when the client is
collected, or at interpreter exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

import anyio

from ..errors import ClosedError, DriftError, ForkError, WrongLoopError

T = TypeVar("T")

EXIT_BOUND = 5.0
"""Seconds that closing may take at interpreter exit."""

INTERRUPT_BOUND = 1.0
"""Seconds that Ctrl-C waits for the call it has cancelled."""

# From 3.12 on a task need not wait for the next turn of the loop to begin.
_AT_ONCE: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class Lifecycle(Protocol):
    """The client of the awaited face."""

    async def open(self) -> object: ...
    async def close(self) -> object: ...


class Loop:
    """Runs the coroutines of one client on its thread; opens the client at the first call."""

    def __init__(self, client: Lifecycle) -> None:
        self._client = client
        self._thread: Thread | None = None
        self._starting: Thread | None = None
        self._ending: Thread | None = None
        self._lock = threading.Lock()
        self._refusal: Callable[[], Exception] | None = None
        self._held = False
        self._finalizer: weakref.finalize[[Thread, Lifecycle], Loop] | None = None
        _loops.add(self)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await *coroutine* on the loop thread, in the caller's context, and return its result."""
        thread = self._thread
        if thread is None:
            try:
                thread = self._begin()
            except BaseException:
                coroutine.close()
                raise
        return thread.run(coroutine)

    def read(self, look: Callable[[], T]) -> T:
        """Return what *look* gives; on the loop thread if there is one, so that nothing moves."""
        thread = self._thread
        return look() if thread is None else thread.run(_looked(look))

    def leave(self, ending: Coroutine[Any, Any, T]) -> T:
        """Await what ends something of an open client; of a closed one, that has ended already."""
        thread = self._thread
        return _at_once(ending) if thread is None else thread.run(ending)

    def open(self, client: Lifecycle) -> None:
        """Open the client and hold it open: a forked child may then not use it."""
        if client is not self._client:
            _at_once(client.open())
        refusal, self._refusal = self._refusal, None
        try:
            self._begin()
        except BaseException:
            self._refusal = self._refusal or refusal
            raise
        self._held = True

    def close(self, client: Lifecycle, closing: Coroutine[Any, Any, T]) -> T:
        """Await *closing* and end the thread; the client stays closed until `open`."""
        if client is not self._client:
            _at_once(closing)
        with self._lock:
            if (thread := self._thread or self._ending) is not None and thread.is_current():
                closing.close()
                raise _on_its_own_thread()
            thread, self._thread = self._thread, None
            self._ending = thread or self._ending
            self._held = False
            self._refusal = self._refusal or _closed
            if self._finalizer is not None:
                self._finalizer.detach()
        if thread is None:
            self._wait_for_end()
            return _at_once(closing)
        try:
            return thread.run(closing)
        finally:
            thread.stop()

    def _wait_for_end(self) -> None:
        """Wait while another thread is closing the client."""
        if self._ending is not None:
            self._ending.join()

    def _begin(self) -> Thread:
        if self._refusal is None:
            self._wait_for_end()
        with self._lock:
            if self._thread is not None:
                return self._thread
            if self._refusal is not None:
                raise self._refusal()
            # What cannot be abandoned is no client of ours but a sandbox, which looks names up by
            # the loop: see there.
            ours = hasattr(self._client, "_abandon")
            thread = Thread(_loop_factory() if ours else asyncio.SelectorEventLoop)
            # Before what the client itself registers: at exit the last comes first.
            self._finalizer = weakref.finalize(self, _finish, thread, self._client)
            self._starting = thread
            try:
                thread.run(self._client.open())
            except BaseException:
                self._finalizer.detach()
                thread.stop()
                raise
            else:
                self._thread = thread
            finally:
                self._starting = None
            return thread

    def _after_fork(self) -> None:
        """In the child: let go of the parent's thread and sockets without touching them."""
        self._lock = threading.Lock()
        thread = self._thread or self._starting
        self._thread = self._starting = self._ending = None
        if self._finalizer is not None:
            self._finalizer.detach()
        if thread is not None:
            thread.abandon()
            getattr(self._client, "_abandon", _nothing)()
        if self._held:
            self._refusal = _forked
        self._held = False


def _nothing() -> None:
    """Stand in for `_abandon` of what holds no connections."""


def _closed() -> Exception:
    return ClosedError("the client is closed; open() makes it usable again")


def _on_its_own_thread() -> Exception:
    return WrongLoopError("a blocking call was made on the client's own loop thread")


def _forked() -> Exception:
    return ForkError(
        "this client was opened before the fork: open it in the child, or leave the opening to it"
    )


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what does not wait: a view, which raises, or what is closed already."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits")


async def _looked(look: Callable[[], T]) -> T:
    return look()


class Call:
    """One coroutine on its way across and back."""

    __slots__ = (
        "_context",
        "_coroutine",
        "_error",
        "_is_cancelled",
        "_over",
        "_result",
        "_task",
        "is_over",
    )

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._context = copy_context()
        self._over = threading.Lock()
        self._over.acquire()
        self._result: Any = None
        self._error: BaseException | None = None
        self._is_cancelled = False
        self.is_over = False
        self._task: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin, on the loop thread."""
        if self._is_cancelled:
            self.refuse(asyncio.CancelledError())
        else:
            self._task = asyncio.Task(self._drive(), loop=loop, context=self._context, **_AT_ONCE)

    def refuse(self, error: BaseException) -> None:
        """End a call that never began."""
        self._coroutine.close()
        self._error = error
        self.is_over = True
        self._over.release()

    def cancel(self) -> None:
        """Cancel it, on the loop thread."""
        self._is_cancelled = True
        if self._task is not None:
            # Behind its first step, without which nobody would be told of its end.
            self._task.get_loop().call_soon(self._task.cancel)

    def wait(self, seconds: float) -> bool:
        """Tell whether it is over within *seconds*."""
        return self._over.acquire(timeout=seconds)

    def notes(self) -> list[str]:
        """Return what an interrupted call has to say: that it may have been applied."""
        error = self._error
        if not self.is_over or isinstance(error, asyncio.CancelledError):
            return getattr(error, "__notes__", [])
        how = "with its result" if error is None else f"with {type(error).__name__}"
        applied = f" (applied: {error.applied})" if isinstance(error, DriftError) else ""
        return [f"the call had ended {how}{applied} before it could be cancelled"]

    def result(self) -> Any:
        """Return what came of it, or raise it."""
        if self._error is None:
            return self._result
        try:
            if isinstance(self._error, asyncio.CancelledError):
                lost = ClosedError("the client was closed while the call was under way")
                lost.applied = None  # an attempt before this one may have got through
                raise lost
            raise self._error
        finally:
            self._error = None  # its traceback refers to this frame

    async def _drive(self) -> None:
        try:
            self._result = await self._coroutine
        except BaseException as error:  # whatever it is, it belongs to the caller
            self._error = error
        finally:
            self.is_over = True
            self._over.release()


class Thread:
    """A daemon thread that runs an event loop until told to stop."""

    def __init__(
        self, loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop
    ) -> None:
        self._calls: deque[Call] = deque()
        self._awake = False
        self._stopped = False
        self._failure: BaseException | None = None
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(loop_factory, ready), name="drift-async", daemon=True
        )
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            raise self._failure

    def _serve(
        self, loop_factory: Callable[[], asyncio.AbstractEventLoop], ready: threading.Event
    ) -> None:
        try:
            anyio.run(self._main, ready, backend_options={"loop_factory": loop_factory})
        except BaseException as error:  # there may be no file left to open, for one
            if ready.is_set():
                raise
            self._failure = error
            ready.set()

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        # `call_soon_threadsafe` would do the same; its own way to wake the loop takes 20 us longer,
        # 6 % of a call (measured with one thread).
        self._ear, self._bell = socket.socketpair()
        with self._ear, self._bell:
            self._ear.setblocking(False)
            self._bell.setblocking(False)
            self._loop.add_reader(self._ear, self._start)
            ready.set()
            await self._end.wait()
            self._loop.remove_reader(self._ear)

    def run(self, coroutine: Coroutine[Any, Any, T], bound: float | None = None) -> T:
        """Return the coroutine's result; after *bound* seconds raise TimeoutError."""
        if self.is_current():
            coroutine.close()
            raise _on_its_own_thread()
        call = Call(coroutine)
        try:
            self._calls.append(call)
            if not self._awake:
                self._awake = True
                self._wake()
            if self._stopped:
                self._refuse_waiting()
            if bound is not None and not call.wait(bound):
                raise TimeoutError
            # Windows cannot interrupt an endless wait.
            while bound is None and not call.wait(3600 if os.name == "posix" else 1):
                pass
        except BaseException as stop:
            # Ctrl-C must not leave the request running. It may have come before the loop was woken.
            self._wake()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(call.cancel)
            if not call.is_over:  # the wait for it may have been cut off right behind its end
                call.wait(INTERRUPT_BOUND)
            for note in call.notes():
                stop.add_note(note)
            raise
        result: T = call.result()
        return result

    def is_current(self) -> bool:
        """Tell whether the caller is this thread, which cannot wait for itself."""
        return threading.current_thread() is self._thread  # the number of one that ended is reused

    def join(self) -> None:
        """Wait until somebody else has stopped it."""
        if self.is_current():
            raise _on_its_own_thread()
        self._thread.join()

    def stop(self) -> None:
        """End the loop and the thread; what is still under way ends with `ClosedError`."""
        self._stopped = True
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(EXIT_BOUND)
        self._refuse_waiting()

    def abandon(self) -> None:
        """Keep this thread's remains for ever: collected, they would touch the parent's sockets."""
        self._loop.set_exception_handler(lambda loop, context: None)
        _inherited.append(self)

    def _wake(self) -> None:
        try:
            self._bell.send(b"!")
        except BlockingIOError:
            pass  # it was rung often enough
        except OSError:  # the loop has ended
            self._stopped = True

    def _start(self) -> None:
        self._ear.recv(4096)
        # Cleared first: who appends after the last look sees it and wakes the loop again.
        self._awake = False
        while self._calls:
            self._calls.popleft().start(self._loop)

    def _refuse_waiting(self) -> None:
        while self._calls:
            self._calls.popleft().refuse(_closed())


@functools.cache
def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop: uvloop's where it is installed, for a quarter less CPU a call
    (measured with 8 threads)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.SelectorEventLoop  # that of Windows by default watches no sockets

    class Loop(uvloop.Loop):
        """Never starts the thread pool of libuv.

        A process waits for that pool when it exits; in a forked child, where its threads are not,
        that is a segmentation fault. The pool looks names up, which our own resolver does here,
        and what `sock_connect` asks about addresses too, unless it says the kind of socket.
        """

        async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
            options["type"] = options.get("type") or socket.SOCK_STREAM
            return await super().getaddrinfo(host, port, **options)

    return Loop


def _finish(thread: Thread, client: Lifecycle) -> None:
    """Close a client that was forgotten: collected while open, or open at interpreter exit."""
    if thread.is_current():
        # The collector ran on the loop thread, which cannot wait for itself.
        threading.Thread(target=_finish, args=(thread, client), daemon=True).start()
        return
    try:
        thread.run(client.close(), EXIT_BOUND)
    except (TimeoutError, ClosedError):
        return  # the thread is a daemon and ends with the process
    thread.stop()


def _after_fork_in_child() -> None:
    for loop in list(_loops):
        loop._after_fork()


_loops: weakref.WeakSet[Loop] = weakref.WeakSet()
_inherited: list[Thread] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
