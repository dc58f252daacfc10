-- Read names with what they have left, in one step.
-- KEYS: the state; names; keys of the tags with which the reader will store
-- ARGV: field of the cache's generation; number of names; beginning of the tags' keys; a generation for what has none;
--       how long a tag must be kept for a load, in milliseconds
-- Returns the server's time in milliseconds; the cache's generation; for each name its bytes (false: none; the state
-- alone: a tombstone, or void) and its PTTL; for each tag its generation.
local time = redis.call('TIME')
local count = tonumber(ARGV[2])
local generation = redis.call('HGET', KEYS[1], ARGV[1])
if not generation then
  generation = ARGV[4]
  redis.pcall('HSETNX', KEYS[1], ARGV[1], generation) -- refused, nothing will be stored: the next load tries again
end
local answer = {time[1] * 1000 + math.floor(time[2] / 1000), generation}

-- Whether the generations in a value are still those of its cache and its tags.
local function holds(bytes)
  if string.sub(bytes, 25, 40) ~= generation then
    return false
  end
  for number = 1, string.byte(bytes, 41) or 0 do
    local at = 10 + number * 32
    if redis.call('GET', ARGV[3] .. string.sub(bytes, at, at + 15)) ~= string.sub(bytes, at + 16, at + 31) then
      return false
    end
  end
  return true
end

local found = count > 0 and redis.call('MGET', unpack(KEYS, 2, count + 1)) or {}
for number = 1, count do
  local bytes = found[number]
  if bytes and #bytes > 24 and not holds(bytes) then
    bytes = string.sub(bytes, 1, 24)
  end
  answer[2 * number + 1] = bytes
  answer[2 * number + 2] = bytes and redis.call('PTTL', KEYS[number + 1]) or 0
end
for number = count + 2, #KEYS do
  redis.pcall('SET', KEYS[number], ARGV[4], 'NX', 'PX', ARGV[5])
  answer[#answer + 1] = redis.call('GET', KEYS[number])
end
return answer
