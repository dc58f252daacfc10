-- Add members to a set, or extend their ttls, and publish this, in one step.
-- KEYS: the channel's state; the set. It is a sorted set: scores are expiry times in milliseconds of the server's clock. A
--       sentinel member never expires; if it is absent, the set was lost.
-- ARGV: as publish.lua; 16 random characters; then each member and its ttl in milliseconds
-- Returns the sentinel: a byte that is the first of no member, the creation time of the set, and the random characters.
local forever = '9007199254740991' -- the largest integer that a score represents exactly
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
begin()
-- Removes about a thousand expired members: removing all members of a large set would block the server.
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
redis.call('PERSIST', KEYS[2]) -- a previous version set a ttl
publish()
return sentinel
