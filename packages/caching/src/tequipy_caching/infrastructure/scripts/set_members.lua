-- Read a set.
-- KEYS[1] the set
-- Returns each member and what it has left in milliseconds.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = redis.call('ZRANGE', KEYS[1], '(' .. now, '+inf', 'BYSCORE', 'WITHSCORES')
for number = 2, #answer, 2 do
  answer[number] = answer[number] - now
end
return answer
