-- Write a value through, whatever is there, and tell all processes. Without memory for it: put a tombstone there.
-- KEYS: the state; name; keys of the tags
-- ARGV: as publish.lua; field of the cache's generation; a generation for what has none; the new state; the envelope; its
--       life in milliseconds; a tombstone; its life in milliseconds; ids of the tags
-- Returns false, or why there is a tombstone.
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
