-- Count a request, unless it may not pass: the twin of domain/gcra.py, which explains the arithmetic. Several buckets
-- count it together: when one of them refuses it, none does.
-- KEYS the buckets: each a hash of at, level, height (of a request in the units of the level), born and, for each lease, its holder: "<requests> <until>"
-- ARGV: for each bucket how far the level falls in a microsecond; how high a request is; burst; how many must pass (0:
--       only look, and give back the holder's lease); how many to lease; holder of the lease (empty: nobody); how much of its last lease it has spent;
--       birth of the bucket that it knows (0: none); how much of that must still be used.
--       At the end: how long a lease is held. Times in microseconds.
-- Returns for each bucket allowed, leased, remaining, retry after, reset after, used for, born, vanished; at the end the server's
-- time.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local life = tonumber(ARGV[#ARGV])
local exact = 4503599627370496 -- to where whole numbers and their quotients are exact

local function settle(key, from)
  local bucket = {
    fall = tonumber(ARGV[from]), height = tonumber(ARGV[from + 1]), burst = tonumber(ARGV[from + 2]),
    need = tonumber(ARGV[from + 3]), want = tonumber(ARGV[from + 4]), holder = ARGV[from + 5],
    key = key, at = 0, level = 0, born = 0, reserved = 0, first = math.huge, last = now, over = {},
  }
  local leases, used = {}, {} -- over: holders of leases that end here, used: what they count as
  local state, height = redis.call('HGETALL', key), bucket.height
  for index = 1, #state, 2 do
    local field, value = state[index], state[index + 1]
    if field == 'at' then
      bucket.at = tonumber(value)
    elseif field == 'level' then
      bucket.level = tonumber(value)
    elseif field == 'height' then
      height = tonumber(value)
    elseif field == 'born' then
      bucket.born = tonumber(value)
    else
      local held, ends = string.match(value, '^(%d+) (%d+)$')
      leases[field] = {tonumber(held), tonumber(ends)}
    end
  end
  if height ~= bucket.height then -- of a policy of another release
    local whole, rest = math.floor(bucket.level / height), bucket.level % height
    bucket.level = math.min(whole * bucket.height + math.ceil(rest * bucket.height / height), exact)
  end
  for holder, lease in pairs(leases) do
    local held, ends = lease[1], lease[2]
    if holder == bucket.holder or ends <= now then
      table.insert(bucket.over, holder)
      table.insert(used, {math.min(ends, now), holder == bucket.holder and tonumber(ARGV[from + 6]) or held})
    else
      bucket.reserved = bucket.reserved + held
      bucket.first, bucket.last = math.min(bucket.first, ends), math.max(bucket.last, ends)
    end
  end
  table.sort(used, function(one, other) return one[1] < other[1] end)
  local level, at, fall = bucket.level, bucket.at, bucket.fall
  for _, part in ipairs(used) do
    level = math.max(0, level - math.max(0, part[1] - at) * fall) + part[2] * bucket.height
    at = part[1]
  end
  bucket.level = math.max(0, level - math.max(0, now - at) * fall)
  if bucket.born > 0 and bucket.level == 0 and bucket.reserved == 0 then
    bucket.born = 0 -- empty is as good as gone
  end
  local born = tonumber(ARGV[from + 7])
  bucket.vanished = born ~= 0 and born ~= bucket.born and bucket.born >= 0
  if bucket.vanished then
    bucket.level = math.max(bucket.level, tonumber(ARGV[from + 8]) - bucket.reserved * bucket.height)
  end
  bucket.room = bucket.height * (bucket.burst - bucket.reserved) - bucket.level
  bucket.lacking = math.max(bucket.need, 1) * bucket.height - bucket.room
  return bucket
end

local buckets, passes = {}, true
for index, key in ipairs(KEYS) do
  buckets[index] = settle(key, (index - 1) * 9 + 1)
  passes = passes and buckets[index].lacking <= 0
end

local answer = {}
for _, bucket in ipairs(buckets) do
  local fall, height, lacking = bucket.fall, bucket.height, bucket.lacking
  local leased, retry = 0, 0
  if bucket.born == 0 and (passes and bucket.need > 0 or bucket.vanished) then
    bucket.born = now
  end
  if passes then
    bucket.level, bucket.room = bucket.level + bucket.need * height, bucket.room - bucket.need * height
    leased = math.max(0, math.min(bucket.want, math.floor(math.floor(bucket.room / height) / 2)))
  elseif lacking > 0 then
    retry = math.ceil(lacking / fall)
    if lacking > bucket.level then
      retry = math.max(retry, bucket.first - now + math.ceil((lacking - bucket.level) / fall))
    end
  end
  local reset = math.ceil((bucket.level + (bucket.reserved + leased) * height) / fall)

  local changes = bucket.need > 0 and (passes or bucket.vanished or now < bucket.at) -- the last: the clock has gone back
  if changes or #bucket.over > 0 and (bucket.need > 0 or bucket.holder ~= '') then
    local last = bucket.last
    redis.call('HSET', bucket.key, 'at', now, 'level', bucket.level, 'height', height, 'born', bucket.born)
    if #bucket.over > 0 then
      redis.call('HDEL', bucket.key, unpack(bucket.over))
    end
    if leased > 0 then
      last = now + life
      -- Lua's own .. would lose digits
      redis.call('HSET', bucket.key, bucket.holder, string.format('%.0f %.0f', leased, last))
    end
    redis.call('PEXPIRE', bucket.key, math.ceil((last - now + reset) / 1000))
  end
  local remaining = math.max(0, math.floor(bucket.room / height))
  for _, number in ipairs({
    lacking <= 0 and 1 or 0, leased, remaining, retry, reset,
    math.ceil((bucket.level + leased * height) / fall), bucket.born, bucket.vanished and 1 or 0,
  }) do
    table.insert(answer, number)
  end
end
table.insert(answer, now)
return answer
