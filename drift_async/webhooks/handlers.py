"""Handlers of events, and which deliveries they have had: shared by both faces."""

from __future__ import annotations

import inspect
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator
from types import TracebackType
from typing import Any

from ..core.inputs import number, whole
from ..core.secret import Secret
from ..errors import InputError, VerificationError
from .events import WebhookEvent, log
from .verify import MIB, Headers, Verifier

Handler = Callable[[Any], Any]
OnError = Callable[[Exception, WebhookEvent], object]


class Recent:
    """What was taken within *window* seconds, at most *size* entries; for any number of threads."""

    def __init__(self, window: float, size: int, clock: Callable[[], float]) -> None:
        self._window = window
        self._size = size
        self._clock = clock
        self._running: set[Hashable] = set()
        self._done: OrderedDict[Hashable, float] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: Hashable) -> bool:
        """Tell whether *key* is new; then it counts as taken until it is settled."""
        if not self._window:
            return True
        with self._lock:
            oldest = self._clock() - self._window
            while self._done and next(iter(self._done.values())) <= oldest:
                self._done.popitem(last=False)
            if key in self._running or key in self._done:
                return False
            self._running.add(key)
            return True

    def settle(self, key: Hashable, *, done: bool) -> None:
        """Remember a key that is done; one that is not can be taken again."""
        if not self._window:
            return
        with self._lock:
            self._running.discard(key)
            if done:
                self._done[key] = self._clock()
                if len(self._done) > self._size:
                    self._done.popitem(last=False)


class Registry:
    """What both faces of `Webhooks` are made of."""

    def __init__(
        self,
        verification_token: str | Secret | Collection[str | Secret],
        *,
        tolerance: float | None = None,
        dedup_window: float = 600.0,
        dedup_size: int = 10_000,
        max_body: int = MIB,
        body_timeout: float = 10.0,
        max_running: int = 100,
        max_waiting: int = 1000,
        on_error: OnError | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifier = Verifier(
            verification_token, tolerance=tolerance, max_body=max_body, clock=clock
        )
        self._recent = Recent(
            number("dedup_window", dedup_window), whole("dedup_size", dedup_size, 1), clock
        )
        self._body_timeout = number("body_timeout", body_timeout, above=0)
        self._max_running = whole("max_running", max_running, 1)
        self._max_waiting = whole("max_waiting", max_waiting)
        self._on_error = on_error
        self._handlers: list[tuple[Handler, list[type[WebhookEvent]]]] = []

    def parse(self, body: bytes, headers: Headers) -> WebhookEvent:
        """Return the event in a delivery, verified; an `UnknownEvent` if it is of no known type.

        *body* is the bytes as they came, *headers* what your web framework has: a mapping, or
        pairs. A token that is missing or wrong, a body over ``max_body``, one that is no JSON
        object, or an event too far from now raises `VerificationError`.
        """
        event = self._verifier.judge(body, headers)
        if isinstance(event, VerificationError):
            del body, headers  # a traceback can show locals, and these may hold a token
            raise event
        return event

    def _register(self, kind: type[WebhookEvent], handler: Handler) -> None:
        if not callable(handler):
            raise InputError("handler", "must be a function of one event")
        for known, kinds in self._handlers:
            if known == handler:  # it still gets an event only once
                kinds.append(kind)
                return
        self._handlers.append((handler, [kind]))

    def _turns(self, event: WebhookEvent) -> Iterator[Turn]:
        """Yield a turn for each handler that has not had this event."""
        if not isinstance(event, WebhookEvent):
            raise InputError("event", "must be what parse returned")
        key = event.key
        for n, (handler, kinds) in enumerate(self._handlers):
            if isinstance(event, tuple(kinds)) and self._recent.take((key, n)):
                yield Turn(self, event, (key, n), handler)

    def _report(self, error: Exception, event: WebhookEvent) -> None:
        log.error("a handler of %s failed", type(event).__name__, exc_info=error)
        if self._on_error is not None:
            try:
                self._on_error(error, event)
            except Exception:  # the user's: other handlers go on all the same
                log.exception("on_error failed")


class Turn:
    """One handler's turn at one event, as a context: an error in it is reported, and ends here."""

    def __init__(
        self, registry: Registry, event: WebhookEvent, key: Hashable, handler: Handler
    ) -> None:
        self.handler = handler
        self.failed = False
        self._registry = registry
        self._event = event
        self._key = key

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._registry._recent.settle(self._key, done=error is None)
        if not isinstance(error, Exception):
            return False  # nothing is wrong, or it is to end: cancelled, or Ctrl-C
        self.failed = True
        self._registry._report(error, self._event)
        return True


def check_kind(kind: object) -> None:
    """Raise `InputError` if *kind* is no class of events."""
    if not isinstance(kind, type) or not issubclass(kind, WebhookEvent):
        raise InputError("kind", "must be a class of events, such as NewMessageEvent")


def is_async(handler: Handler) -> bool:
    """Tell whether a handler is a coroutine function, or an object that is called like one."""
    call = getattr(handler, "__call__", None)  # noqa: B004  # its kind matters, not its presence
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)
