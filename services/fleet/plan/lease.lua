-- Applies one lease request of a machine, atomically, to all windows of one tally.
--
-- KEYS: a hash for each window.
-- ARGV: the prefix of channels, the machine's name, the request's number, for how many milliseconds
-- units are withheld after a loss, the most machines to recall from; then for each window: limit,
-- hold, want, first millisecond, first millisecond after it, and the part of hold that was admitted
-- without units of the store.
-- Reply: the store's time in milliseconds; then for each window: held, left, machines.
--
-- Fields of a hash:
--   t          the sum of all holdings
--   n          the number of machines
--   x          units that a reset added to the limit
--   w          until when units are withheld
--   <machine>  the number of its last request * 2^32 + its holding
-- A hash with very many machines has a sorted set of their holdings next to it.
--
-- A value that no script writes is an error: the machine could not use the reply.
--
-- A machine's holding falls only by its own newer request, so no repeated or late request frees
-- units that may have been spent. src/holding.rs has the machine's side of the protocol.
local prefix, machine, number = ARGV[1], ARGV[2], tonumber(ARGV[3])
local withhold_ms, most_recalls = tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local reply = {now}

-- The value of a field as a number, if scripts write such numbers.
local function count(value, least, most)
  local number = tonumber(value)
  if not number or not (number >= least and number <= most) then error('not a count') end
  return number
end

-- The holdings of a hash, largest first, if it has more machines than a recall needs: reading a hash
-- of 10,000 machines takes 20 ms, in which the store does nothing else.
local function ordered(key)
  return key .. ':ordered'
end

-- Adds the holding of this machine to the ordered ones, with the others if it is the first to make
-- them necessary.
local function order(key, held, machines, is_new, ends)
  if machines == most_recalls + 1 and is_new then
    local fields, scores = redis.call('HGETALL', key), {}
    for i = 1, #fields, 2 do
      if #fields[i] > 1 then
        scores[#scores + 1] = -(tonumber(fields[i + 1]) % 4294967296)
        scores[#scores + 1] = fields[i]
      end
    end
    redis.call('ZADD', ordered(key), unpack(scores))
    redis.call('PEXPIREAT', ordered(key), ends + 10000)
  else
    redis.call('ZADD', ordered(key), -held, machine)
  end
end

-- Requests the idle units of the machines with the largest holdings, except this one.
local function recall(key, machines)
  local others = {}
  if machines > most_recalls then
    local scores = redis.call('ZRANGE', ordered(key), 0, most_recalls, 'WITHSCORES')
    for i = 1, #scores, 2 do
      others[#others + 1] = {scores[i], -tonumber(scores[i + 1])}
    end
  else
    local fields = redis.call('HGETALL', key)
    for i = 1, #fields, 2 do
      if #fields[i] > 1 then
        others[#others + 1] = {fields[i], tonumber(fields[i + 1]) % 4294967296}
      end
    end
    table.sort(others, function(a, b) return a[2] > b[2] or (a[2] == b[2] and a[1] < b[1]) end)
  end
  local recalled = 0
  for _, other in ipairs(others) do
    if other[1] ~= machine and other[2] > 1 and recalled < most_recalls then
      redis.call('PUBLISH', prefix .. ':recall:' .. other[1], key)
      recalled = recalled + 1
    end
  end
end

for i, key in ipairs(KEYS) do
  local at = 6 * i
  local limit, hold, want = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local begins, ends = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local unreserved = tonumber(ARGV[at + 5])
  local held, left, machines = hold, 0, 0
  if begins <= now and now < ends then
    local hash = redis.call('HMGET', key, 't', 'n', 'x', 'w', machine)
    local out = count(hash[1] or 0, 0, 2^53)
    local known = (hash[2] or hash[5]) and count(hash[2], 1, 2^31 - 2) or 0
    local most, withheld = limit + count(hash[3] or 0, 0, 2^53), count(hash[4] or 0, 0, 2^53)
    local last = count(hash[5] or 0, 0, 2^53)
    if withheld > now + withhold_ms then
      -- The clock was set back, or another program has written it.
      withheld = now + withhold_ms
      redis.call('HSET', key, 'w', withheld)
    end
    local had = last % 4294967296
    local last_number = (last - had) / 4294967296
    if not hash[5] or (number - last_number - 1) % 2097152 < 1048576 then
      -- A newer number; numbers are counted round.
      if hold - unreserved > had then
        -- The store lacks what it had confirmed, so it may lack that of others too.
        if now >= withheld + withhold_ms then
          withheld = now + withhold_ms
          redis.call('HSET', key, 'w', withheld)
        end
        redis.call('PUBLISH', prefix .. ':again', key)
      end
      local before = most - out
      local free = before + had - hold
      local grant = 0
      if now >= withheld then
        grant = math.max(0, math.min(want - hold, free))
      end
      held, left = hold + grant, math.max(0, free - grant)
      machines = hash[5] and known or known + 1
      redis.call('HSET', key, 't', out - had + held, 'n', machines, machine, number * 4294967296 + held)
      if not hash[1] then
        redis.call('PEXPIREAT', key, ends + 10000)
      end
      if machines > most_recalls and (held ~= had or not hash[5]) then
        order(key, held, machines, not hash[5], ends)
      end
      local low = limit / 8
      if grant > 0 and machines > 1 and (left == 0 or (before > low and left <= low)) then
        recall(key, machines)
      end
    elseif number == last_number then
      -- The same request again.
      held, left, machines = had, math.max(0, most - out), known
    else
      machines = -1
    end
  end
  reply[3 * i - 1], reply[3 * i], reply[3 * i + 1] = held, left, machines
end
return reply
