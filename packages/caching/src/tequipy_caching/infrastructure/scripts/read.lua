-- Read names with what they have left, in one step.
-- KEYS: names
-- Returns the server's time in milliseconds and, for each name, its bytes (false: none) and its PTTL.
local time = redis.call('TIME')
local answer = {time[1] * 1000 + math.floor(time[2] / 1000)}
for _, name in ipairs(KEYS) do
  local bytes = redis.pcall('GET', name)
  if type(bytes) == 'table' then
    bytes = '' -- not a string: foreign, so neither a value nor an error
  end
  table.insert(answer, bytes)
  table.insert(answer, redis.call('PTTL', name))
end
return answer
