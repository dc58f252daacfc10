-- Return the sentinel of each set, or false for a set that does not exist.
-- KEYS: sets
local answer = {}
for number, name in ipairs(KEYS) do
  answer[number] = redis.call('ZRANGE', name, '9007199254740991', '9007199254740991', 'BYSCORE')[1] or false
end
return answer
