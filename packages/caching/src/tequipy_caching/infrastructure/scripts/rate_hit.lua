-- Count a request, unless it may not pass: the twin of domain/gcra.py, which explains the arithmetic.
-- KEYS[1] the bucket: a hash of at, level and, for each lease, its holder: "<requests> <until>"
-- ARGV: how far the level falls in a microsecond; how high a request is; burst; how many must pass (0: only look); how
--       many to lease; holder of the lease (empty: nobody); how much of its last lease it has spent; how long a lease is
--       held. Times in microseconds.
-- Returns allowed, leased, remaining, retry after, reset after, the server's time.
local fall, height, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local need, want, spent, life = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7]), tonumber(ARGV[8])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local at, level, reserved = 0, 0, 0
local leases, over, used = {}, {}, {} -- over: holders of leases that end here, used: what they count as
local state = redis.call('HGETALL', KEYS[1])
for index = 1, #state, 2 do
  local field, value = state[index], state[index + 1]
  if field == 'at' then
    at = tonumber(value)
  elseif field == 'level' then
    level = tonumber(value)
  else
    local held, ends = string.match(value, '^(%d+) (%d+)$')
    leases[field] = {tonumber(held), tonumber(ends)}
  end
end
local first, last = math.huge, now
for holder, lease in pairs(leases) do
  local held, ends = lease[1], lease[2]
  if holder == ARGV[6] or ends <= now then
    table.insert(over, holder)
    table.insert(used, {math.min(ends, now), holder == ARGV[6] and spent or held})
  else
    reserved = reserved + held
    first, last = math.min(first, ends), math.max(last, ends)
  end
end
table.sort(used, function(one, other) return one[1] < other[1] end)
for _, part in ipairs(used) do
  level = math.max(0, level - math.max(0, part[1] - at) * fall) + part[2] * height
  at = part[1]
end
level = math.max(0, level - math.max(0, now - at) * fall)

local room = height * (burst - reserved) - level
local lacking = math.max(need, 1) * height - room
local leased, retry = 0, 0
if lacking <= 0 then
  level, room = level + need * height, room - need * height
  leased = math.max(0, math.min(want, math.floor(math.floor(room / height) / 2)))
else
  retry = math.ceil(lacking / fall)
  if lacking > level then
    retry = math.max(retry, first - now + math.ceil((lacking - level) / fall))
  end
end
local reset = math.ceil((level + (reserved + leased) * height) / fall)

if need > 0 and (lacking <= 0 or #over > 0 or now < at) then -- the last: the clock has gone back
  redis.call('HSET', KEYS[1], 'at', now, 'level', level)
  if #over > 0 then
    redis.call('HDEL', KEYS[1], unpack(over))
  end
  if leased > 0 then
    last = now + life
    redis.call('HSET', KEYS[1], ARGV[6], string.format('%.0f %.0f', leased, last)) -- Lua's own .. would lose digits
  end
  redis.call('PEXPIRE', KEYS[1], math.ceil((last - now + reset) / 1000))
end
return {lacking <= 0 and 1 or 0, leased, math.max(0, math.floor(room / height)), retry, reset, now}
