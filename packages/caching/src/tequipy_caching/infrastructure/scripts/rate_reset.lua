-- Forget what was counted and tell the other processes, in one step. What stays says so to those that have not heard it:
-- to them a bucket that is gone without a reset was evicted.
-- KEYS: the channel's state; the bucket
-- ARGV: as publish.lua; how long a process may remember the bucket, in milliseconds
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
begin()
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'at', now, 'level', 0, 'born', -now)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
publish()
