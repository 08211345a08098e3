"""The operations of the API, one file a subject: its models, its endpoints and its coroutines."""
