-- Prepares a stream for a connection, and returns where the stream is.
--
-- KEYS: the state, the stream. ARGV: the id of the Redis process, a random number under 4096, and the newest event that the
-- node knows: its epoch (or ""), sequence number, and the least timestamp that a later event must have.
--
-- Returns the present epoch, the newest sequence number and timestamp, and all epochs, as "epoch:first number:kind;…". The
-- kind of an epoch says what was lost before it: "more" nothing, "new" nothing that a node knew of, "lost" something.
--
-- Numbers are under 2^53, so that Lua has them exactly; %.0f writes all their digits.
local state, events = KEYS[1], KEYS[2]
local server, random = ARGV[1], tonumber(ARGV[2])
local known_epoch, known, known_time = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local saved = redis.call('HMGET', state, 'epoch', 'sequence', 'timestamp', 'server', 'epochs')
local epoch, sequence, timestamp = saved[1], tonumber(saved[2] or 0), tonumber(saved[3] or 0)
local epochs = saved[5] or ''
-- An error if the key has another type.
local last = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)
local changed = false

local function begin(kind, first)
  local started = now
  if epoch then
    -- Later epochs are greater, also after the clock was set back.
    started = math.max(started, tonumber(string.sub(epoch, 1, 12), 16) + 1)
  end
  epoch = string.format('%06x%06x%03x', math.floor(started / 16777216), started % 16777216, random)
  epochs = epochs .. epoch .. ':' .. string.format('%.0f', first) .. ':' .. kind .. ';'
  sequence = first - 1
  changed = true
end

-- A number greater than all that any node can know: by the time, 4096 numbers for each millisecond since 2020, and far
-- past what this node and Redis know.
local function beyond()
  local by_time = (now - 1577836800000) * 4096
  local by_known = math.max(sequence, known) + 4294967296
  if sequence == 0 and known == 0 then by_known = 0 end
  return math.max(by_time, by_known) + 1
end

-- An entry that another program has added can have a later time, and later ids must be greater.
local added = last[1] and tonumber(string.match(last[1][1], '^%d+')) or 0
-- The clock may have been set back, or this is a replica that lagged behind.
added = math.max(added, known_time)
if added > timestamp then
  timestamp = added
  changed = true
end
if not epoch then
  begin(known_epoch == '' and 'new' or 'lost', beyond())
else
  if saved[4] ~= server then
    begin('more', sequence + 1)
  end
  if known_epoch ~= '' then
    local is_there, is_told, is_last = false, false, false
    for name, first, kind in string.gmatch(epochs, '(%x+):(%d+):(%a+);') do
      first = tonumber(first)
      if is_last and first <= known then
        -- The epoch of the node's newest event ended before that event.
        is_there = false
      end
      is_last = name == known_epoch
      if is_last then
        is_there = true
      end
      if kind ~= 'more' and first > known then
        is_told = true
      end
    end
    if is_last and known > sequence then
      is_there = false
    end
    if not is_there and not is_told then
      begin('lost', beyond())
    end
  end
end

if changed then
  local _, count = string.gsub(epochs, ';', '')
  while count > 1000 do
    epochs = string.gsub(epochs, '^[^;]*;', '', 1)
    count = count - 1
  end
  redis.call('HSET', state, 'epoch', epoch, 'sequence', string.format('%.0f', sequence),
    'timestamp', string.format('%.0f', timestamp), 'server', server, 'epochs', epochs)
end
return {epoch, string.format('%.0f', sequence), string.format('%.0f', timestamp), epochs}
