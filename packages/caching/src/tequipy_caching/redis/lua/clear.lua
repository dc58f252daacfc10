-- Invalidate all values of a cache with a new generation, and publish this.
-- KEYS[1] the channel's state
-- ARGV: as publish.lua; field of the cache's generation; the new generation
begin()
redis.call('HSET', KEYS[1], ARGV[4], ARGV[5])
publish()
return 1
