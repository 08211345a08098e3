"""`python -m drift_async`: the command line."""

from .cli import main

main()
