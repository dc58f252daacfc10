-- Release those load leases that the caller still holds, and publish this.
-- KEYS: the channel's state; leases
-- ARGV: as publish.lua; token of the caller
begin()
for number = 2, #KEYS do
  if redis.call('GETRANGE', KEYS[number], 0, 15) == ARGV[4] then
    redis.call('DEL', KEYS[number])
  end
end
publish()
return 1
