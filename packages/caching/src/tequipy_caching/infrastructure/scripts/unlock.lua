-- Give back leases, those that are still the caller's, and tell all processes.
-- KEYS: the state; leases
-- ARGV: as publish.lua; token
begin()
for number = 2, #KEYS do
  if redis.call('GETRANGE', KEYS[number], 0, 15) == ARGV[4] then
    redis.call('DEL', KEYS[number])
  end
end
publish()
return 1
