-- Read a part of a large value, and its state, which shows whether it is still the same value.
-- KEYS[1] the key
-- ARGV: the positions of the first and the last byte
return {redis.call('GETRANGE', KEYS[1], 0, 23), redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[2])}
