-- Store loaded values by compare-and-set: each only if its key, its cache and its tags have not changed since the lookup.
-- KEYS: the channel's state; the keys to store; keys of the tags
-- ARGV: field of the cache's generation; the generation that the lookup read; number of keys to store; the tags and the
--       generations that the lookup read, in the format in which a value contains them;
--       for each key: the state that the lookup read, the new state, the envelope, the ttl in milliseconds
-- Returns for each key 1 if it was stored, 0 if it has changed, 2 if it is absent. An absent key may have changed too: its
-- state was evicted, unlinked or expired, and so may be the tombstone of an invalidation.
local count = tonumber(ARGV[3])
local fit = redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2]
for number = count + 2, #KEYS do
  local at = 2 + (number - count - 2) * 32 -- 2: the first byte is the number of tags
  fit = fit and redis.call('GET', KEYS[number]) == string.sub(ARGV[4], at + 16, at + 31)
end
local answer = {}
for number = 1, count do
  local name, at = KEYS[number + 1], 1 + number * 4
  local outcome = 0
  if fit then
    local state = redis.pcall('GETRANGE', name, 0, 23)
    if state == ARGV[at] then
      redis.call('SET', name, ARGV[at + 1] .. ARGV[2] .. ARGV[4] .. ARGV[at + 2], 'PX', ARGV[at + 3])
      for tag = count + 2, #KEYS do
        if redis.call('PTTL', KEYS[tag]) < tonumber(ARGV[at + 3]) then
          redis.call('PEXPIRE', KEYS[tag], ARGV[at + 3])
        end
      end
      outcome = 1
    elseif state == '' then
      outcome = 2
    end
  end
  answer[number] = outcome
end
return answer
