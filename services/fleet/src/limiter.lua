-- States the properties of a limiter, unless another machine has stated others.
--
-- KEYS: what was stated. ARGV: the table's number, the number of its tallies, the policy, 1 to
-- compare the policy too, and for how many milliseconds this is kept.
--
-- Returns nothing, or the properties that differ from these.
local stated = redis.call('HMGET', KEYS[1], 'id', 'tallies', 'policy')
if stated[1] then
  local differs = stated[1] ~= ARGV[1] or stated[2] ~= ARGV[2]
  if differs or (ARGV[4] == '1' and stated[3] ~= ARGV[3]) then return stated end
end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'tallies', ARGV[2], 'policy', ARGV[3])
redis.call('PEXPIREAT', KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[5])
return {}
