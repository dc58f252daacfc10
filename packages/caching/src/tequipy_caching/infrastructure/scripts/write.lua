-- Put the same bytes under names and tell the other processes, in one step.
-- KEYS: the channel's state; names (none: only tell)
-- ARGV: as tell.lua; bytes (a value, or a tombstone); life in milliseconds
for number = 2, #KEYS do
  redis.call('SET', KEYS[number], ARGV[4], 'PX', ARGV[5])
end
tell()
return #KEYS - 1
