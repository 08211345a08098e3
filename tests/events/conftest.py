"""Event clients of either face, against a sandbox or a raw server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.events import Maker, maker


@pytest.fixture
def drift_events(face: str) -> Maker:
    """What makes a `DriftEvents` of either face, with awaitable methods; it is not open yet."""
    return maker(face, "DriftEvents")


@pytest.fixture
def segmentstream(face: str) -> Maker:
    """What makes a `SegmentStream` of either face, with awaitable methods; it is not open yet."""
    return maker(face, "SegmentStream")


@pytest.fixture(params=["memory", "disk"])
def outbox(request: pytest.FixtureRequest, tmp_path: Any) -> str | None:
    """Where events wait: None is memory."""
    return None if request.param == "memory" else str(tmp_path / "outbox")
