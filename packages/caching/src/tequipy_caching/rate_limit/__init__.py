"""The rate limiter: GCRA in integers, computed by a script in Redis."""
