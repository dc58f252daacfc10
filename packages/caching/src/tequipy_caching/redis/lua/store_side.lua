-- Store loaded values in side keys, beside values with the schema of another release, by compare-and-set as store.lua.
-- Thus two releases do not overwrite each other's values. The value in a side key has the state of the value in the main key,
-- and is valid only while the main key has this state.
-- KEYS: the channel's state; main keys; their side keys; keys of the tags
-- ARGV: field of the cache's generation; the generation that the lookup read; number of main keys; the tags and the
--       generations that the lookup read, in the format in which a value contains them;
--       for each key: the state that the lookup read, the envelope, the ttl in milliseconds
-- Returns the same as store.lua.
local count = tonumber(ARGV[3])
local fit = redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2]
for number = 2 * count + 2, #KEYS do
  local at = 2 + (number - 2 * count - 2) * 32 -- 2: the first byte is the number of tags
  fit = fit and redis.call('GET', KEYS[number]) == string.sub(ARGV[4], at + 16, at + 31)
end
local answer = {}
for number = 1, count do
  local at = 2 + number * 3
  local state = redis.pcall('GETRANGE', KEYS[number + 1], 0, 23)
  answer[number] = fit and state == '' and 2 or 0
  if fit and state == ARGV[at] then
    redis.call('SET', KEYS[number + count + 1], state .. ARGV[2] .. ARGV[4] .. ARGV[at + 1], 'PX', ARGV[at + 2])
    for tag = 2 * count + 2, #KEYS do
      if redis.call('PTTL', KEYS[tag]) < tonumber(ARGV[at + 2]) then
        redis.call('PEXPIRE', KEYS[tag], ARGV[at + 2])
      end
    end
    answer[number] = 1
  end
end
return answer
