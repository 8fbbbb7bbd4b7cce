-- Lets each window of a tally admit its limit again, atomically.
--
-- KEYS: a hash for each window. ARGV: the prefix of channels. Reply: the number of hashes that exist.
--
-- The limit is raised by what all machines hold, so what they hold already stays theirs, and a
-- machine that has just requested units loses none. They state their holdings again, and so learn
-- what is left.
local found = 0
for _, key in ipairs(KEYS) do
  local out = redis.call('HGET', key, 't')
  if out then
    redis.call('HSET', key, 'x', out)
    redis.call('PUBLISH', ARGV[1] .. ':again', key)
    found = found + 1
  end
end
return found
