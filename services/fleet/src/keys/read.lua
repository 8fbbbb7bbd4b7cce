-- Reads the sealed records that were written after a position, and notes that an agent is connected.
--
-- KEYS: the records by key id, the position of the last write of each, what each agent has.
-- ARGV: the agent's machine, what it has, the position to read after, the most records.
-- Returns the time in ms, the last position, the sealed description of the gates, how many positions
-- were removed, and for each record its key id, position and bytes.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[3], ARGV[1], string.format('%.0f ', now) .. ARGV[2])
-- The last position, except those that no script gives: more than a day ahead. write.lua has the
-- same. After such a position, there would be no further one.
local micros = time[1] * 1000000 + time[2]
local most = string.format('%.0f', micros + 86400000000)
local last = redis.call(
  'ZRANGE', KEYS[2], most, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
last = math.max(0, math.ceil(tonumber(last[2] or 0)))
-- Another program has written these. A record gets a position again.
local ahead = redis.call('ZRANGE', KEYS[2], '(' .. most, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[4])
for _, field in ipairs(ahead) do
  if redis.call('HMGET', KEYS[1], field)[1] then
    last = math.max(last, micros) + 1
    redis.call('ZADD', KEYS[2], string.format('%.0f', last), field)
  else
    redis.call('ZREM', KEYS[2], field)
  end
end
local gate = redis.call('HMGET', KEYS[1], 'gate')[1]
local out = { now, last, gate or '', #ahead }
local found = redis.call(
  'ZRANGE', KEYS[2], '(' .. ARGV[3], most, 'BYSCORE', 'LIMIT', 0, ARGV[4], 'WITHSCORES')
for i = 1, #found, 2 do
  out[#out + 1] = found[i]
  out[#out + 1] = math.ceil(tonumber(found[i + 1]))
  out[#out + 1] = redis.call('HMGET', KEYS[1], found[i])[1] or ''
end
return out
