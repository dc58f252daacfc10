-- Return the epoch and the sequence number of the channel, and begin a new epoch if the server has been restarted: it may
-- have lost the last changes. Every new connection runs this script before its other responses are used. Without
-- permission for INFO, a restart is detected by a sequence number that is lower than the caller's.
-- KEYS: the channel's state; a second key, because a node of a Redis Cluster refuses keys of different slots
-- ARGV: the name of a new epoch; the epoch and sequence number that the caller knows (sequence 0: none); optionally the
--       channel and a message to publish on it, so that the caller can check that it receives messages
-- Returns the epoch, the sequence number, the error with which the server refuses writes (false: it accepts them), and 1
-- if the data are of an earlier run but the new epoch could not be written, else 0. If writes are refused, epoch and
-- sequence may be missing.
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
local answer = redis.pcall('HDEL', KEYS[1], 'none') -- changes nothing; refused like a delete
local refused = type(answer) == 'table' and answer.err
local known = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'sequence')
-- back: an older snapshot of the same epoch was restored
local back = known[2] == ARGV[2] and tonumber(known[3] or 0) < tonumber(ARGV[3])
local old = back or not known[2] or run and known[1] ~= run
if old and not refused then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'run', run or '', 'epoch', ARGV[1], 'sequence', 0)
end
local state = redis.call('HMGET', KEYS[1], 'epoch', 'sequence')
if #ARGV > 3 then
  redis.call('PUBLISH', ARGV[4], (state[1] or '') .. ' ' .. (state[2] or 0) .. ' ' .. ARGV[5])
end
return {state[1], state[2], refused, refused and old and 1 or 0}
