"""The steps on a Valkey or Redis server, each one Lua script, so each happens wholly or not at all.

Keys start with the tenant: `<tenant>:<dialect>:` and then

    c:<id>      a hash: the conversation (`n` number, `p` public id, `o` owner, `s` subject,
                `ca` `ua` created and updated at, `len` `read` counts, `st` status, `t` terms,
                `place` in the lists, `turn` newest token, `done` newest token written under)
    m:<id>      a list: its messages, oldest first
    l:<id>      the lease `<token>:<nonce>`, which the server lets expire by its own clock
    k:<id>      a set: the keys of its recorded replies
    p:<public>  the id behind a public id
    i:<owner>   a sorted set of one owner's conversations by (updated at, number), as members
                that sort by their bytes; u:<owner> of those with unread messages

`<tenant>:r:<scope>` is a recorded reply, `<tenant>:r` the set of them by age. All of them expire.
`chat-gateway:version`, `:number` (a counter) and `:all` (every conversation by number) belong to
no tenant. The scripts make keys from others, so the server must not be a cluster.

A script's first answer is a word; times come as decimal text, and `oldest` is the time before
which a conversation has expired though the server still has it.
"""

from typing import Final

from gateway.stores.valkey_server import Script

VERSION_KEY: Final = "chat-gateway:version"

_COMMON: Final = """
local ALL = 'chat-gateway:all'
local function owner_tag(owner) return owner and ('o' .. owner) or 'n' end
local function forget(base, id)
  local c = base .. 'c:' .. id
  local f = redis.call('HMGET', c, 'p', 'o', 'place')
  -- A server that evicts keys may have left these without the conversation.
  for _, key in ipairs(redis.call('SMEMBERS', base .. 'k:' .. id)) do redis.call('DEL', key) end
  redis.call('DEL', c, base .. 'm:' .. id, base .. 'l:' .. id, base .. 'k:' .. id)
  redis.call('ZREM', ALL, c)
  if not f[1] then return end
  local tag = owner_tag(f[2])
  redis.call('DEL', base .. 'p:' .. f[1])
  redis.call('ZREM', base .. 'i:' .. tag, f[3])
  redis.call('ZREM', base .. 'u:' .. tag, f[3])
end
local function live(base, id, oldest)
  local at = redis.call('HGET', base .. 'c:' .. id, 'ua')
  return at and tonumber(at) >= tonumber(oldest)
end
local function expire(keep, ...)
  if keep ~= '0' then
    for _, key in ipairs({...}) do redis.call('EXPIRE', key, keep) end
  end
end
local function place(base, id, stamp, keep, oldest_stamp)
  local c = base .. 'c:' .. id
  local f = redis.call('HMGET', c, 'n', 'o', 'place', 'len', 'read', 'p')
  local tag = owner_tag(f[2])
  local i, u = base .. 'i:' .. tag, base .. 'u:' .. tag
  if f[3] then redis.call('ZREM', i, f[3]); redis.call('ZREM', u, f[3]) end
  local member = stamp .. ':' .. f[1] .. ':' .. id
  redis.call('ZADD', i, 0, member)
  if tonumber(f[4]) > tonumber(f[5]) then redis.call('ZADD', u, 0, member) end
  redis.call('HSET', c, 'place', member)
  redis.call('ZREMRANGEBYLEX', i, '-', '(' .. oldest_stamp)
  redis.call('ZREMRANGEBYLEX', u, '-', '(' .. oldest_stamp)
  expire(keep, c, base .. 'm:' .. id, base .. 'k:' .. id, base .. 'p:' .. f[6], i, u)
end
local function make(base, id, public, owner, subject, at, stamp, terms, token, keep, oldest_stamp,
                    updated)
  local c = base .. 'c:' .. id
  local n = string.format('%018.0f', redis.call('INCR', 'chat-gateway:number'))
  redis.call('HSET', c, 'n', n, 'p', public, 'ca', at, 'ua', updated or at, 'len', 0, 'read', 0,
             'st', 'open', 't', terms, 'turn', token, 'done', '-')
  if owner ~= '' then redis.call('HSET', c, 'o', string.sub(owner, 2)) end
  if subject ~= '' then redis.call('HSET', c, 's', string.sub(subject, 2)) end
  redis.call('SET', base .. 'p:' .. public, id)
  redis.call('ZADD', ALL, n, c)
  place(base, id, stamp, keep, oldest_stamp)
  -- Nobody else misses what has expired: for each that comes two old ones are looked at.
  for _, key in ipairs(redis.call('ZRANDMEMBER', ALL, 2)) do
    if redis.call('EXISTS', key) == 0 then redis.call('ZREM', ALL, key) end
  end
end
local function whole(base, id, messages)
  local said = {}
  if messages > 0 then said = redis.call('LRANGE', base .. 'm:' .. id, -messages, -1) end
  return redis.call('HGETALL', base .. 'c:' .. id), said
end
local function add(base, id, first, last, at, stamp, keep, oldest_stamp)
  local c, m = base .. 'c:' .. id, base .. 'm:' .. id
  for number = first, last do redis.call('RPUSH', m, ARGV[number]) end
  redis.call('HSET', c, 'ua', at, 'len', redis.call('LLEN', m))
  place(base, id, stamp, keep, oldest_stamp)
end
local base, id = KEYS[1], KEYS[2]
"""

