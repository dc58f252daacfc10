-- Acquire those load leases (of lock="cluster") that are free, or whose holder's load started before an invalidation.
-- KEYS: the channel's state; leases; the keys that they belong to; keys of the tags
-- ARGV: token of the caller (16 bytes); ttl of a lease in milliseconds; number of leases; field of the cache's generation
-- Returns for each lease the milliseconds for which another process holds it, or 0 if the caller holds it. A caller that
-- already holds it gets 0 again, so a request whose response was lost can be repeated.
-- A lease contains the token of its holder, and what its load depends on: the state of the key and the generations of the
-- cache and the tags. If these have changed, the loaded value will not be stored, so the lease is free.
local count = tonumber(ARGV[3])
local common = redis.call('HGET', KEYS[1], ARGV[4]) or ''
for number = 2 * count + 2, #KEYS do
  common = common .. (redis.call('GET', KEYS[number]) or '')
end
local answer = {}
for number = 1, count do
  local lease = KEYS[1 + number]
  local state = redis.pcall('GETRANGE', KEYS[1 + count + number], 0, 23)
  local loads = (type(state) == 'table' and '' or state) .. common
  local held = redis.call('GET', lease)
  if held and string.sub(held, 17) == loads and string.sub(held, 1, 16) ~= ARGV[1] then
    answer[number] = math.max(1, redis.call('PTTL', lease))
  else
    redis.call('SET', lease, ARGV[1] .. loads, 'PX', ARGV[2])
    answer[number] = 0
  end
end
return answer
