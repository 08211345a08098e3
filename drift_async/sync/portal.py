"""The event-loop thread of a blocking client, and the calls that other threads make on it.

Each client has one `Portal`. The portal starts the thread at the first call and ends it when the
client is closed or collected, or at interpreter exit. A call crosses by one `call_soon_threadsafe`;
its caller then waits for a lock that the loop thread releases.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from ..core.process import after_fork
from ..errors import ClosedError, DriftError, ForkError, WrongLoopError

T = TypeVar("T")

log = logging.getLogger("drift_async")

EXIT_TIMEOUT = 5.0
"""Seconds that closing may take at interpreter exit."""

CANCEL_TIMEOUT = 1.0
"""Seconds that Ctrl-C waits for the cancelled call to end."""


class Lifecycle(Protocol):
    """The asynchronous client or sandbox behind a blocking one."""

    async def open(self) -> object: ...
    async def close(self) -> object: ...


class Portal:
    """Runs the coroutines of one client on its loop thread; opens the client at the first call."""

    def __init__(self, client: Lifecycle) -> None:
        self._client = client
        self._thread: LoopThread | None = None
        self._starting: LoopThread | None = None
        self._ending: LoopThread | None = None
        self._lock = threading.Lock()
        self._closed_reason: Callable[[], Exception] | None = None
        self._opened_explicitly = False
        self._finalizer: weakref.finalize[[LoopThread, Lifecycle], Portal] | None = None
        after_fork(self._after_fork)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await *coroutine* on the loop thread, in the caller's context, and return its result."""
        thread = self._thread
        if thread is None:
            try:
                thread = self._ensure_thread()
            except BaseException:
                coroutine.close()
                raise
        return thread.run(coroutine)

    def snapshot(self, read: Callable[[], T]) -> T:
        """Return `read()`, run on the loop thread of an open client: nothing changes meanwhile."""
        thread = self._thread
        return read() if thread is None else thread.run(_as_coroutine(read))

    def run_if_open(self, closing: Coroutine[Any, Any, T]) -> T:
        """Run a closing coroutine on the loop thread, or inline if the client is closed already."""
        thread = self._thread
        return run_inline(closing) if thread is None else thread.run(closing)

    def open(self, client: Lifecycle) -> None:
        """Open the client explicitly: a forked child must then open it again before using it."""
        if client is not self._client:
            run_inline(client.open())  # a view: raises
        reason, self._closed_reason = self._closed_reason, None
        try:
            self._ensure_thread()
        except BaseException:
            self._closed_reason = self._closed_reason or reason
            raise
        self._opened_explicitly = True

    def close(self, client: Lifecycle, closing: Coroutine[Any, Any, T]) -> T:
        """Await *closing* and end the thread; the client stays closed until `open`."""
        if client is not self._client:
            run_inline(closing)  # a view: raises
        with self._lock:
            if (thread := self._thread or self._ending) is not None and thread.is_current():
                closing.close()
                raise _own_thread_error()
            thread, self._thread = self._thread, None
            self._ending = thread or self._ending
            self._opened_explicitly = False
            self._closed_reason = self._closed_reason or _closed_error
            if self._finalizer is not None:
                self._finalizer.detach()
        if thread is None:
            if self._ending is not None:
                self._ending.join()
            return run_inline(closing)
        try:
            return thread.run(closing)
        finally:
            thread.stop()

    def _ensure_thread(self) -> LoopThread:
        """Return the loop thread; start it and open the client on it if there is none."""
        if self._closed_reason is None and self._ending is not None:
            self._ending.join()  # another thread is closing the client
        with self._lock:
            if self._thread is not None:
                return self._thread
            if self._closed_reason is not None:
                raise self._closed_reason()
            # A sandbox looks names up through its loop, which uvloop does in libuv's threads.
            is_client = hasattr(self._client, "_forget_after_fork")
            thread = LoopThread(_loop_factory() if is_client else asyncio.SelectorEventLoop)
            # Registered before the finalizers of the client itself: they run in reverse order.
            self._finalizer = weakref.finalize(self, _close_forgotten, thread, self._client)
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
        """In the child, drop the parent's thread and sockets without touching them."""
        self._lock = threading.Lock()
        thread = self._thread or self._starting
        self._thread = self._starting = self._ending = None
        if self._finalizer is not None:
            self._finalizer.detach()
        if thread is not None:
            thread.abandon()
            if hasattr(self._client, "_forget_after_fork"):  # a sandbox holds no connections
                self._client._forget_after_fork()
        if self._opened_explicitly:
            self._closed_reason = _fork_error
        self._opened_explicitly = False


