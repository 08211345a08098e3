"""Client for the Drift API, awaited and blocking."""
