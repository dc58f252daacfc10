-- Count requests in several buckets, unless one of the buckets denies them. rate_limit/gcra.py has the same function in
-- Python and explains the arithmetic.
-- KEYS: the buckets. Each is a hash: at, level, height (the increment of a request in units of the level), born, and a
--       field for each lease, named after its holder: "<requests> <end of the lease>"
-- ARGV: for each bucket: leak rate (units per microsecond); increment of a request (units); burst; number of requests (0:
--       do not count, and release the holder's lease); number of requests to lease; holder of the lease (empty: none);
--       spent requests of the holder's last lease; creation time of the bucket that the caller remembers (0: none); the
--       level that this bucket must still have.
--       Last: duration of a lease. All times are in microseconds.
-- Returns for each bucket: allowed, leased, remaining, retry after, reset after, time until it is empty (without leases of
--       others), creation time, vanished. Last: the server's time.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local lease_time = tonumber(ARGV[#ARGV])
local exact = 4503599627370496 -- 2^52: integers up to here, and their quotients, are exact in Lua's doubles

-- Return a bucket at this moment, with ended leases added to its level; `from` is the first of its values in ARGV.
local function settle(key, from)
  local bucket = {
    leak_rate = tonumber(ARGV[from]), increment = tonumber(ARGV[from + 1]), burst = tonumber(ARGV[from + 2]),
    need = tonumber(ARGV[from + 3]), want = tonumber(ARGV[from + 4]), holder = ARGV[from + 5],
    key = key, at = 0, level = 0, born = 0, reserved = 0, first = math.huge, last = now, over = {},
  }
  -- bucket.over: holders of ended leases; used: end and spent requests of each of these. bucket.first and bucket.last: the
  -- ends of the first and of the last lease that other processes still hold.
  local leases, used = {}, {}
  local state, increment = redis.call('HGETALL', key), bucket.increment
  for index = 1, #state, 2 do
    local field, value = state[index], state[index + 1]
    if field == 'at' then
      bucket.at = tonumber(value)
    elseif field == 'level' then
      bucket.level = tonumber(value)
    elseif field == 'height' then
      increment = tonumber(value)
    elseif field == 'born' then
      bucket.born = tonumber(value)
    else
      local held, ends = string.match(value, '^(%d+) (%d+)$')
      leases[field] = {tonumber(held), tonumber(ends)}
    end
  end
  if increment ~= bucket.increment then -- written under a policy with another rate, for example by another release
    local whole, rest = math.floor(bucket.level / increment), bucket.level % increment
    bucket.level = math.min(whole * bucket.increment + math.ceil(rest * bucket.increment / increment), exact)
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
  local level, at, leak_rate = bucket.level, bucket.at, bucket.leak_rate
  for _, part in ipairs(used) do
    level = math.max(0, level - math.max(0, part[1] - at) * leak_rate) + part[2] * bucket.increment
    at = part[1]
  end
  bucket.level = math.max(0, level - math.max(0, now - at) * leak_rate)
  if bucket.born > 0 and bucket.level == 0 and bucket.reserved == 0 then
    bucket.born = 0 -- an empty bucket is equivalent to an absent one
  end
  local born = tonumber(ARGV[from + 7])
  bucket.vanished = born ~= 0 and born ~= bucket.born and bucket.born >= 0
  if bucket.vanished then
    bucket.level = math.max(bucket.level, tonumber(ARGV[from + 8]) - bucket.reserved * bucket.increment)
  end
  bucket.room = bucket.increment * (bucket.burst - bucket.reserved) - bucket.level
  bucket.lacking = math.max(bucket.need, 1) * bucket.increment - bucket.room
  return bucket
end

local buckets, passes = {}, true
for index, key in ipairs(KEYS) do
  buckets[index] = settle(key, (index - 1) * 9 + 1)
  passes = passes and buckets[index].lacking <= 0
end

local answer = {}
for _, bucket in ipairs(buckets) do
  local leak_rate, increment, lacking = bucket.leak_rate, bucket.increment, bucket.lacking
  local leased, retry = 0, 0
  if bucket.born == 0 and (passes and bucket.need > 0 or bucket.vanished) then
    bucket.born = now
  end
  if passes then
    bucket.level, bucket.room = bucket.level + bucket.need * increment, bucket.room - bucket.need * increment
    leased = math.max(0, math.min(bucket.want, math.floor(math.floor(bucket.room / increment) / 2)))
  elseif lacking > 0 then
    retry = math.ceil(lacking / leak_rate)
    if lacking > bucket.level then
      retry = math.max(retry, bucket.first - now + math.ceil((lacking - bucket.level) / leak_rate))
    end
  end
  local reset = math.ceil((bucket.level + (bucket.reserved + leased) * increment) / leak_rate)

  -- now < bucket.at: the server's clock was set back
  local changes = bucket.need > 0 and (passes or bucket.vanished or now < bucket.at)
  if changes or #bucket.over > 0 and (bucket.need > 0 or bucket.holder ~= '') then
    local last = bucket.last
    redis.call('HSET', bucket.key, 'at', now, 'level', bucket.level, 'height', increment, 'born', bucket.born)
    if #bucket.over > 0 then
      redis.call('HDEL', bucket.key, unpack(bucket.over))
    end
    if leased > 0 then
      last = now + lease_time
      -- Lua's operator .. writes only 14 significant digits
      redis.call('HSET', bucket.key, bucket.holder, string.format('%.0f %.0f', leased, last))
    end
    redis.call('PEXPIRE', bucket.key, math.ceil((last - now + reset) / 1000))
  end
  local remaining = math.max(0, math.floor(bucket.room / increment))
  for _, number in ipairs({
    lacking <= 0 and 1 or 0, leased, remaining, retry, reset,
    math.ceil((bucket.level + leased * increment) / leak_rate), bucket.born, bucket.vanished and 1 or 0,
  }) do
    table.insert(answer, number)
  end
end
table.insert(answer, now)
return answer
