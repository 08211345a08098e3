"""A stand-in for Drift and SegmentStream on localhost, for tests and for trying things out."""

from .events import Event, EventCounts
from .routes import Operation
from .server import Sandbox
from .service import Seen
from .webhooks import Delivery

__all__ = ["Delivery", "Event", "EventCounts", "Operation", "Sandbox", "Seen"]
