-- Functions that number and publish a message. This text precedes every script that calls them.
-- KEYS[1] the channel's state (a hash: epoch, sequence)
-- ARGV: the channel; a new epoch, for a state without one; the message

-- Call this before the first write of a script that must not be refused for lack of memory. Redis never refuses HDEL for
-- lack of memory, and after a first write command it refuses no other command of the script.
local function begin()
  redis.call('HDEL', KEYS[1], 'none')
end

local function publish()
  redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2])
  local sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
  redis.call('PUBLISH', ARGV[1], redis.call('HGET', KEYS[1], 'epoch') .. ' ' .. sequence .. ' ' .. ARGV[3])
end
