-- Store what was loaded, unless the name has changed since it was read: compare and set.
-- KEYS[1] name
-- ARGV: bytes; life in milliseconds; how the bytes began when they were read (empty: none); the server's time of that
--       reading; how old that reading may be in milliseconds (an older one may have missed a tombstone that came and went)
-- Returns 1, or 0 when nothing was stored.
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[4] >= tonumber(ARGV[5]) then
  return 0
end
local beginning = redis.pcall('GETRANGE', KEYS[1], 0, #ARGV[3] > 0 and #ARGV[3] - 1 or 0)
if type(beginning) == 'table' then
  beginning = '' -- not a string: foreign, so it is replaced
end
if beginning ~= ARGV[3] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
