-- Appends a batch of events to a stream, once.
--
-- KEYS: the state, the stream, the node's newest batch. ARGV: the id of the Redis process, the epoch, the newest sequence
-- number that the node knows, the number of the batch, the most entries of the stream, the seconds for which Redis keeps the
-- node's newest batch, and then for each event its category, its data and a note: "", its time to live in milliseconds, or
-- "purge" if it is the purge of the category.
--
-- Returns the epoch, the sequence number of the first event and the timestamp of all, as at an earlier try with the same
-- number of the batch. Returns "open" if the node has to run the other script first.
local state, events, node = KEYS[1], KEYS[2], KEYS[3]
local tried = redis.call('HMGET', node, 'batch', 'epoch', 'first', 'timestamp')
if tried[1] == ARGV[4] then
  -- A write, so that a WAIT that follows has something to wait for.
  redis.call('EXPIRE', node, ARGV[6])
  return {tried[2], tried[3], tried[4]}
end
if tried[1] and tonumber(tried[1]) > tonumber(ARGV[4]) then
  -- A try that Redis had not read before it was made again, over another connection: nobody waits for the answer.
  return redis.error_reply('STALE this batch was tried again meanwhile')
end
local saved = redis.call('HMGET', state, 'epoch', 'sequence', 'timestamp', 'server')
if saved[1] ~= ARGV[2] or saved[4] ~= ARGV[1] or tonumber(saved[2]) < tonumber(ARGV[3]) then
  return {'open'}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local sequence, timestamp = tonumber(saved[2]), math.max(now, tonumber(saved[3]))
local first, stamp = string.format('%.0f', sequence + 1), string.format('%.0f', timestamp)
for at = 7, #ARGV, 3 do
  sequence = sequence + 1
  local id = stamp .. '-' .. string.format('%.0f', sequence)
  local entry = {'XADD', events, 'MAXLEN', '~', ARGV[5], id, 'epoch', ARGV[2], 'category', ARGV[at]}
  local note = ARGV[at + 2]
  if note == 'purge' then
    entry[11], entry[12] = 'purge', '1'
  else
    entry[11], entry[12] = 'data', ARGV[at + 1]
    if note ~= '' then
      entry[13], entry[14] = 'ttl_ms', note
    end
  end
  redis.call(unpack(entry))
end
redis.call('HSET', state, 'sequence', string.format('%.0f', sequence), 'timestamp', stamp)
redis.call('HSET', node, 'batch', ARGV[4], 'epoch', ARGV[2], 'first', first, 'timestamp', stamp)
redis.call('EXPIRE', node, ARGV[6])
return {ARGV[2], first, stamp}
