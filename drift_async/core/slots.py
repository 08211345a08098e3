"""The bounds of a client's connections, and the slots of those that are free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of a client's connections: seconds, number, bytes."""

    connect_timeout: float = 10.0
    max_connections: int = 100
    max_body: int = 32 * 1024 * 1024


class ConnectionSlots:
    """The connections that a session may still use, given out first come, first served."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[Callable[[], None]] = deque()

    def try_take(self) -> bool:
        """Take a slot at once; return False if there is none now."""
        if not self._free:
            return False
        self._free -= 1
        return True

    def take_later(self, use: Callable[[], None]) -> None:
        """Call *use* once, with a slot taken for it, as soon as one is released."""
        self._waiting.append(use)

    def release(self) -> None:
        """Give a slot back."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1
