"""`Webhooks`: verifies deliveries and runs the handlers of their events.

`HandlerRegistry`, `DispatchRun` and `DedupCache` are shared with the blocking `Webhooks`, which is
in ``drift_async.sync.webhooks``. HTTP requests are handled in ``receive.py``.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

from anyio import CapacityLimiter, to_thread

from ..core.secret import Secret
from ..core.validate import integer, number
from ..errors import InputError
from .events import WebhookEvent, log
from .receive import AsgiReceiver, DeliveryReceiver, HandlerQueue, aiohttp_handler
from .verify import MIB, Headers, Verifier, hide_all

if TYPE_CHECKING:
    from aiohttp import web

E = TypeVar("E", bound=WebhookEvent)
R = TypeVar("R", bound=Awaitable[object] | None)
Handler = Callable[[Any], Any]
OnError = Callable[[Exception, WebhookEvent], object]


class DedupCache:
    """Remembers for *window* seconds which handlers have processed an event; thread-safe.

    At most *size* events are remembered. The n-th handler is bit n of a number, a handler mask.
    """

    def __init__(self, window: float, size: int, clock: Callable[[], float]) -> None:
        self._window = window
        self._size = size
        self._clock = clock
        self._running: set[str] = set()
        self._done: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, key: str) -> int | None:
        """Mark an event as being dispatched and return the mask of handlers that had it before.

        Return None if another delivery of the event is being dispatched now.
        """
        if not self._window:
            return 0
        with self._lock:
            oldest = self._clock() - self._window
            while self._done and next(iter(self._done.values()))[0] <= oldest:
                self._done.popitem(last=False)
            if key in self._running:
                return None
            self._running.add(key)
            _, mask = self._done.get(key, (0.0, 0))
            return mask

    def end(self, key: str, before: int, new: int) -> None:
        """End a dispatch: add the *new* handlers to those that had the event *before*."""
        if not self._window:
            return
        with self._lock:
            self._running.discard(key)
            if new:  # a repeat that ran no handler does not extend the time
                self._done[key] = self._clock(), before | new
                self._done.move_to_end(key)
                if len(self._done) > self._size:
                    self._done.popitem(last=False)


class HandlerRegistry:
    """Base of both `Webhooks` classes: settings, verification and the registered handlers."""

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
        tokens = hide_all(verification_token)
        del verification_token  # a traceback can show the locals of this frame
        self._verifier = Verifier(tokens, tolerance=tolerance, max_body=max_body, clock=clock)
        self._dedup_cache = DedupCache(
            number("dedup_window", dedup_window), integer("dedup_size", dedup_size, 1), clock
        )
        self._body_timeout = number("body_timeout", body_timeout, above=0)
        self._max_running = integer("max_running", max_running, 1)
        self._max_waiting = integer("max_waiting", max_waiting)
        self._on_error = on_error
        self._handlers: list[tuple[Handler, list[type[WebhookEvent]]]] = []

    def parse(self, body: bytes, headers: Headers) -> WebhookEvent:
        """Return the event in a delivery, verified; an `UnknownEvent` if its type is not known.

        *body* is the bytes as they came, *headers* what your web framework has: a mapping, or
        pairs. A token that is missing or wrong, a body over ``max_body``, a body that is not a
        JSON object, or an event too far from now raises `VerificationError`.
        """
        try:
            return self._verifier.verify(body, headers)
        except Exception as error:
            failure = error.with_traceback(None)
        del body, headers  # a traceback can show the locals of this frame: they hold a token
        raise failure

    def _register(self, kind: type[WebhookEvent], handler: Handler) -> None:
        if not callable(handler):
            raise InputError("handler", "must be a function of one event")
        for known, kinds in self._handlers:
            if known == handler:  # it still gets an event only once
                kinds.append(kind)
                return
        self._handlers.append((handler, [kind]))


class DispatchRun:
    """Context manager and iterator that runs one event through the handlers that lack it.

    No other delivery of the event is dispatched meanwhile. ``succeeded`` is True if, at the end,
    all handlers have processed the event.
    """

    def __init__(self, registry: HandlerRegistry, event: WebhookEvent) -> None:
        if not isinstance(event, WebhookEvent):
            raise InputError("event", "must be what parse returned")
        self._registry = registry
        self._event = event
        self._key = event.key
        self._new = 0

    def __enter__(self) -> Self:
        is_bare = type(self._event) is WebhookEvent
        if is_bare:
            log.error("an event without the class of its type was dispatched: use from_json")
        self._before = self._registry._dedup_cache.begin(self._key)
        # Another delivery may still fail; the handlers of its type do not see a bare event.
        self.succeeded = self._before is not None and not is_bare
        return self

    def __iter__(self) -> Iterator[Handler]:
        """Yield each handler to run; a handler without `record_failure` counts as done."""
        if self._before is None:
            return
        for n, (handler, kinds) in enumerate(self._registry._handlers):
            if not self._before >> n & 1 and isinstance(self._event, tuple(kinds)):
                self._failed = False
                yield handler
                if not self._failed:
                    self._new |= 1 << n

    def record_failure(self, error: Exception) -> None:
        """Log and report an error of the handler that ran last."""
        self._failed, self.succeeded = True, False
        log.error("a handler of %s failed", type(self._event).__name__, exc_info=error)
        if (on_error := self._registry._on_error) is not None:
            try:
                on_error(error, self._event)
            except (Exception, SystemExit):  # the user's: other handlers go on all the same
                log.exception("on_error failed")

    def __exit__(self, *exc_info: object) -> None:
        if self._before is not None:
            self._registry._dedup_cache.end(self._key, self._before, self._new)


def check_kind(kind: object) -> None:
    """Raise `InputError` unless *kind* is a class of events."""
    if not isinstance(kind, type) or not issubclass(kind, WebhookEvent):
        raise InputError("kind", "must be a class of events, such as NewMessageEvent")


def is_async(handler: Handler) -> bool:
    """Return whether a handler is a coroutine function, or an object with an async `__call__`."""
    call = getattr(handler, "__call__", None)  # noqa: B004  # its kind matters, not its presence
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


class Webhooks(HandlerRegistry):
    """Receives the events that Drift sends: https://devdocs.drift.com/docs/webhook-events-1

    ``verification_token`` is the one of your app at dev.drift.com; give several while it is being
    changed. Drift signs nothing: anybody who has seen one delivery has the token, and can send any
    event. So serve HTTPS only, and treat the texts in events as written by strangers.

    An event that is delivered again within ``dedup_window`` seconds (600; 0 turns it off) does not
    reach a handler that has processed it, unless that failed. The last ``dedup_size`` events
    (10,000) are remembered, by this object alone: several processes need a store that they share,
    with ``event.key`` as the key. With ``tolerance``, an event whose own time is more seconds than
    that away from now is refused; many have none. Neither stops an attacker who has the token.

    The receivers limit what they accept: ``max_body`` bytes (1 MiB), ``body_timeout`` seconds for
    a body to arrive (10), ``max_running`` deliveries in their handlers at once (100), and
    ``max_waiting`` accepted ones behind them (1,000); further ones are answered with 503. They
    answer before the handlers run, so Drift does not repeat a delivery whose handler fails, and an
    accepted delivery is in memory only: hand what must not be lost to a queue of your own.

    Errors of handlers are logged, and given to ``on_error`` with the event. ``clock`` gives the
    time in epoch seconds.

    >>> webhooks = Webhooks("token")
    >>> @webhooks.on(NewMessageEvent)
    ... async def answer(event: NewMessageEvent) -> None:
    ...     print(event.data.body)
    """

    @cached_property
    def _queue(self) -> HandlerQueue:
        return HandlerQueue(self.dispatch, self._max_running, self._max_waiting)

    @cached_property
    def _threads(self) -> CapacityLimiter:
        return CapacityLimiter(self._max_running)

    @cached_property
    def _receiver(self) -> DeliveryReceiver:
        return DeliveryReceiver(
            self.parse, self._queue, self._verifier.max_body, self._body_timeout
        )

    def on(self, kind: type[E]) -> Callable[[Callable[[E], R]], Callable[[E], R]]:
        """Register the decorated function as a handler of all events of this class.

        The function may be async or plain; a plain one runs in a worker thread. `WebhookEvent`
        stands for all events.
        """
        check_kind(kind)

        def register(handler: Callable[[E], R]) -> Callable[[E], R]:
            self._register(kind, handler)
            return handler

        return register

    async def dispatch(self, event: WebhookEvent) -> bool:
        """Run the handlers of an event in turn; return whether all have processed it.

        Handlers that processed the event in an earlier delivery are skipped. While an earlier
        delivery is still being handled, and may yet fail, no handler runs and the result is False.
        On False, answer the sender with an error, so that the event is sent again.
        For a bare `WebhookEvent`, which handlers of its type do not see, the result is False too.
        """
        with DispatchRun(self, event) as run:
            for handler in run:
                try:
                    await self._run(handler, event)
                except Exception as error:  # the user's: other handlers go on all the same
                    run.record_failure(error)
        return run.succeeded

    async def _run(self, handler: Handler, event: WebhookEvent) -> None:
        try:
            if is_async(handler):
                result = handler(event)
            else:
                result = await to_thread.run_sync(
                    handler, event, abandon_on_cancel=True, limiter=self._threads
                )
            if inspect.isawaitable(result):
                await result
        except SystemExit as error:  # raised in a task, it would end the loop and the server
            raise RuntimeError("the handler called sys.exit") from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The handler itself was not cancelled, only something that it awaited.
            raise RuntimeError("the handler ended as cancelled") from None

    def asgi(self) -> AsgiReceiver:
        """Return an ASGI application that receives deliveries by POST, at any path.

        It verifies, answers, and only then runs the handlers, as tasks of the running loop. If you
        mount it in another application, call `drain` when that shuts down; served by itself, it
        drains by itself.
        """
        return AsgiReceiver(self._receiver, self.drain)

    def aiohttp_handler(self) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return a handler for an ``aiohttp.web`` route; it does what `asgi` does.

        >>> app.router.add_post("/drift", webhooks.aiohttp_handler())
        """
        return aiohttp_handler(self._receiver)

    async def drain(self, timeout: float = 30.0) -> int:
        """Wait until all accepted deliveries are handled; return how many were not.

        After *timeout* seconds the remaining handlers are cancelled, except plain ones, which go
        on in their threads unheeded. New deliveries are answered with 503 meanwhile.
        """
        unhandled = await self._queue.drain(number("timeout", timeout))
        if unhandled:
            log.warning("%d accepted deliveries were cut off", unhandled)
        return unhandled
