"""The machinery below the resource groups. Users import from ``drift_async``, not from here."""
