"""`Webhooks`: from a delivery to the handlers of its event."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from anyio import CapacityLimiter, to_thread

from ..core.validate import number
from .events import WebhookEvent, log
from .handlers import Handler, Registry, Round, check_kind, is_async
from .intake import Backlog, Intake
from .receive import AsgiReceiver, aiohttp_handler

if TYPE_CHECKING:
    from aiohttp import web

E = TypeVar("E", bound=WebhookEvent)
R = TypeVar("R", bound=Awaitable[object] | None)


class Webhooks(Registry):
    """Receives what Drift tells of: https://devdocs.drift.com/docs/webhook-events-1

    ``verification_token`` is the one of your app at dev.drift.com; several are taken while it is
    being changed. Drift signs nothing: who has seen one delivery has the token, and can send what
    they like. So serve HTTPS only, and treat the texts in events as what strangers wrote.

    An event that is delivered again within ``dedup_window`` seconds (600; 0 turns it off) does not
    reach a handler that has had it, unless that failed. The last ``dedup_size`` events (10,000) are
    remembered, by this object alone: several processes need a store that they share, with
    ``event.key`` as the key. With ``tolerance``, an event whose own time is more seconds than that
    away from now is refused; many have none. Neither stops somebody who has the token.

    What the receivers take is bounded: ``max_body`` bytes (1 MiB), ``body_timeout`` seconds for a
    body to arrive (10), ``max_running`` deliveries in their handlers at once (100), and
    ``max_waiting`` accepted ones behind them (1,000); further ones are answered with 503. They
    answer before the handlers run, so that what fails there is not sent again, and an accepted
    delivery is in memory only: hand what must not be lost to a queue of your own.

    Errors of handlers are logged, and given to ``on_error`` with the event. ``clock`` gives the
    time in epoch seconds.

    >>> webhooks = Webhooks("token")
    >>> @webhooks.on(NewMessageEvent)
    ... async def answer(event: NewMessageEvent) -> None:
    ...     print(event.data.body)
    """

    @cached_property
    def _backlog(self) -> Backlog:
        return Backlog(self.dispatch, self._max_running, self._max_waiting)

    @cached_property
    def _threads(self) -> CapacityLimiter:
        return CapacityLimiter(self._max_running)

    @cached_property
    def _intake(self) -> Intake:
        return Intake(self.parse, self._backlog, self._verifier.max_body, self._body_timeout)

    def on(self, kind: type[E]) -> Callable[[Callable[[E], R]], Callable[[E], R]]:
        """Have the decorated function called with each event of this class.

        It may be async or plain; a plain one runs in a worker thread. `WebhookEvent` stands for all
        events.
        """
        check_kind(kind)

        def register(handler: Callable[[E], R]) -> Callable[[E], R]:
            self._register(kind, handler)
            return handler

        return register

    async def dispatch(self, event: WebhookEvent) -> bool:
        """Run the handlers of an event, one after the other; tell whether all are done with it.

        A handler that has had it, from an earlier delivery, is left out. While an earlier delivery
        is still being handled, which may yet fail, none is run, and the answer is False. Answer the
        sender with an error then, so that it is sent again.
        """
        with Round(self, event) as handlers:
            for handler in handlers:
                try:
                    await self._run(handler, event)
                except Exception as error:  # the user's: other handlers go on all the same
                    handlers.fail(error)
        return handlers.good

    async def _run(self, handler: Handler, event: WebhookEvent) -> None:
        try:
            if is_async(handler):
                result = handler(event)
            else:
                try:
                    result = await to_thread.run_sync(
                        handler, event, abandon_on_cancel=True, limiter=self._threads
                    )
                except SystemExit as error:
                    # Meant for the thread; out of a task it would end the loop.
                    raise RuntimeError("the handler called sys.exit") from error
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Something that the handler awaited was cancelled, and not the handler itself.
            raise RuntimeError("the handler ended as cancelled") from None

    def asgi(self) -> AsgiReceiver:
        """Return an ASGI application that receives deliveries by POST, at any path.

        It verifies, answers, and only then runs the handlers, as tasks of the running loop. Mount
        it in an application and `drain` when that shuts down; served by itself, it drains by
        itself.
        """
        return AsgiReceiver(self._intake, self.drain)

    def aiohttp_handler(self) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return a handler for an ``aiohttp.web`` route; it does what `asgi` does.

        >>> app.router.add_post("/drift", webhooks.aiohttp_handler())
        """
        return aiohttp_handler(self._intake)

    async def drain(self, timeout: float = 30.0) -> int:
        """Wait until all accepted deliveries are handled; return how many were not.

        After *timeout* seconds what still runs is cancelled, but for plain handlers, which go on
        in their threads unheeded. New deliveries are answered with 503 meanwhile.
        """
        left = await self._backlog.drain(number("timeout", timeout))
        if left:
            log.warning("%d accepted deliveries were cut off", left)
        return left