def _closed_error() -> Exception:
    return ClosedError("the client is closed; open() makes it usable again")


def _own_thread_error() -> Exception:
    return WrongLoopError("a blocking call was made on the client's own loop thread")


def _fork_error() -> Exception:
    return ForkError(
        "this client was opened before the fork: open it in the child, or leave the opening to it"
    )


def run_inline(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits: one of a view, which raises, or of a closed client."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the coroutine waits")


async def _as_coroutine(read: Callable[[], T]) -> T:
    return read()


class PendingCall:
    """A coroutine that a caller waits for while the loop thread runs it."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._over = threading.Lock()
        self._over.acquire()
        self._result: Any = None
        self._error: BaseException | None = None
        self.is_over = False
        self._task: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the coroutine. Runs on the loop thread, in a copy of the caller's context."""
        self._task = loop.create_task(self._run())

    def refuse(self, error: BaseException) -> None:
        """End a call that was never started."""
        self._coroutine.close()
        self._error = error
        self.is_over = True
        self._over.release()

    def cancel(self) -> None:
        """Cancel a call that was started. Runs on the loop thread."""
        if self._task is not None:
            # After the first step: a task cancelled before it would never release the caller.
            self._task.get_loop().call_soon(self._task.cancel)

    def wait(self, seconds: float) -> bool:
        """Wait at most *seconds* for the end of the call; return whether the call is over."""
        return self._over.acquire(timeout=seconds)

    def notes(self) -> list[str]:
        """Return the notes for the interruption of this call: whether it may have been applied."""
        error = self._error
        if not self.is_over or isinstance(error, asyncio.CancelledError):
            return getattr(error, "__notes__", [])
        how = "with its result" if error is None else f"with {type(error).__name__}"
        applied = f" (applied: {error.applied})" if isinstance(error, DriftError) else ""
        return [f"the call had ended {how}{applied} before it could be cancelled"]

    def result(self) -> Any:
        """Return the result of a call that is over, or raise its error."""
        if self._error is None:
            return self._result
        try:
            if isinstance(self._error, asyncio.CancelledError):
                lost = ClosedError("the client was closed while the call was under way")
                lost.applied = None  # an earlier attempt may have been applied
                raise lost
            raise self._error
        finally:
            self._error = None  # its traceback refers to this frame

    async def _run(self) -> None:
        try:
            self._result = await self._coroutine
        except BaseException as error:  # even SystemExit is the caller's and must not end the loop
            self._error = error
        finally:
            self.is_over = True
            self._over.release()


