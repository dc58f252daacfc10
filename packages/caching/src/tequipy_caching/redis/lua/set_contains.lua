-- Return the remaining ttl of a member of a set, in milliseconds; 0 if it is not a member.
-- KEYS[1] the set
-- ARGV[1] the member
local time = redis.call('TIME')
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
return math.max(0, (ends or 0) - time[1] * 1000 - math.floor(time[2] / 1000))
