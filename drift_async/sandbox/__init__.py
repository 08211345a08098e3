"""A stand-in for Drift and SegmentStream on localhost, for tests and for trying things out."""

from .logs import Event, EventCounts, Seen
from .routes import Operation
from .server import Sandbox
from .webhooks import Delivery

__all__ = ["Delivery", "Event", "EventCounts", "Operation", "Sandbox", "Seen"]
