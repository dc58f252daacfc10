-- Find out whether the server takes writes: it raises what refuses deletes, too.
-- KEYS: the state; a name that nobody reads
-- Returns false, or why it refuses what needs memory.
local answer = redis.pcall('SET', KEYS[2], '', 'PX', 1000) -- first: after any change memory is no reason any more
redis.call('HDEL', KEYS[1], 'none')
return answer.err or false
