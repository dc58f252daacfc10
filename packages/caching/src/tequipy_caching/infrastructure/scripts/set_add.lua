-- Add members to a set, or lengthen their lives, and tell the other processes, in one step.
-- KEYS: the channel's state; the set: a sorted set by when members leave, in milliseconds of the server's clock, and a
--       sentinel that stays for ever: without it the set has been lost
-- ARGV: as publish.lua; 16 random characters; then each member and its life in milliseconds
-- Returns the sentinel: a byte that begins no member, since when the set is there, and random characters.
local forever = '9007199254740991' -- the largest whole number that a score holds
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
begin()
-- About a thousand leave at once: all of a large set would hold the server.
local last = redis.call('ZRANGE', KEYS[2], 999, 999, 'WITHSCORES')[2]
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', math.min(now, last or now))
local sentinel = redis.call('ZRANGE', KEYS[2], forever, forever, 'BYSCORE')[1]
if not sentinel then
  sentinel = string.format('\255%.0f ', now) .. ARGV[4]
  redis.call('ZADD', KEYS[2], forever, sentinel)
end
for number = 5, #ARGV, 2 do
  redis.call('ZADD', KEYS[2], 'GT', now + ARGV[number + 1], ARGV[number])
end
redis.call('PERSIST', KEYS[2]) -- the version before let it expire
publish()
return sentinel
