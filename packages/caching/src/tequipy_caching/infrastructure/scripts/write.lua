-- Put the same bytes under names and tell the other processes, in one step.
-- KEYS: names (none: only tell)
-- ARGV: bytes (a value, or a tombstone); life in milliseconds; channel; message
for _, name in ipairs(KEYS) do
  redis.call('SET', name, ARGV[1], 'PX', ARGV[2])
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return #KEYS
