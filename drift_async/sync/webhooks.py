"""`Webhooks`: the blocking counterpart of ``drift_async.webhooks.dispatch``, written by hand.

Its handlers are the user's own functions, which run in the caller's thread and never on a loop.
The receivers are servers' own coroutines, and have no counterpart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

from ..errors import InputError
from ..webhooks.events import WebhookEvent
from ..webhooks.handlers import Handler, Registry, Round, check_kind, is_async

E = TypeVar("E", bound=WebhookEvent)


class Webhooks(Registry):
    """Receives what Drift tells of, for views of Flask, Django and other WSGI applications.

    The settings are those of `drift_async.Webhooks`; ``body_timeout``, ``max_running`` and
    ``max_waiting`` are of its receivers only. Here the view reads the body, and answers.

    >>> event = webhooks.parse(request.get_data(), request.headers)
    >>> webhooks.dispatch(event)
    """

    def on(self, kind: type[E]) -> Callable[[Callable[[E], None]], Callable[[E], None]]:
        """Have the decorated function called with each event of this class.

        It is called in the thread that dispatches, and must not be async. `WebhookEvent` stands
        for all events.
        """
        check_kind(kind)

        def register(handler: Callable[[E], None]) -> Callable[[E], None]:
            if is_async(handler):
                raise InputError("handler", "must be a plain function on the blocking face")
            self._register(kind, handler)
            return handler

        return register

    def dispatch(self, event: WebhookEvent) -> bool:
        """Run the handlers of an event, one after the other; tell whether all are done with it.

        A handler that has had it, from an earlier delivery, is left out. While an earlier delivery
        is still being handled, which may yet fail, none is run, and the answer is False. Answer the
        sender with an error then, so that it is sent again.
        """
        with Round(self, event) as handlers:
            for handler in handlers:
                try:
                    _run(handler, event)
                except Exception as error:  # the user's: other handlers go on all the same
                    handlers.fail(error)
        return handlers.good


def _run(handler: Handler, event: WebhookEvent) -> None:
    result = handler(event)
    if result is not None and inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()  # or Python warns that it was never awaited
        raise TypeError("the handler returned an awaitable: it must be a plain function")
