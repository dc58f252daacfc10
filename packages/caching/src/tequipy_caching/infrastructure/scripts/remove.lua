-- Put tombstones in the place of names and tell all processes.
-- KEYS: the state; names (none: only tell)
-- ARGV: as publish.lua; a tombstone; its life in milliseconds
begin()
for number = 2, #KEYS do
  redis.call('SET', KEYS[number], ARGV[4], 'PX', ARGV[5])
end
publish()
return 1
