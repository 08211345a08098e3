"""A stand-in for the Drift API on localhost, for tests and for trying things out."""

from .routes import Operation
from .server import Sandbox, Seen

__all__ = ["Operation", "Sandbox", "Seen"]