class LoopThread:
    """A daemon thread that runs an event loop until `stop`."""

    def __init__(
        self, loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop
    ) -> None:
        self._unstarted: set[PendingCall] = set()
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
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                loop = runner.get_loop()
                main = loop.create_task(self._main(ready))
                while not main.done():
                    try:
                        loop.run_until_complete(main)
                    except SystemExit:  # of a background task: all other calls go on
                        log.exception("sys.exit was called on the client's loop thread")
        except BaseException as error:  # for one, the process may have too many open files
            if ready.is_set():
                raise
            self._failure = error
            ready.set()

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        ready.set()
        await self._end.wait()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Return the coroutine's result; after *timeout* seconds raise TimeoutError."""
        if self.is_current():
            coroutine.close()
            raise _own_thread_error()
        call = PendingCall(coroutine)
        try:
            self._submit(call)
            if timeout is not None and not call.wait(timeout):
                raise TimeoutError
            # Windows cannot interrupt an endless wait.
            while timeout is None and not call.wait(3600 if os.name == "posix" else 1):
                pass
        except BaseException as stop:  # Ctrl-C must not leave the request running
            self._cancel(call)
            for note in call.notes():
                stop.add_note(note)
            raise
        result: T = call.result()
        return result

    def is_current(self) -> bool:
        """Return whether the caller is on this thread, which cannot wait for itself."""
        return threading.current_thread() is self._thread  # the id of an ended thread is reused

    def join(self) -> None:
        """Wait until another thread has stopped this one."""
        if self.is_current():
            raise _own_thread_error()
        self._thread.join()

    def stop(self) -> None:
        """End the loop and the thread; calls under way end with `ClosedError`."""
        self._stopped = True
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(EXIT_TIMEOUT)
        self._refuse_unstarted()

    def abandon(self) -> None:
        """Keep this object for ever: collecting it would touch the parent process's sockets."""
        self._loop.set_exception_handler(lambda loop, context: None)
        _inherited.append(self)

    def _submit(self, call: PendingCall) -> None:
        self._unstarted.add(call)
        try:
            self._loop.call_soon_threadsafe(self._start, call)
        except RuntimeError:  # the loop is closed
            self._stopped = True
        if self._stopped:
            self._refuse_unstarted()

    def _start(self, call: PendingCall) -> None:
        """Start a submitted call. Runs on the loop thread."""
        if self._stopped:  # nothing cancels a task that is started while the loop ends
            self._refuse_unstarted()
        elif self._claim(call):
            call.start(self._loop)

    def _cancel(self, call: PendingCall) -> None:
        """Cancel a call, whether it was submitted or not, and wait for its end for a moment."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel_on_loop, call)
        if not call.is_over:  # the interruption may have come just after the end of the call
            call.wait(CANCEL_TIMEOUT)

    def _cancel_on_loop(self, call: PendingCall) -> None:
        if self._claim(call):
            call.refuse(asyncio.CancelledError())
        else:
            call.cancel()

    def _refuse_unstarted(self) -> None:
        for call in list(self._unstarted):
            if self._claim(call):
                call.refuse(_closed_error())

    def _claim(self, call: PendingCall) -> bool:
        """Return whether *call* is still unstarted; only one thread gets True, and must end it."""
        try:
            self._unstarted.remove(call)
        except KeyError:
            return False
        return True


@functools.cache
def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's loop class if installed: a quarter less CPU a call with 8 threads."""
    try:
        import uvloop
    except ImportError:
        return asyncio.SelectorEventLoop  # the default loop of Windows cannot watch sockets

    class Loop(uvloop.Loop):
        """Never starts the thread pool of libuv.

        A process waits for that pool at its exit. A forked child has no such threads, and crashes
        there with a segmentation fault. The pool is used to look names up, for which clients have
        a resolver of their own, and by `sock_connect` for addresses without a socket type.
        """

        async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
            options["type"] = options.get("type") or socket.SOCK_STREAM
            return await super().getaddrinfo(host, port, **options)

    return Loop


def _close_forgotten(thread: LoopThread, client: Lifecycle) -> None:
    """Close a client that was collected while open, or is still open at interpreter exit."""
    if thread.is_current() or _is_in_loop():
        # The collector ran on the loop thread, which cannot wait for itself, or in a loop of the
        # user, which must not be held up.
        threading.Thread(target=_close_forgotten, args=(thread, client), daemon=True).start()
        return
    try:
        thread.run(client.close(), EXIT_TIMEOUT)
    except (TimeoutError, ClosedError):
        return  # the thread is a daemon and ends with the process
    thread.stop()


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_inherited: list[LoopThread] = []
