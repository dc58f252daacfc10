-- Empty a bucket and publish this, in one step. The empty bucket has a negative creation time, which shows processes that
-- missed the message that it was reset; they would take an absent bucket for an evicted one.
-- KEYS: the channel's state; the bucket
-- ARGV: as publish.lua; the longest time for which a process remembers the bucket, in milliseconds
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
begin()
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'at', now, 'level', 0, 'born', -now)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
publish()
