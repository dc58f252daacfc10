-- Store what was loaded beside values of another shape, each unless that value has changed since it was read: two releases
-- would overwrite each other's for ever. It has the state of the value that it stands beside, and is void without it.
-- KEYS: the state; names; as many names beside them; keys of the tags
-- ARGV: field of the cache's generation; that generation as it was read; number of names; tags with their generations as
--       they were read, as they stand in a value;
--       for each name: its state when it was read, the envelope, its life in milliseconds
-- Returns as store.lua.
local count = tonumber(ARGV[3])
local fit = redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2]
for number = 2 * count + 2, #KEYS do
  local at = 2 + (number - 2 * count - 2) * 32 -- after the byte that counts them
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