# An optional text is '' for none, else the text after a '='.


def _script(body: str) -> Script:
    return Script(_COMMON + body)


LOAD: Final = _script("""
local oldest, messages = ARGV[1], tonumber(ARGV[2])
if not live(base, id, oldest) then return {'missing'} end
return {'ok', whole(base, id, messages)}
""")

FIND: Final = _script("""
local found = redis.call('GET', base .. 'p:' .. id)
if not found or not live(base, found, ARGV[1]) then return {'missing'} end
local about, said = whole(base, found, tonumber(ARGV[2]))
return {'ok', about, said, found}
""")

CREATE: Final = _script("""
local oldest, public = ARGV[1], ARGV[2]
if live(base, id, oldest) then
  -- The same script again, after its answer was lost, finds what it made.
  return {redis.call('HGET', base .. 'c:' .. id, 'p') == public and 'ok' or 'taken'}
end
if redis.call('EXISTS', base .. 'p:' .. public) == 1 then return {'taken'} end
forget(base, id)
make(base, id, public, ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10],
     ARGV[11])
if #ARGV > 11 then
  redis.call('HSET', base .. 'c:' .. id, 'st', ARGV[12], 'read', ARGV[13])
  add(base, id, 14, #ARGV, ARGV[11], ARGV[6], ARGV[9], ARGV[10])
end
return {'ok'}
""")

BEGIN: Final = _script("""
local oldest, messages, lease_ms, nonce = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local create, identity, tenant, scope, body = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local record_s, records, now = ARGV[10], tonumber(ARGV[11]), ARGV[12]
local c, l = base .. 'c:' .. id, base .. 'l:' .. id
local record, ages = tenant .. ':r:' .. scope, tenant .. ':r'
if scope ~= '' then
  local seen = redis.call('HMGET', record, 'body', 'lease', 'at', 'record')
  if seen[1] then
    local running = seen[2] ~= '' and redis.call('GET', seen[3])
    local mine = running and string.find(running, ':' .. nonce, 1, true)
    if seen[2] == '' or running == seen[2] then
      if seen[1] ~= body then return {'reused'} end
      if seen[2] ~= '' and not mine then return {'busy'} end
      if seen[2] == '' and not seen[4] then return {'unrecorded'} end
      if seen[2] == '' and live(base, id, oldest) then
        local about, said = whole(base, id, messages)
        return {'recorded', about, said, seen[4]}
      end
    end
  end
end
if not live(base, id, oldest) then
  if create ~= '1' then return {'missing'} end
  forget(base, id)
  make(base, id, ARGV[13], identity, '', now, ARGV[14], '', ARGV[15], ARGV[16], ARGV[17])
else
  local owner = redis.call('HGET', c, 'o')
  if identity ~= (owner and '=' .. owner or '') then return {'stranger'} end
end
local held = redis.call('GET', l)
local token
if held then
  if not string.find(held, ':' .. nonce, 1, true) then return {'busy'} end
  token = string.match(held, '^(%d+):')
else
  token = string.format('%.0f', redis.call('HINCRBY', c, 'turn', 1))
  redis.call('SET', l, token .. ':' .. nonce, 'PX', lease_ms)
end
if scope ~= '' then
  redis.call('DEL', record)
  redis.call('HSET', record, 'body', body, 'lease', token .. ':' .. nonce, 'at', l)
  redis.call('EXPIRE', record, record_s)
  redis.call('SADD', base .. 'k:' .. id, record)
  expire(ARGV[16], base .. 'k:' .. id)
  redis.call('ZADD', ages, now, record)
  redis.call('EXPIRE', ages, record_s)
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', ages, '-inf', now - record_s, 'LIMIT', 0, 20)) do
    redis.call('ZREM', ages, old)
  end
  while redis.call('ZCARD', ages) > records do
    redis.call('DEL', redis.call('ZPOPMIN', ages)[1])
  end
end
local about, said = whole(base, id, messages)
return {'ok', about, said, token}
""")

