-- Put before every script that changes something: numbers a message and publishes it.
-- KEYS[1] the channel's state (a hash: epoch, sequence)
-- ARGV: channel; the epoch to begin if there is none; message

-- Be called before the first change of what must not be refused for want of memory: HDEL never is, and a script that has
-- changed something (be it nothing) is not refused any more.
local function begin()
  redis.call('HDEL', KEYS[1], 'none')
end

local function publish()
  redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2])
  local sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
  redis.call('PUBLISH', ARGV[1], redis.call('HGET', KEYS[1], 'epoch') .. ' ' .. sequence .. ' ' .. ARGV[3])
end
