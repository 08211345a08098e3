"""Webhooks: verified, typed events from Drift, and the handlers that process them."""
