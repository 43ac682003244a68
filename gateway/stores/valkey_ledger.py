"""The limits' state on a Valkey or Redis server, shared by the workers of any number of machines.

A claim is one script, and times are the server's, so no machine's clock matters. What is full
again or dead expires by itself. A script that the client library sent twice, because it lost the
connection before the answer came, counts once: the first answer is kept for a few seconds.
"""

from collections.abc import Callable
from typing import Final

from gateway.access.claims import FULL_AGAIN_S, SLOT_S, Claim, Shortage, Take
from gateway.stores.ledger import SLOT_WAIT_S
from gateway.stores.valkey_server import Answer, Argument, Script, ValkeyServer

_SEEN_S: Final = 5

# `chat-gateway:level:<bucket>` is a hash of `a` (what it held) and `t` (when), `:slots:<name>` a
# sorted set of holders by the time at which they count as dead, `:claim:<step>:<holder>` the
# answer of a step that has run.
_CONSTANTS: Final = f"""
local SEEN_S, FULL_AGAIN_S = {_SEEN_S}, {FULL_AGAIN_S:.0f}
"""
_COMMON: Final = """
local at = 1
local function word() at = at + 1; return ARGV[at - 1] end
local function number() return tonumber(word()) end
local now = word()
if now == '' then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
else
  now = tonumber(now)
end
local claim = 'chat-gateway:claim:' .. word()
local function ended(...)
  local said = cjson.encode({...})
  redis.call('SET', claim, said, 'EX', SEEN_S)
  return {...}
end
local seen = redis.call('GET', claim)
if seen then return cjson.decode(seen) end
local function level(name, size)
  local f = redis.call('HMGET', 'chat-gateway:level:' .. name, 'a', 't')
  if not f[1] then return size end
  local passed = math.max(0, now - tonumber(f[2]))
  return math.min(size, tonumber(f[1]) + passed * size / 60)
end
local function set_level(name, size, amount)
  local key = 'chat-gateway:level:' .. name
  amount = math.min(size, math.max(-size, amount))
  redis.call('HSET', key, 'a', string.format('%.17g', amount), 't', string.format('%.17g', now))
  redis.call('EXPIRE', key, FULL_AGAIN_S)
end
"""

_RESERVE: Final = Script(
    _CONSTANTS
    + _COMMON
    + """
local holder, slot_s = word(), number()
local takes, slots = {}, {}
for index = 1, number() do
  local name, size, amount = word(), number(), number()
  local has = level(name, size)
  local wait = (math.min(amount, size) - has) * 60 / size
  if wait > 0 then return ended('short', tostring(index), string.format('%.17g', wait)) end
  takes[index] = {name, size, has - amount}
end
for index = 1, number() do
  local key, most = 'chat-gateway:slots:' .. word(), number()
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  if redis.call('ZCARD', key) >= most then
    return ended('short', tostring(#takes + index), '-1')
  end
  slots[index] = key
end
for _, take in ipairs(takes) do set_level(take[1], take[2], take[3]) end
for _, key in ipairs(slots) do
  redis.call('ZADD', key, now + slot_s, holder)
  redis.call('EXPIRE', key, math.ceil(slot_s))
end
return ended('taken')
"""
)
_SETTLE: Final = Script(
    _CONSTANTS
    + _COMMON
    + """
local holder = word()
for _ = 1, number() do
  local name, size, amount = word(), number(), number()
  set_level(name, size, level(name, size) + amount)
end
for _ = 1, number() do redis.call('ZREM', 'chat-gateway:slots:' .. word(), holder) end
return ended('settled')
"""
)
_RENEW: Final = Script(
    _CONSTANTS
    + _COMMON
    + """
local slot_s = number()
for _ = 1, number() do
  local key, holder = 'chat-gateway:slots:' .. word(), word()
  redis.call('ZADD', key, 'XX', now + slot_s, holder)
  redis.call('EXPIRE', key, math.ceil(slot_s))
end
return {'renewed'}
"""
)


class ValkeyLedger:
    """A `Ledger` on `server`, which somebody else opens and closes.

    `clock` gives seconds; None is the server's own clock.
    """

    def __init__(self, server: ValkeyServer, *, clock: Callable[[], float] | None = None) -> None:
        self._server = server
        self._clock = clock

    async def _run(self, script: Script, arguments: list[Argument]) -> Answer:
        now = "" if self._clock is None else repr(self._clock())
        return await self._server.run(script, (), [now, *arguments])

    async def reserve(self, claim: Claim) -> Shortage | None:
        """Takes all of the claim; or nothing, and says what is short."""
        arguments: list[Argument] = [
            f"r:{claim.holder}",
            claim.holder,
            SLOT_S,
            *_takes(claim.takes),
        ]
        arguments.append(len(claim.slots))
        for slot in claim.slots:
            arguments += [slot.name, slot.most]
        word, *rest = await self._run(_RESERVE, arguments)
        if word == b"taken":
            return None
        place, wait_s = int(rest[0]) - 1, float(rest[1])
        if place < len(claim.takes):
            return Shortage(claim.takes[place].limit, wait_s)
        return Shortage(claim.slots[place - len(claim.takes)].limit, SLOT_WAIT_S)

    async def settle(self, claim: Claim, refunds: tuple[Take, ...]) -> None:
        """Gives `refunds` back (a negative amount takes more) and the claim's slots."""
        arguments: list[Argument] = [f"s:{claim.holder}", claim.holder, *_takes(refunds)]
        arguments += [len(claim.slots), *(slot.name for slot in claim.slots)]
        await self._run(_SETTLE, arguments)

    async def renew(self, claims: tuple[Claim, ...]) -> None:
        """Says that the holders of the claims' slots are alive."""
        held = [(slot.name, claim.holder) for claim in claims for slot in claim.slots]
        if held:
            names: list[Argument] = [text for pair in held for text in pair]
            await self._run(_RENEW, ["renewal", SLOT_S, len(held), *names])


def _takes(takes: tuple[Take, ...]) -> list[Argument]:
    arguments: list[Argument] = [len(takes)]
    for take in takes:
        arguments += [take.name, take.size, take.amount]
    return arguments
