"""The connection to Redis, the channel of invalidations, and the tier of values in Redis."""
