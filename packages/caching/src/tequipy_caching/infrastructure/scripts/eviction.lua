-- KEYS and ARGV: none
-- Returns the policy by which this server evicts; false when it evicts nothing, or does not say.
local memory = redis.pcall('INFO', 'memory')
if type(memory) == 'table' or string.find(memory, '\nmaxmemory:0\r') then
  return false
end
local policy = string.match(memory, '\nmaxmemory_policy:([%a-]+)')
return policy ~= 'noeviction' and policy
