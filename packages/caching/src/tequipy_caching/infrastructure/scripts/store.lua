-- Store what was loaded, each name unless it has changed since it was read: compare and set.
-- KEYS: the state; names; keys of the tags
-- ARGV: field of the cache's generation; that generation as it was read; the server's time of that reading; how old it may
--       be in milliseconds (an older one may have missed a tombstone that came and went); number of names; tags with
--       their generations as they were read, as they stand in a value;
--       for each name: its state when it was read (empty: none), the new state, the envelope, its life in milliseconds
-- Returns 1 for each name that was stored, 0 for each that was not.
local time = redis.call('TIME')
local count = tonumber(ARGV[5])
local fit = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[3] < tonumber(ARGV[4])
  and redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2]
for number = count + 2, #KEYS do
  local at = 2 + (number - count - 2) * 32 -- after the byte that counts them
  fit = fit and redis.call('GET', KEYS[number]) == string.sub(ARGV[6], at + 16, at + 31)
end
local answer = {}
for number = 1, count do
  local name, at = KEYS[number + 1], 3 + number * 4
  local seen, stored = ARGV[at], 0
  if fit then
    local state = redis.pcall('GETRANGE', name, 0, 23)
    if type(state) == 'table' then
      state = '' -- not a string: foreign, so it is replaced
    end
    if state == seen then
      redis.call('SET', name, ARGV[at + 1] .. ARGV[2] .. ARGV[6] .. ARGV[at + 2], 'PX', ARGV[at + 3])
      for tag = count + 2, #KEYS do
        if redis.call('PTTL', KEYS[tag]) < tonumber(ARGV[at + 3]) then
          redis.call('PEXPIRE', KEYS[tag], ARGV[at + 3])
        end
      end
      stored = 1
    end
  end
  answer[number] = stored
end
return answer
