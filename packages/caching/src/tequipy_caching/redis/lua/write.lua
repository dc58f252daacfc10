-- Write a value unconditionally and publish the change. If memory is full, write a tombstone in its place.
-- KEYS: the channel's state; the key; keys of the tags
-- ARGV: as publish.lua; field of the cache's generation; a generation for caches and tags without one; the new state; the
--       envelope; its ttl in milliseconds; a tombstone; its ttl in milliseconds; ids of the tags
-- Returns false, or the error with which Redis refused the value.
-- HSETNX is the first write, so that it alone is refused for lack of memory (see publish.lua).
local refused = redis.pcall('HSETNX', KEYS[1], ARGV[4], ARGV[5])
refused = type(refused) == 'table' and refused.err
begin()
if refused then
  redis.call('SET', KEYS[2], ARGV[9], 'PX', ARGV[10])
  publish()
  return refused
end
local tags = string.char(#KEYS - 2)
for number = 3, #KEYS do
  redis.call('SET', KEYS[number], ARGV[5], 'NX', 'PX', ARGV[8])
  if redis.call('PTTL', KEYS[number]) < tonumber(ARGV[8]) then
    redis.call('PEXPIRE', KEYS[number], ARGV[8])
  end
  tags = tags .. ARGV[8 + number] .. redis.call('GET', KEYS[number])
end
redis.call('SET', KEYS[2], ARGV[6] .. redis.call('HGET', KEYS[1], ARGV[4]) .. tags .. ARGV[7], 'PX', ARGV[8])
publish()
return false
