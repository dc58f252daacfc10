-- Put before every script that changes something: numbers a message and publishes it.
-- KEYS[1] the channel's state (a hash: epoch, sequence)
-- ARGV: channel; the epoch to begin if there is none; message
local function tell()
  redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2])
  local sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
  redis.call('PUBLISH', ARGV[1], redis.call('HGET', KEYS[1], 'epoch') .. ' ' .. sequence .. ' ' .. ARGV[3])
end
