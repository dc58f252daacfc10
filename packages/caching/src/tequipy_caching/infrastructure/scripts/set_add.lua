-- Add members to a set, or lengthen their lives, and tell the other processes, in one step.
-- KEYS: the channel's state; the set: a sorted set by when members leave, in milliseconds of the server's clock
-- ARGV: as tell.lua; then each member and its life in milliseconds
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
begin()
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
for number = 4, #ARGV, 2 do
  redis.call('ZADD', KEYS[2], 'GT', now + ARGV[number + 1], ARGV[number])
end
redis.call('PEXPIREAT', KEYS[2], redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2])
tell()
