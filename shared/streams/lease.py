"""Who owns a run: a lease whose generation shuts out every earlier owner."""

import secrets

from shared.errors import Conflict
from shared.streams.connection import Connection
from shared.streams.keys import RunKeys

# Each script frees memory before it writes, so that it works where Redis is full: only a learner with the lease can
# empty it.

# {generation} when acquired, else {0, holder, milliseconds left}; a lease without an end is nobody's
_ACQUIRE = """
local held = redis.call('GET', KEYS[1])
if held then
  local owner = string.match(held, '^%d+ %x+ (.*)$') or held
  local left = redis.call('PTTL', KEYS[1])
  if owner ~= ARGV[1] and left > 0 then return {0, owner, left} end
end
redis.call('DEL', KEYS[1])
local generation = math.max((tonumber(redis.call('GET', KEYS[2]) or '') or 0) + 1, tonumber(ARGV[2]))
redis.call('SET', KEYS[2], string.format('%.0f', generation))
redis.call('SET', KEYS[1], string.format('%.0f', generation) .. ' ' .. ARGV[4] .. ' ' .. ARGV[1], 'PX', ARGV[3])
return {generation}
"""

# {1} when the lease is still, or again, ours; else {0, the highest generation}. Where the server lost its data, another
# owner may have begun again at our generation: the lease is whose that took it first.
_RENEW = """
local mine = tonumber(ARGV[2])
local highest = tonumber(redis.call('GET', KEYS[2]) or '') or 0
local ours = ARGV[2] .. ' ' .. ARGV[4] .. ' ' .. ARGV[1]
local held = redis.call('GET', KEYS[1])
if highest > mine or (held and held ~= ours) then return {0, highest} end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[2])
redis.call('SET', KEYS[1], ours, 'PX', ARGV[3])
return {1}
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class OwnerLease:
    """The lease of one run in one process. An owner that stops renewing it loses it after `ttl_seconds`."""

    def __init__(self, connection: Connection, keys: RunKeys, ttl_seconds: float) -> None:
        self._connection = connection
        self._keys = [keys.lease, keys.generation]
        self._run = keys.run
        self._ttl_milliseconds = int(ttl_seconds * 1000)
        self._owner = ""
        self._generation = 0
        self.origin = secrets.token_hex(4)
        """Of the versions that this process makes under the lease; no other lease of any run has it."""

    async def acquire(self, owner: str, at_least: int) -> int:
        """Takes the lease and returns its generation: higher than any before, and at least `at_least` (one more than
        the checkpoint's, since Redis may have lost its count). The same `owner` gets it at once; Conflict while
        another has it."""
        words = [owner, at_least, self._ttl_milliseconds, self.origin]
        reply = await self._connection.script(_ACQUIRE, self._keys, words)
        if reply[0] == 0:
            raise Conflict(
                f"run {self._run!r} belongs to {reply[1].decode(errors='replace')!r}, whose lease ends in "
                f"{reply[2] / 1000:.1f} s unless it is renewed; stop that learner, or give this run another name"
            )
        self._owner, self._generation = owner, int(reply[0])
        return self._generation

    async def renew(self) -> None:
        """Renews the lease, also one that expired or that Redis lost, unless another process took it. Then Conflict:
        this process must not change the run any more."""
        if not self._generation:
            raise Conflict(f"the lease of run {self._run!r} is not held: acquire it first")
        words = [self._owner, self._generation, self._ttl_milliseconds, self.origin]
        is_held, *highest = await self._connection.script(_RENEW, self._keys, words)
        if not is_held:
            raise Conflict(
                f"run {self._run!r} was taken over: its generation is {highest[0]}, this process has "
                f"{self._generation}; give one of the two learners another run name"
            )

    async def release(self) -> None:
        """Gives the lease back, so that another process can take it at once; nothing where this one lost it."""
        if self._generation:
            await self._connection.script(_RELEASE, self._keys, [self._owner, self._generation, self.origin])
            self._generation = 0