RENEW: Final = _script("""
for number = 2, #ARGV, 2 do
  if redis.call('GET', ARGV[number]) == ARGV[number + 1] then
    redis.call('PEXPIRE', ARGV[number], ARGV[1])
  end
end
return {'ok'}
""")

COMMIT: Final = _script("""
local oldest, lease, token = ARGV[1], ARGV[2], ARGV[3]
local record, text, record_s, recorded = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local c, l = base .. 'c:' .. id, base .. 'l:' .. id
if not live(base, id, oldest) then return {'missing'} end
local f = redis.call('HMGET', c, 'turn', 'done')
if f[2] == token then return {'ok'} end
if f[1] ~= token then return {'stale'} end
add(base, id, 12, #ARGV, ARGV[8], ARGV[9], ARGV[10], ARGV[11])
redis.call('HSET', c, 'done', token)
redis.call('DEL', l)
if record ~= '' and redis.call('HGET', record, 'lease') == lease then
  redis.call('HSET', record, 'lease', '')
  if recorded == '1' then redis.call('HSET', record, 'record', text) end
  redis.call('EXPIRE', record, record_s)
end
return {'ok'}
""")

RELEASE: Final = _script("""
local lease, record = ARGV[1], ARGV[2]
if redis.call('GET', base .. 'l:' .. id) == lease then redis.call('DEL', base .. 'l:' .. id) end
if record ~= '' and redis.call('HGET', record, 'lease') == lease then
  redis.call('DEL', record)
  redis.call('SREM', base .. 'k:' .. id, record)
end
return {'ok'}
""")

UPDATE: Final = _script("""
local oldest, subject, status = ARGV[1], ARGV[2], ARGV[3]
local c = base .. 'c:' .. id
if not live(base, id, oldest) then return {'missing'} end
if subject ~= '' then redis.call('HSET', c, 's', string.sub(subject, 2)) end
local open = redis.call('HGET', c, 'st') == 'open'
if status ~= '' and open then redis.call('HSET', c, 'st', status) end
return {'ok', whole(base, id, 0)}
""")

MARK_READ: Final = _script("""
local oldest, count = ARGV[1], tonumber(ARGV[2])
local c = base .. 'c:' .. id
if not live(base, id, oldest) then return {'missing'} end
local f = redis.call('HMGET', c, 'len', 'read', 'o', 'place')
local length = tonumber(f[1])
local read = math.max(tonumber(f[2]), math.min(count, length))
redis.call('HSET', c, 'read', string.format('%.0f', read))
if read >= length then redis.call('ZREM', base .. 'u:' .. owner_tag(f[3]), f[4]) end
return {'ok'}
""")

DELETE: Final = _script("""
local there = live(base, id, ARGV[1])
forget(base, id)
return {there and 'ok' or 'missing'}
""")

RECENT: Final = _script("""
local oldest, oldest_stamp, before = ARGV[1], ARGV[2], ARGV[3]
local limit, messages = tonumber(ARGV[4]), tonumber(ARGV[5])
local members = redis.call('ZREVRANGEBYLEX', base .. 'i:' .. id, before, '[' .. oldest_stamp,
                           'LIMIT', 0, limit)
local found = {'ok'}
for _, member in ipairs(members) do
  local name = string.match(member, '^[^:]*:[^:]*:(.*)$')
  local about, said = {}, {}
  if live(base, name, oldest) then about, said = whole(base, name, messages) end
  found[#found + 1] = {member, about, said}
end
return found
""")

COUNT: Final = _script("""
return {'ok', redis.call('ZLEXCOUNT', base .. ARGV[1] .. ':' .. id, '[' .. ARGV[2], '+')}
""")

HISTORY: Final = _script("""
if not live(base, id, ARGV[1]) then return {'missing'} end
local after, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
return {'ok', redis.call('LRANGE', base .. 'm:' .. id, after, after + limit)}
""")

SCAN: Final = _script("""
local after, limit = ARGV[1], tonumber(ARGV[2])
local members = redis.call('ZRANGEBYSCORE', ALL, '(' .. after, '+inf', 'WITHSCORES',
                           'LIMIT', 0, limit)
local found = {'ok'}
for number = 1, #members, 2 do
  local about = redis.call('HGETALL', members[number])
  if #about == 0 then redis.call('ZREM', ALL, members[number]) end
  found[#found + 1] = {members[number], members[number + 1], about}
end
return found
""")
