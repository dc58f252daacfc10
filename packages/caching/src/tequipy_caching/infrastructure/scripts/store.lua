-- Store what was loaded, each name unless it has changed since it was read: compare and set.
-- KEYS: the state; names; keys of the tags
-- ARGV: field of the cache's generation; that generation as it was read; number of names; tags with their generations as
--       they were read, as they stand in a value;
--       for each name: its state when it was read, the new state, the envelope, its life in milliseconds
-- Returns 1 for each name that was stored, 0 for each that has changed, 2 for each of which nothing is left: what was read
-- there has been evicted, unlinked or expired, and so may what was written since.
local count = tonumber(ARGV[3])
local fit = redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2]
for number = count + 2, #KEYS do
  local at = 2 + (number - count - 2) * 32 -- after the byte that counts them
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
