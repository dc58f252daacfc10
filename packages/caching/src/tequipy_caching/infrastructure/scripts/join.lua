-- Tell where the channel stands. A server that has started again begins a new epoch: it may have lost what came last.
-- KEYS[1] the channel's state
-- ARGV[1] an epoch
-- Returns epoch and sequence.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if redis.call('HGET', KEYS[1], 'run') ~= run then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'run', run, 'epoch', ARGV[1], 'sequence', 0)
end
return redis.call('HMGET', KEYS[1], 'epoch', 'sequence')
