"""`Webhooks`: the blocking counterpart of ``drift_async.webhooks.dispatch``, written by hand.

Its handlers are the user's own functions, which run in the caller's thread and never on a loop.
The receivers are servers' own coroutines, and have no counterpart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..errors import InputError
from ..webhooks.events import WebhookEvent
from ..webhooks.handlers import Registry, check_kind, is_async

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
        """Run the handlers of an event, one after the other; tell whether none of them failed.

        A handler that has the event already, from an earlier delivery, is left out.
        """
        good = True
        for turn in self._turns(event):
            with turn:
                turn.handler(event)
            good = good and not turn.failed
        return good
