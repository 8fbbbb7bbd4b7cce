-- Writes sealed records, each if the store still has what the agent has read.
--
-- KEYS: the records by key id, the position of the last write of each.
-- ARGV: the channel, and for each record its key id, the bytes that were read and the new ones;
-- no bytes stand for none.
-- Returns the last position, and the key ids whose records differed.
--
-- A position is the time in microseconds, or 1 more than the last one. So a store that has lost
-- writes gives no position twice.
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
-- Without the positions that read.lua removes.
local most = string.format('%.0f', micros + 86400000000)
local last = redis.call(
  'ZRANGE', KEYS[2], most, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
local before = math.max(0, math.ceil(tonumber(last[2] or 0)))
local position = math.max(before, micros)
local out = { before }
for i = 2, #ARGV, 3 do
  local present = redis.call('HMGET', KEYS[1], ARGV[i])[1] or ''
  if present ~= ARGV[i + 1] then
    out[#out + 1] = ARGV[i]
  elseif ARGV[i + 2] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
  else
    position = position + 1
    out[1] = position
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
    redis.call('ZADD', KEYS[2], string.format('%.0f', position), ARGV[i])
  end
end
if out[1] > before then
  redis.call('PUBLISH', ARGV[1], '')
end
return out
