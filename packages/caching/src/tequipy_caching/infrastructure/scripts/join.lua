-- Tell where the channel stands. A server that has started again begins a new epoch: it may have lost what came last.
-- KEYS[1] the channel's state
-- ARGV[1] an epoch
-- Returns epoch, sequence and false, or why the server refuses writes: then either may be missing.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local answer = redis.pcall('HDEL', KEYS[1], 'none')
local refused = type(answer) == 'table' and answer.err
if not refused and redis.call('HGET', KEYS[1], 'run') ~= run then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'run', run, 'epoch', ARGV[1], 'sequence', 0)
end
local state = redis.call('HMGET', KEYS[1], 'epoch', 'sequence')
return {state[1], state[2], refused}
