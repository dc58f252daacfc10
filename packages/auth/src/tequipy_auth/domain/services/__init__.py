"""The use cases: each public method is one, and owns its transaction."""
