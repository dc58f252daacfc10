-- Read a part of a set, by rank. Members with the longest ttl come first, so that members that expire between two parts
-- do not shift the ranks of the others.
-- KEYS[1] the set
-- ARGV: ranks of the first and the last member of the part
-- Returns the set's sentinel (false: the set does not exist), its age in milliseconds, 1 if there are more members (else
-- 0), then each member and its remaining ttl in milliseconds.
local forever = '9007199254740991'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local sentinel = redis.call('ZRANGE', KEYS[1], forever, forever, 'BYSCORE')[1]
local members = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'REV', 'WITHSCORES')
local more = #members / 2 > ARGV[2] - ARGV[1] and 1 or 0
local answer = {sentinel or false, sentinel and now - string.match(sentinel, '%d+') or 0, more}
for number = 1, #members, 2 do
  local left = members[number + 1] - now
  if left <= 0 then
    answer[3] = 0
  elseif members[number] ~= sentinel then
    answer[#answer + 1] = members[number]
    answer[#answer + 1] = left
  end
end
return answer
