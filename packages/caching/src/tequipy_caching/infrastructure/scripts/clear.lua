-- Make all values of a cache void by beginning another generation, and tell all processes.
-- KEYS[1] the state
-- ARGV: as publish.lua; field of the cache's generation; the new generation
begin()
redis.call('HSET', KEYS[1], ARGV[4], ARGV[5])
publish()
return 1
