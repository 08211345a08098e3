"""Fixtures for both faces of `Webhooks`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import drift_async
import drift_async.sync


@pytest.fixture
def make_webhooks(face: str) -> Callable[..., Any]:
    """Return what makes `Webhooks` of either face."""
    return drift_async.Webhooks if face == "awaited" else drift_async.sync.Webhooks
