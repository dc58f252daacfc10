-- Learn where the channel stands; a new connection does it before its answers are believed. A server that has started
-- again begins a new epoch: it may have lost what came last. Without the right for INFO that is seen by a sequence that
-- has gone back.
-- KEYS: the channel's state; another key: a node of a Redis Cluster refuses the two together
-- ARGV: an epoch; the epoch and the sequence that the caller knows (0: none); optionally the channel and a message to
--       publish there, which the caller itself is to receive
-- Returns epoch, sequence, why the server refuses writes (false: it does not; else either may be missing), and 1 if what
-- it holds is of an earlier run, which a refused write could not say (0: it is not).
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
local answer = redis.pcall('HDEL', KEYS[1], 'none')
local refused = type(answer) == 'table' and answer.err
local known = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'sequence')
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
