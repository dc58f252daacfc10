-- Find out which sets are still there.
-- KEYS: sets
-- Returns the sentinel of each, false where there is none.
local answer = {}
for number, name in ipairs(KEYS) do
  answer[number] = redis.call('ZRANGE', name, '9007199254740991', '9007199254740991', 'BYSCORE')[1] or false
end
return answer
