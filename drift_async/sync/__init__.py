"""The blocking face: the names of `drift_async`, for scripts, notebooks and threads.

Models and errors are the same objects on both faces.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import __dir__
from .._version import __version__ as __version__

if TYPE_CHECKING:
    from .._shared import *  # noqa: F403
    from .auth import OAuth as OAuth
    from .bulk import Bulk as Bulk
    from .client import Drift as Drift
    from .drift_events import DriftEvents as DriftEvents
    from .paging import Pager as Pager
    from .sandbox import Sandbox as Sandbox
    from .segmentstream import SegmentStream as SegmentStream
    from .webhooks import Webhooks as Webhooks

TWINS = {
    "Bulk": "bulk",
    "Drift": "client",
    "DriftEvents": "drift_events",
    "OAuth": "auth",
    "Pager": "paging",
    "Sandbox": "sandbox",
    "SegmentStream": "segmentstream",
    "Webhooks": "webhooks",
}


def __getattr__(name: str) -> Any:
    if name == "__all__":  # not a constant: type checkers would believe a computed list
        return __dir__()
    home = f".{TWINS[name]}" if name in TWINS else ".._shared"
    if name.startswith("_") or not hasattr(module := import_module(home, __name__), name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(module, name)
    globals()[name] = value
    return value
