"""How many requests of one session may be on the wire at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


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
