"""Events that are not lost: `DriftEvents` and `SegmentStream` on one delivery engine."""
