"""What the API offers: one subject, one file, with its models, its rows and its coroutines."""
