"""A server that limits, and tasks that call it at a pace: events on a simulated clock."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from drift_async.core.adaptive import AdaptiveRate
from drift_async.core.rate_limit import GcraBucket


class Server(Protocol):
    """What answers."""

    def ask(self, now: float) -> float | None:
        """Return None if a request is let in, else the Retry-After (0: none)."""


class Bucket:
    """A server with a leaky bucket: takes `burst` requests at once, and `rate` a second.

    It refuses the others, and tells whole seconds to wait if it `tells` any. From the moment
    `change[0]` on, the rate is `change[1]`.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        *,
        tells: bool = True,
        change: tuple[float, float] | None = None,
    ) -> None:
        self.rate = rate
        self.burst = burst
        self.tells = tells
        self.change = change
        self._level = 0.0
        self._drained = 0.0

    def ask(self, now: float) -> float | None:
        if self.change is not None and now >= self.change[0]:
            self._drain(self.change[0])
            self.rate, self.change = self.change[1], None
        self._drain(now)
        over = self._level + 1 - self.burst
        if over <= 1e-9:
            self._level += 1
            return None
        return max(1.0, math.ceil(over / self.rate)) if self.tells else 0.0

    def _drain(self, now: float) -> None:
        self._level = max(0.0, self._level - (now - self._drained) * self.rate)
        self._drained = now


class FixedWindow:
    """A server that lets *most* requests in during each window of *seconds*."""

    def __init__(self, most: int, seconds: float, *, tells: bool = True) -> None:
        self.most = most
        self.seconds = seconds
        self.tells = tells
        self._window = 0
        self._count = 0

    def ask(self, now: float) -> float | None:
        window = math.floor(now / self.seconds)
        if window != self._window:
            self._window, self._count = window, 0
        if self._count < self.most:
            self._count += 1
            return None
        end = (window + 1) * self.seconds
        return max(1.0, math.ceil(end - now)) if self.tells else 0.0


class SlidingWindow:
    """A server that lets a request in if fewer than *most* came in during the last *seconds*."""

    def __init__(self, most: int, seconds: float, *, tells: bool = True) -> None:
        self.most = most
        self.seconds = seconds
        self.tells = tells
        self._taken: deque[float] = deque()

    def ask(self, now: float) -> float | None:
        while self._taken and self._taken[0] <= now - self.seconds:
            self._taken.popleft()
        if len(self._taken) < self.most:
            self._taken.append(now)
            return None
        return max(1.0, math.ceil(self._taken[0] + self.seconds - now)) if self.tells else 0.0


class InFlight(SlidingWindow):
    """A server that refuses a request, without Retry-After, while *most* others are inside.

    Each stays for *seconds*.
    """

    def __init__(self, most: int, seconds: float = 0.1) -> None:
        super().__init__(most, seconds, tells=False)


class ByChance:
    """A server without a limit, which refuses a *share* of the requests whatever their rate."""

    def __init__(self, share: float, seed: int = 1) -> None:
        self.share = share
        self._chance = random.Random(seed)

    def ask(self, now: float) -> float | None:
        return 0.0 if self._chance.random() < self.share else None


def learning(ceiling: float | None = None, burst: float = 1.0) -> GcraBucket:
    """Return a pace that adapts to the server, from a ceiling on if there is one."""
    return GcraBucket(AdaptiveRate(ceiling, burst))


@dataclass(frozen=True)
class Outcome:
    """When requests were let in and refused, at the server."""

    taken: list[float]
    refused: list[float]

    def counts(self, after: float) -> tuple[int, int]:
        """Return how many were let in and refused from a moment on."""
        return sum(at >= after for at in self.taken), sum(at >= after for at in self.refused)


def simulate(
    server: Server,
    pace: GcraBucket,
    *,
    tasks: int = 64,
    latency: float = 0.1,
    jitter: float = 0.0,
    seconds: float = 120.0,
    quick: float = 1.0,
    seed: int = 1,
) -> Outcome:
    """Let *tasks* call the server, each again as soon as it has a reply and may.

    A call takes *latency* seconds there and back, more or less by the share *jitter*. A refusal
    needs for the way back the share *quick* of that.
    """
    chance, order = random.Random(seed), itertools.count()
    done = Outcome([], [])
    queue, waited, wake = tasks, False, math.inf
    events: list[tuple[float, int, str, float, float, float | None]] = []

    def at(
        moment: float, what: str, sent: float = 0, travel: float = 0, wait: float | None = None
    ) -> None:
        heapq.heappush(events, (moment, next(order), what, sent, travel, wait))

    at(0.0, "start")
    while events:
        now, _, what, sent, travel, wait = heapq.heappop(events)
        if now > seconds:
            break
        match what:
            case "arrive":
                wait = server.ask(now)
                (done.taken if wait is None else done.refused).append(now)
                at(now + travel * (1 if wait is None else quick), "reply", sent, travel, wait)
                continue
            case "reply":
                if wait is None:
                    pace.let_in(now, sent)
                else:
                    pace.refused(now, sent, wait or None, is_rate_limit=True)
                queue += 1
            case "wake":
                wake = math.inf
        while queue and now >= pace.next - 1e-9:
            pace.sent(now, waited=waited)
            queue -= 1
            travel = latency * (1 + jitter * (2 * chance.random() - 1)) / 2
            at(now + travel, "arrive", now, travel)
        waited = queue > 0
        if waited and pace.next < wake:
            wake = pace.next
            at(wake, "wake")
    return done
