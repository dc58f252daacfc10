-- Read names with what they have left, in one step.
-- KEYS: the state; names; keys of the tags with which the reader will store
-- ARGV: field of the cache's generation; number of names; beginning of the tags' keys; a generation for what has none;
--       how long a load may take, in milliseconds; a mark to leave where nothing is (empty: nothing will be stored);
--       how many bytes of each at most (0: all); 1 to find out whether the server refuses writes: what it holds may then
--       be invalid
-- Returns why the server refuses writes (false: it does not, or that was not asked); the cache's generation; for each
-- name its bytes (false: none; the state alone: a tombstone, a mark, or void) and its PTTL; for each tag its generation.
local count = tonumber(ARGV[2])
local generation = redis.call('HGET', KEYS[1], ARGV[1])
if not generation then
  generation = ARGV[4]
  redis.pcall('HSETNX', KEYS[1], ARGV[1], generation) -- refused, nothing will be stored: the next load tries again
end
local tried = ARGV[8] == '1' and redis.pcall('HDEL', KEYS[1], 'none')
local answer = {type(tried) == 'table' and tried.err or false, generation}

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

-- Keep for as long as a load may take what its store will compare, or leave a mark: what is evicted or unlinked meanwhile
-- must not be taken for what was never there. Refused, nothing is left, and nothing will be stored. What is shorter than
-- a state is foreign.
local function hold(name, bytes)
  if not bytes or #bytes < 24 then
    local set = redis.pcall('SET', name, ARGV[6], 'PX', ARGV[5])
    return set.ok and ARGV[6] or false -- not nil, which would end the answer
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
