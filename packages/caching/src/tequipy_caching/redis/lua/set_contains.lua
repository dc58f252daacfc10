-- Return the remaining ttls of members of a set, in milliseconds; 0 for what is not a member.
-- KEYS[1] the set
-- ARGV the members
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttls = {}
for number, member in ipairs(ARGV) do
    ttls[number] = math.max(0, (redis.call('ZSCORE', KEYS[1], member) or 0) - now)
end
return ttls
