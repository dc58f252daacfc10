-- Tell where the channel stands, and publish there what the caller itself is to receive. A server that has started again
-- begins a new epoch: it may have lost what came last. Without the right for INFO that is seen by a sequence that has
-- gone back.
-- KEYS: the channel's state; another key: a node of a Redis Cluster refuses the two together
-- ARGV: an epoch; the epoch and the sequence that the caller knows (0: none); the channel; a message
-- Returns epoch, sequence and false, or why the server refuses writes: then either may be missing.
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
local answer = redis.pcall('HDEL', KEYS[1], 'none')
local refused = type(answer) == 'table' and answer.err
if not refused then
  local known = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'sequence')
  local back = known[2] == ARGV[2] and tonumber(known[3] or 0) < tonumber(ARGV[3])
  if back or not known[2] or run and known[1] ~= run then
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'run', run or '', 'epoch', ARGV[1], 'sequence', 0)
  end
end
local state = redis.call('HMGET', KEYS[1], 'epoch', 'sequence')
redis.call('PUBLISH', ARGV[4], (state[1] or '') .. ' ' .. (state[2] or 0) .. ' ' .. ARGV[5])
return {state[1], state[2], refused}
