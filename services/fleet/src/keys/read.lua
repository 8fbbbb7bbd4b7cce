-- Reads the sealed records that were written after a position, and notes that an agent is connected.
--
-- KEYS: the records by key id, the position of the last write of each, what each agent has.
-- ARGV: the agent's machine, what it has, the position to read after, the most records.
-- Returns the time in ms, the last position, the sealed description of the gates, and for each
-- record its key id, position and bytes.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('HSET', KEYS[3], ARGV[1], string.format('%.0f ', now) .. ARGV[2])
local last = redis.call('ZRANGE', KEYS[2], 0, 0, 'REV', 'WITHSCORES')
local gate = redis.call('HMGET', KEYS[1], 'gate')[1]
local out = { now, tonumber(last[2] or 0), gate or '' }
local found = redis.call(
  'ZRANGE', KEYS[2], '(' .. ARGV[3], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[4], 'WITHSCORES')
for i = 1, #found, 2 do
  out[#out + 1] = found[i]
  out[#out + 1] = tonumber(found[i + 1])
  out[#out + 1] = redis.call('HMGET', KEYS[1], found[i])[1] or ''
end
return out
