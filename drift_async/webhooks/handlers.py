"""Handlers of events, and which deliveries they have had: shared by both faces."""

from __future__ import annotations

import inspect
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from typing import Any, Self

from ..core.discreet import clear, discreet
from ..core.secret import Secret
from ..core.validate import integer, number
from ..errors import InputError, VerificationError
from .events import WebhookEvent, log
from .verify import MIB, Headers, Verifier

Handler = Callable[[Any], Any]
OnError = Callable[[Exception, WebhookEvent], object]


class Recent:
    """Who had what within *window* seconds, at most *size* entries; for any number of threads.

    Who that is, is said in the bits of a number: one for each handler.
    """

    def __init__(self, window: float, size: int, clock: Callable[[], float]) -> None:
        self._window = window
        self._size = size
        self._clock = clock
        self._running: set[str] = set()
        self._done: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str) -> int | None:
        """Return who has had *key*, which is taken until it is settled; None if it is already."""
        if not self._window:
            return 0
        with self._lock:
            oldest = self._clock() - self._window
            while self._done and next(iter(self._done.values()))[0] <= oldest:
                self._done.popitem(last=False)
            if key in self._running:
                return None
            self._running.add(key)
            done = self._done.get(key)
            return done[1] if done else 0

    def settle(self, key: str, had: int, new: int) -> None:
        """Let *key* be taken again; remember who has had it now, beside who *had*."""
        if not self._window:
            return
        with self._lock:
            self._running.discard(key)
            if new:  # a repeat that did nothing does not make it last longer
                self._done[key] = self._clock(), had | new
                self._done.move_to_end(key)
                if len(self._done) > self._size:
                    self._done.popitem(last=False)


class Registry:
    """What both faces of `Webhooks` are made of."""

    @discreet
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
            number("dedup_window", dedup_window), integer("dedup_size", dedup_size, 1), clock
        )
        self._body_timeout = number("body_timeout", body_timeout, above=0)
        self._max_running = integer("max_running", max_running, 1)
        self._max_waiting = integer("max_waiting", max_waiting)
        self._on_error = on_error
        self._handlers: list[tuple[Handler, list[type[WebhookEvent]]]] = []

    def parse(self, body: bytes, headers: Headers) -> WebhookEvent:
        """Return the event in a delivery, verified; an `UnknownEvent` if it is of no known type.

        *body* is the bytes as they came, *headers* what your web framework has: a mapping, or
        pairs. A token that is missing or wrong, a body over ``max_body``, one that is no JSON
        object, or an event too far from now raises `VerificationError`.
        """
        try:
            event = self._verifier.judge(body, headers)
            if isinstance(event, VerificationError):
                raise event
        except BaseException as error:
            del body, headers  # a traceback can show locals, and these may hold a token
            clear(error)
            raise
        return event

    def _register(self, kind: type[WebhookEvent], handler: Handler) -> None:
        if not callable(handler):
            raise InputError("handler", "must be a function of one event")
        for known, kinds in self._handlers:
            if known == handler:  # it still gets an event only once
                kinds.append(kind)
                return
        self._handlers.append((handler, [kind]))

    def _report(self, error: Exception, event: WebhookEvent) -> None:
        log.error("a handler of %s failed", type(event).__name__, exc_info=error)
        if self._on_error is not None:
            try:
                self._on_error(error, event)
            except Exception:  # the user's: other handlers go on all the same
                log.exception("on_error failed")


class Round:
    """An event on its way through the handlers that have not had it, as a context.

    Nobody else has it meanwhile. ``good`` tells whether all its handlers are done with it.
    """

    def __init__(self, registry: Registry, event: WebhookEvent) -> None:
        if not isinstance(event, WebhookEvent):
            raise InputError("event", "must be what parse returned")
        self._registry = registry
        self._event = event
        self._key = event.key
        self._new = 0

    def __enter__(self) -> Self:
        self._had = self._registry._recent.take(self._key)
        self.good = self._had is not None  # who has it already may still fail
        return self

    def __iter__(self) -> Iterator[Handler]:
        """Yield each handler that is to be run; it has had the event when the next is asked for."""
        if self._had is None:
            return
        for n, (handler, kinds) in enumerate(self._registry._handlers):
            if not self._had >> n & 1 and isinstance(self._event, tuple(kinds)):
                self._failed = False
                yield handler
                if not self._failed:
                    self._new |= 1 << n

    def fail(self, error: Exception) -> None:
        """Report an error of the handler that is run."""
        self._failed, self.good = True, False
        self._registry._report(error, self._event)

    def __exit__(self, *exc_info: object) -> None:
        if self._had is not None:
            self._registry._recent.settle(self._key, self._had, self._new)


def check_kind(kind: object) -> None:
    """Raise `InputError` if *kind* is no class of events."""
    if not isinstance(kind, type) or not issubclass(kind, WebhookEvent):
        raise InputError("kind", "must be a class of events, such as NewMessageEvent")


def is_async(handler: Handler) -> bool:
    """Tell whether a handler is a coroutine function, or an object that is called like one."""
    call = getattr(handler, "__call__", None)  # noqa: B004  # its kind matters, not its presence
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)
