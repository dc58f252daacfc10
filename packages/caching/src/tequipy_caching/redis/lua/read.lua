-- Read values and their remaining ttls in one step.
-- KEYS: the channel's state; the keys to read; keys of the tags with which the caller will store
-- ARGV: field of the cache's generation; number of keys to read; prefix of the tags' keys; a generation for caches and
--       tags without one; maximum duration of a load in milliseconds; a mark to write under absent keys (empty: the
--       caller will not store); maximum number of bytes to return of each value (0: all); 1 to test whether the server
--       refuses writes, because its values may then have been invalidated
-- Returns the error with which the server refuses writes (false: it accepts them, or was not tested); the cache's
-- generation (false: it has none); for each key its bytes and its PTTL; for each tag its generation. The bytes are false for an absent key, and
-- the state alone for a tombstone, a mark or a value of an older generation. redis/envelope.py describes the bytes.
local count = tonumber(ARGV[2])
local generation = redis.call('HGET', KEYS[1], ARGV[1])
if not generation then
  -- If this is refused, there is no generation, and nothing will be stored.
  generation = type(redis.pcall('HSETNX', KEYS[1], ARGV[1], ARGV[4])) == 'number' and ARGV[4]
end
-- HDEL of an absent field changes nothing, and is refused like a delete.
local tried = ARGV[8] == '1' and redis.pcall('HDEL', KEYS[1], 'none')
local answer = {type(tried) == 'table' and tried.err or false, generation}

-- Return whether the generations in a value are the current ones of its cache and its tags.
local function holds(bytes)
  if string.sub(bytes, 25, 40) ~= generation then
    return false
  end
  for number = 1, string.byte(bytes, 41) or 0 do
    local at = 10 + number * 32 -- 42 for the first tag: its id, then its generation
    if redis.call('GET', ARGV[3] .. string.sub(bytes, at, at + 15)) ~= string.sub(bytes, at + 16, at + 31) then
      return false
    end
  end
  return true
end

-- Write a mark under an absent key, or extend the ttl of the existing state to the maximum duration of a load. The store
-- compares this state: without it, a key that was evicted or unlinked meanwhile would look as if it had never existed. If
-- the write is refused, there is no state, and nothing will be stored. Bytes shorter than a state were not written by this
-- package.
local function hold(name, bytes)
  if not bytes or #bytes < 24 then
    local set = redis.pcall('SET', name, ARGV[6], 'PX', ARGV[5])
    return set.ok and ARGV[6] or false -- not nil: Redis ends an array at the first nil
  end
  if redis.call('PTTL', name) < tonumber(ARGV[5]) then
    redis.pcall('PEXPIRE', name, ARGV[5])
  end
  return bytes
end

local most, found = tonumber(ARGV[7]), {}
if most > 0 then
  for number = 1, count do
    local bytes = redis.pcall('GETRANGE', KEYS[number + 1], 0, most - 1)
    found[number] = type(bytes) == 'string' and bytes ~= '' and bytes
  end
elseif count > 0 then
  found = redis.call('MGET', unpack(KEYS, 2, count + 1))
end
for number = 1, count do
  local bytes = found[number]
  if bytes and #bytes > 24 and not holds(bytes) then
    bytes = string.sub(bytes, 1, 24)
  end
  if ARGV[6] ~= '' and (not bytes or #bytes <= 24) then
    bytes = hold(KEYS[number + 1], bytes)
  end
  answer[2 * number + 1] = bytes
  answer[2 * number + 2] = bytes and redis.call('PTTL', KEYS[number + 1]) or 0
end
for number = count + 2, #KEYS do
  redis.pcall('SET', KEYS[number], ARGV[4], 'NX', 'PX', ARGV[5])
  answer[#answer + 1] = redis.call('GET', KEYS[number])
end
return answer
