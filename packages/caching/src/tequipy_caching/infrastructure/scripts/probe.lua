-- Find out whether the server takes writes: it raises what refuses deletes, or the channel, too.
-- KEYS: the state; a name that nobody reads
-- ARGV: the channel and a message that changes nothing; none: nothing is published
-- Returns false, or why it refuses what needs memory.
local answer = redis.pcall('SET', KEYS[2], '', 'PX', 1000) -- first: after any change memory is no reason any more
redis.call('HDEL', KEYS[1], 'none')
if #ARGV > 0 then
  local state = redis.call('HMGET', KEYS[1], 'epoch', 'sequence')
  redis.call('PUBLISH', ARGV[1], (state[1] or '') .. ' ' .. (state[2] or 0) .. ' ' .. ARGV[2])
end
return answer.err or false
