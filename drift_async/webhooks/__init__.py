"""Webhooks: what Drift tells you, verified and typed."""
