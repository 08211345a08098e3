"""Forked children, the end of the interpreter, and the decoder thread: shared by all clients.

This module takes callables and knows no client. It holds the only fork hook of the package.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import time
import weakref
from collections.abc import Callable, Coroutine
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from .request import Response

T = TypeVar("T")
A = TypeVar("A")

DECODE_IN_THREAD_BYTES = 1_000_000
"""Size of a body above which it is decoded in a thread; that many bytes take about 10 ms."""

EXIT_BOUND = 5.0
"""Seconds that closing may take at interpreter exit, for all clients together."""

MANY_OPEN = 10
"""Number of open clients at which a warning is logged: they are probably never closed."""

logger = logging.getLogger("drift_async")

_child_actions: list[Callable[[], object]] = []
_child_methods: weakref.WeakKeyDictionary[object, Callable[[Any], object]]
_child_methods = weakref.WeakKeyDictionary()
_executor: ThreadPoolExecutor | None = None


# Forks


def after_fork(action: Callable[[], object]) -> None:
    """Call *action* in every forked child, in the order of registration.

    A bound method, of which an object has one, does not keep its object alive, and comes later.
    """
    if isinstance(action, MethodType):
        _child_methods[action.__self__] = action.__func__
    else:
        _child_actions.append(action)


def _run_child_actions() -> None:
    for action in _child_actions:
        action()
    for owner, method in list(_child_methods.items()):
        method(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run_child_actions)


# The end of the interpreter


@attrs.frozen(eq=False, repr=False)
class ExitHook:
    """A registered closing: `cancel` takes the handle that `at_exit` returned."""

    close: Callable[[float], Coroutine[Any, Any, object]]
    loop: asyncio.AbstractEventLoop


_open: dict[ExitHook, None] = {}


def at_exit(
    close: Callable[[float], Coroutine[Any, Any, object]], loop: asyncio.AbstractEventLoop
) -> ExitHook:
    """Have `close(seconds)` awaited at interpreter exit, in *loop* or a new one if it is closed."""
    hook = ExitHook(close, loop)
    _open[hook] = None
    # The function registered last runs first: before the finalizers, which end the loops' threads.
    atexit.unregister(_close_all)
    atexit.register(_close_all)
    if len(_open) == MANY_OPEN:
        logger.warning("%d clients with events are open: each keeps tasks until closed", MANY_OPEN)
    return hook


def cancel(hook: ExitHook) -> None:
    """Forget a hook, because its client is closed."""
    _open.pop(hook, None)


def _close_all() -> None:
    """Run all hooks within the exit bound. A hook that fails does not keep others from running."""
    until = time.monotonic() + EXIT_BOUND
    waiting: list[Future[Any]] = []
    here: dict[asyncio.AbstractEventLoop | None, list[ExitHook]] = {}
    for hook in list(_open):
        cancel(hook)
        if hook.loop.is_running():  # in another thread, as on the blocking face
            closing = hook.close(_seconds_to(until))
            waiting.append(asyncio.run_coroutine_threadsafe(closing, hook.loop))
        else:
            here.setdefault(None if hook.loop.is_closed() else hook.loop, []).append(hook)
    for loop, hooks in here.items():
        try:
            if loop is None:
                asyncio.run(_close(hooks, until))
            else:
                loop.run_until_complete(_close(hooks, until))
        except Exception:  # the others are closed all the same
            logger.exception("clients could not be closed at exit")
    for closed in waiting:
        try:
            closed.result(_seconds_to(until) + 1)
        except Exception:  # the others are closed all the same
            logger.exception("a client could not be closed at exit")


async def _close(hooks: list[ExitHook], until: float) -> None:
    closings = (hook.close(_seconds_to(until)) for hook in hooks)
    for result in await asyncio.gather(*closings, return_exceptions=True):
        if isinstance(result, BaseException):
            logger.error("a client could not be closed at exit", exc_info=result)


def _seconds_to(moment: float) -> float:
    return max(0.1, moment - time.monotonic())


after_fork(_open.clear)


# The decoder thread


async def decode(parse: Callable[[Response], T], response: Response) -> T:
    """Return `parse(response)`, run in the decoder thread if the body is large."""
    if len(response.body) <= DECODE_IN_THREAD_BYTES:
        return parse(response)
    return await run_in_decoder(parse, response)


async def run_in_decoder(work: Callable[[A], T], given: A) -> T:
    """Run `work(given)` in the decoder thread and return its result.

    A process has one decoder thread: a second one would only compete for the interpreter. The
    loop's own executor is not used, because the user's work in it may wait for ours.
    """
    global _executor
    try:
        if _executor is None:
            from concurrent.futures import ThreadPoolExecutor

            _executor = ThreadPoolExecutor(1, thread_name_prefix="drift-async-reader")
        future = _executor.submit(work, given)
    except RuntimeError:  # the interpreter is ending and starts no threads any more
        return work(given)
    return await asyncio.wrap_future(future)


def _forget_executor() -> None:
    global _executor
    _executor = None  # only the parent has its thread


after_fork(_forget_executor)
