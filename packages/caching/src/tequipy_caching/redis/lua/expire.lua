-- Mark values as expired, so that they may still be served stale, and publish this.
-- KEYS: the channel's state; keys
-- ARGV: as publish.lua; an expired state; a tombstone, for keys without a value; its ttl in milliseconds; the first byte of
--       the state of a value
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
