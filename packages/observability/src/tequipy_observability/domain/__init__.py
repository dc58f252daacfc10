"""The request context: standard library only, so that every package may depend on it."""
