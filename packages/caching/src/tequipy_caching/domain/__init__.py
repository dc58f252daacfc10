"""The rules of caches, expiring sets and rate limits, without I/O; imports the standard library only."""
