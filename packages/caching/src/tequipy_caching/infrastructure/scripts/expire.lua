-- End the lives of values, which may still stand in, and tell all processes.
-- KEYS: the state; names
-- ARGV: as publish.lua; a state that says so; a tombstone, for names without a value; its life in milliseconds; how the
--       state of a value begins
begin()
for number = 2, #KEYS do
  local name = KEYS[number]
  local kind = redis.pcall('GETRANGE', name, 0, 0)
  if kind == string.sub(ARGV[4], 1, 1) or kind == ARGV[7] then
    redis.call('SETRANGE', name, 0, ARGV[4])
    if redis.call('PTTL', name) < tonumber(ARGV[6]) then
      redis.call('PEXPIRE', name, ARGV[6])
    end
  else
    redis.call('SET', name, ARGV[5], 'PX', ARGV[6])
  end
end
publish()
return 1
