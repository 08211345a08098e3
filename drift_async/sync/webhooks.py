"""`Webhooks`: the blocking counterpart of ``drift_async.webhooks.webhooks``, written by hand.

Its handlers are plain functions of the user, which run in the caller's thread, never on a loop. The
receivers are coroutines for asynchronous servers, and have no counterpart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

from ..errors import InputError
from ..webhooks.events import WebhookEvent
from ..webhooks.webhooks import DispatchRun, Handler, HandlerRegistry, check_kind, is_async

E = TypeVar("E", bound=WebhookEvent)


class Webhooks(HandlerRegistry):
    """Receives events in views of Flask, Django and other WSGI applications.

    The settings are those of `drift_async.Webhooks`; ``body_timeout``, ``max_running`` and
    ``max_waiting`` have no effect here, where the view reads the body and answers.

    >>> event = webhooks.parse(request.get_data(), request.headers)
    >>> webhooks.dispatch(event)
    """

    def on(self, kind: type[E]) -> Callable[[Callable[[E], None]], Callable[[E], None]]:
        """Register the decorated function as a handler of all events of this class.

        The function runs in the thread that calls `dispatch`, and must not be async.
        `WebhookEvent` stands for all events.
        """
        check_kind(kind)

        def register(handler: Callable[[E], None]) -> Callable[[E], None]:
            if is_async(handler):
                raise InputError("handler", "must be a plain function on the blocking face")
            self._register(kind, handler)
            return handler

        return register

    def dispatch(self, event: WebhookEvent) -> bool:
        """Run the handlers of an event in turn; return whether all have processed it.

        Handlers that processed the event in an earlier delivery are skipped. While an earlier
        delivery is still being handled, and may yet fail, no handler runs and the result is False.
        On False, answer the sender with an error, so that the event is sent again.
        For a bare `WebhookEvent`, which handlers of its type do not see, the result is False too.
        """
        with DispatchRun(self, event) as run:
            for handler in run:
                try:
                    _run(handler, event)
                except Exception as error:  # the user's: other handlers go on all the same
                    run.record_failure(error)
        return run.succeeded


def _run(handler: Handler, event: WebhookEvent) -> None:
    try:
        result = handler(event)
    except SystemExit as error:  # it would end the server's worker
        raise RuntimeError("the handler called sys.exit") from error
    if result is not None and inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()  # or Python warns that it was never awaited
        raise TypeError("the handler returned an awaitable: it must be a plain function")
