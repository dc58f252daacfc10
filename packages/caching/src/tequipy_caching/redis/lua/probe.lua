-- Test whether the server accepts writes, and optionally messages. Fails if it refuses deletes or messages.
-- KEYS: the channel's state; a key that is never read
-- ARGV: optionally the channel and a message without effect
-- Returns false, or the error with which the server refuses writes that need memory.
-- SET is the first command: after the first write of a script, Redis refuses none of its commands for lack of memory.
local answer = redis.pcall('SET', KEYS[2], '', 'PX', 1000)
redis.call('HDEL', KEYS[1], 'none') -- changes nothing; fails if the server refuses deletes
if #ARGV > 0 then
  local state = redis.call('HMGET', KEYS[1], 'epoch', 'sequence')
  redis.call('PUBLISH', ARGV[1], (state[1] or '') .. ' ' .. (state[2] or 0) .. ' ' .. ARGV[2])
end
return answer.err or false
