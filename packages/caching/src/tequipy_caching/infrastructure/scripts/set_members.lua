-- Read a set.
-- KEYS[1] the set
-- Returns its sentinel (false: the set is not there), how old that is in milliseconds, then each member and what it has
-- left in milliseconds.
local forever = '9007199254740991'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local sentinel = redis.call('ZRANGE', KEYS[1], forever, forever, 'BYSCORE')[1]
local answer = {sentinel or false, sentinel and now - string.match(sentinel, '%d+') or 0}
local members = redis.call('ZRANGE', KEYS[1], '(' .. now, '(' .. forever, 'BYSCORE', 'WITHSCORES')
for number = 1, #members, 2 do
  answer[#answer + 1] = members[number]
  answer[#answer + 1] = members[number + 1] - now
end
return answer
