-- Replace values with tombstones, and publish this.
-- KEYS: the channel's state; keys (none: only publish)
-- ARGV: as publish.lua; a tombstone; its ttl in milliseconds
begin()
for number = 2, #KEYS do
  redis.call('SET', KEYS[number], ARGV[4], 'PX', ARGV[5])
end
publish()
return 1
