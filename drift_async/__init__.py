"""Client for the Drift API: awaited here, blocking in `drift_async.sync`.

Names are loaded when one is first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from ._shared import *  # noqa: F403  # a test holds its names
    from .auth import OAuth as OAuth
    from .client import Drift as Drift
    from .core.bulk import Bulk as Bulk
    from .core.paging import Pager as Pager
    from .events.drift import DriftEvents as DriftEvents
    from .events.segmentstream import SegmentStream as SegmentStream
    from .sandbox import Sandbox as Sandbox
    from .webhooks.webhooks import Webhooks as Webhooks

# The names that are not the same on both faces, and their modules; all others are in `_shared`.
TWINS = {
    "Bulk": "core.bulk",
    "Drift": "client",
    "DriftEvents": "events.drift",
    "OAuth": "auth",
    "Pager": "core.paging",
    "Sandbox": "sandbox",
    "SegmentStream": "events.segmentstream",
    "Webhooks": "webhooks.webhooks",
}


def __getattr__(name: str) -> Any:
    if name == "__all__":  # here, since type checkers would take a list of it at its word
        return __dir__()
    home = TWINS.get(name, "_shared")
    if name.startswith("_") or not hasattr(module := import_module(f".{home}", __name__), name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    shared = vars(import_module("._shared", __name__))
    return ["__version__", *sorted(name for name in {*TWINS, *shared} if name[0] != "_")]
