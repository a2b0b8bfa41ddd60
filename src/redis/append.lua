-- Appends a batch of publishes to a stream, once.
--
-- KEYS: the state, the stream, the node's newest batch, the idempotency keys, their times. ARGV: the id of the Redis process,
-- the epoch, the newest sequence number that the node knows, the number of the batch, the most entries of the stream, the
-- seconds for which Redis keeps the node's newest batch, the milliseconds for which it keeps a key, the most keys (both 0 if
-- no publish has a key), the least timestamp, and then for each publish the number of its events, its key (or ""), the
-- fingerprint of its events, and for each event its category, its data and a note: "", its time to live in milliseconds, or
-- "purge" if it is the purge of the category.
--
-- Returns the epoch, the sequence number of the first event that was appended, the timestamp of all, and the publishes that
-- were not appended because of their keys, as "number:epoch:last;…" for a repetition of the publish whose last event has this
-- epoch and sequence number, and "number:reused;…" for a key of other events; as at an earlier try with the same number of
-- the batch. Returns "open" if the node has to run the other script first.
--
-- Redis undoes nothing of a script that fails midway. So each command that is needed after the first event is called before
-- it, without an effect: it fails there if the user may not call it or a key has another type.
local state, events, node, keys, times = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local tried = redis.call('HMGET', node, 'batch', 'epoch', 'first', 'timestamp', 'known')
if tried[1] == ARGV[4] then
  -- A write, so that a WAIT that follows has something to wait for.
  redis.call('EXPIRE', node, ARGV[6])
  return {tried[2], tried[3], tried[4], tried[5] or ''}
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
local sequence, timestamp = tonumber(saved[2]), math.max(now, tonumber(saved[3]), tonumber(ARGV[9]))
local first, stamp = string.format('%.0f', sequence + 1), string.format('%.0f', timestamp)
local window, most = tonumber(ARGV[7]), tonumber(ARGV[8])

-- Forgets keys, the oldest first. unpack takes a few thousand values.
local function forget(old)
  if #old > 0 then
    redis.call('HDEL', keys, unpack(old))
    redis.call('ZREM', times, unpack(old))
  end
end

local function append(category, data, note)
  sequence = sequence + 1
  local id = stamp .. '-' .. string.format('%.0f', sequence)
  local entry = {'XADD', events, 'MAXLEN', '~', ARGV[5], id, 'epoch', ARGV[2], 'category', category}
  if note == 'purge' then
    entry[11], entry[12] = 'purge', '1'
  else
    entry[11], entry[12] = 'data', data
    if note ~= '' then
      entry[13], entry[14] = 'ttl_ms', note
    end
  end
  redis.call(unpack(entry))
end

-- HSET comes first: Redis refuses it if its memory is full, and refuses nothing after a script's first write.
redis.call('HSET', state, 'timestamp', stamp)
redis.call('EXPIRE', node, ARGV[6])
local has_keys = most > 0
if has_keys then
  -- No key is empty.
  redis.call('HGET', keys, '')
  redis.call('HDEL', keys, '')
  redis.call('ZADD', times, 'XX', 0, '')
  redis.call('ZREM', times, '')
  redis.call('ZCARD', times)
  redis.call('ZRANGE', times, 0, 0)
  forget(redis.call('ZRANGEBYSCORE', times, '-inf', string.format('%.0f', now - window), 'LIMIT', 0, 1000))
end

local known, number, at = '', 0, 10
while at <= #ARGV do
  local count, key, fingerprint = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
  at, number = at + 3, number + 1
  local of, epoch, last
  if key ~= '' then
    local value = redis.call('HGET', keys, key)
    if value then
      local added
      of, epoch, last, added = string.match(value, '^(%x+):(%x+):(%d+):(%d+)$')
      -- More than a thousand may have expired.
      if of and tonumber(added) + window <= now then
        of = nil
      end
    end
  end
  if of == fingerprint then
    known = known .. number .. ':' .. epoch .. ':' .. last .. ';'
  elseif of then
    known = known .. number .. ':reused;'
  else
    for event = at, at + 3 * count - 1, 3 do
      append(ARGV[event], ARGV[event + 1], ARGV[event + 2])
    end
    if key ~= '' then
      local added = string.format('%.0f', now)
      redis.call('HSET', keys, key, table.concat({fingerprint, ARGV[2], string.format('%.0f', sequence), added}, ':'))
      redis.call('ZADD', times, added, key)
    end
  end
  at = at + 3 * count
end
if has_keys then
  local surplus = math.min(redis.call('ZCARD', times) - most, 1000)
  if surplus > 0 then
    forget(redis.call('ZRANGE', times, 0, surplus - 1))
  end
  -- Redis refuses a time past 2^63 milliseconds.
  local seconds = math.min(math.ceil(window / 1000) + 1, 4294967295)
  redis.call('EXPIRE', keys, seconds)
  redis.call('EXPIRE', times, seconds)
end
redis.call('HSET', state, 'sequence', string.format('%.0f', sequence), 'timestamp', stamp)
redis.call('HSET', node, 'batch', ARGV[4], 'epoch', ARGV[2], 'first', first, 'timestamp', stamp, 'known', known)
redis.call('EXPIRE', node, ARGV[6])
return {ARGV[2], first, stamp, known}
