-- Return the server's eviction policy; false if it evicts nothing, or if INFO is not permitted.
-- KEYS and ARGV: none
local memory = redis.pcall('INFO', 'memory')
if type(memory) == 'table' or string.find(memory, '\nmaxmemory:0\r') then
  return false
end
local policy = string.match(memory, '\nmaxmemory_policy:([%a-]+)')
return policy ~= 'noeviction' and policy
