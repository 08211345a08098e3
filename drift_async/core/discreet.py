"""Calls whose tracebacks tell nothing: what a user gave is cleared out of their frames.

Error trackers and pretty tracebacks show local variables. Those of a call are addresses, texts and
credentials, in the library's own frames and in those of the HTTP library below.
"""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Iterator
from functools import wraps
from typing import Any, TypeVar

from ..errors import DriftError

T = TypeVar("T")

# Only these: clearing a frame that is not over ends it, and a traceback may hold such of a user's.
_CLEARED = frozenset({"drift_async", "aiohttp", "cattrs"})
_STEPS = ("__init__", "__anext__", "__next__")


def discreet(target: T) -> T:
    """Make a function leave no local variables behind when it raises.

    Of a class: its public methods, and its construction.
    """
    if not isinstance(target, type):
        hidden: T = _hidden(target)
        return hidden
    for name, member in list(vars(target).items()):
        if not name.startswith("_") or name in _STEPS:
            if isinstance(member, classmethod):
                setattr(target, name, classmethod(_hidden(member.__func__)))
            elif inspect.isfunction(member):
                setattr(target, name, _hidden(member))
    return target


def clears_itself(method: T) -> T:
    """Mark a method that calls `clear` when it raises, and deletes its own arguments.

    For those that are too short to pay for a wrapper: it would double the cost of accepting an
    event.
    """
    vars(method)["clears_itself"] = True
    return method


def _hidden(method: Any) -> Any:
    # A slotted class is made twice, so its methods may be wrapped already.
    if hasattr(method, "__wrapped__") or hasattr(method, "clears_itself"):
        return method

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            del args, kwargs  # this frame is in use, so that it is not cleared with the others
            clear(error)
            raise

    @wraps(method)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        try:
            return await method(*args, **kwargs)
        except BaseException as error:
            del args, kwargs
            clear(error)
            raise

    return call_async if inspect.iscoroutinefunction(method) else call


def clear(error: BaseException) -> None:
    """Clear the frames of an error, and of those it is linked to, of their local variables."""
    for one in _linked(error):
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if str(frame.f_globals.get("__name__")).partition(".")[0] in _CLEARED:
                with contextlib.suppress(RuntimeError):  # still running
                    frame.clear()
        if isinstance(one, DriftError) and one.__suppress_context__:
            one.__context__ = None  # not shown, but kept: it may have the value in its arguments


def _linked(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                waiting += one.exceptions
