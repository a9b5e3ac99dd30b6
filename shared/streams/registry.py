"""The live rollout replicas: each repeats its announcement before it expires."""

from pydantic import ValidationError

from shared.protocol.replica import ReplicaInfo
from shared.streams.connection import Connection
from shared.streams.keys import RunKeys

_ANNOUNCE = """
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
"""

_WITHDRAW = """
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
"""

# also removes the names of replicas whose announcement has expired
_LIVE = """
local out = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local info = redis.call('GET', ARGV[1] .. name)
  if info then out[#out + 1] = info else redis.call('SREM', KEYS[1], name) end
end
return out
"""


class ReplicaRegistry:
    def __init__(self, connection: Connection, keys: RunKeys) -> None:
        self._connection = connection
        self._keys = keys

    async def announce(self, info: ReplicaInfo, ttl_seconds: float) -> None:
        """Lists this replica as alive; without another call it counts as dead after `ttl_seconds`."""
        keys = [self._keys.replicas, self._keys.replica(info.name)]
        await self._connection.script(_ANNOUNCE, keys, [info.name, info.model_dump_json(), int(ttl_seconds * 1000)])

    async def withdraw(self, name: str) -> None:
        await self._connection.script(_WITHDRAW, [self._keys.replicas, self._keys.replica(name)], [name])

    async def live(self) -> list[ReplicaInfo]:
        """The live replicas, by name."""
        texts = await self._connection.script(_LIVE, [self._keys.replicas], [self._keys.replica("")])
        found = [info for text in texts if (info := _info_or_none(text)) is not None]
        return sorted(found, key=lambda info: info.name)


def _info_or_none(text: bytes) -> ReplicaInfo | None:
    # a replica of another release may send fields that this process does not know: ignore it
    try:
        return ReplicaInfo.model_validate_json(text)
    except ValidationError:
        return None
