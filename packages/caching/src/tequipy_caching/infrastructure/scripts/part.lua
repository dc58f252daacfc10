-- Read a part of a large value, with the value's state, which tells whether it is still the same one.
-- KEYS[1] the name
-- ARGV: the first and the last byte
return {redis.call('GETRANGE', KEYS[1], 0, 23), redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[2])}
