"""Gives a blocking object awaitable methods, so that one test body serves both faces."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Self


def awaitable(value: Any) -> Any:
    """Return a part of the blocking face with the manners of the awaited one; all else as it is."""
    return Awaitable(value) if hasattr(value, "_core") else value


class Awaitable:
    """Runs each method that is a coroutine on the awaited face in a worker thread."""

    def __init__(self, twin: Any) -> None:
        self.twin = twin

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.twin, name)
        if inspect.iscoroutinefunction(getattr(self.twin._core, name, None)):
            return Method(member)
        if inspect.ismethod(member):
            return lambda *args, **kwargs: awaitable(member(*map(plainly, args), **kwargs))
        return awaitable(member)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.twin.__enter__)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await asyncio.to_thread(self.twin.__exit__, *error)

    async def __aiter__(self) -> AsyncIterator[Any]:
        iterator, end = iter(self.twin), object()
        while (item := await asyncio.to_thread(next, iterator, end)) is not end:
            yield item

    def __repr__(self) -> str:
        return repr(self.twin)


def core(drift: Any) -> Any:
    """Return the awaited client behind either face."""
    return drift.twin._core if isinstance(drift, Awaitable) else drift


class Method:
    """A blocking method that can be awaited."""

    def __init__(self, member: Callable[..., Any]) -> None:
        self.member = member

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return awaitable(await asyncio.to_thread(self.member, *args, **kwargs))


def plainly(argument: Any) -> Any:
    """Return a method as it is on the blocking face; all else as it is."""
    if isinstance(argument, partial):
        return partial(plainly(argument.func), *argument.args, **argument.keywords)
    return argument.member if isinstance(argument, Method) else argument
