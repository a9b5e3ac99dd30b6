"""All that one run keeps in Redis."""

import uuid

from shared.streams.connection import Connection
from shared.streams.keys import RUNS, RunKeys
from shared.streams.lease import OwnerLease
from shared.streams.registry import ReplicaRegistry
from shared.streams.run_status import RunStatusKeys
from shared.streams.tasks import TaskQueue
from shared.streams.trees import DeadLetterQueue, TreeQueue

_MARK = """
local mark = redis.call('GET', KEYS[1])
if mark then return mark end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
"""


class RunStreams:
    """The queues, replicas, lease and status of one run; runs on the same server do not affect each other."""

    def __init__(
        self,
        connection: Connection,
        run: str,
        *,
        claim_after_seconds: float = 30.0,
        lease_seconds: float = 30.0,
        max_tasks: int = 100_000,
    ) -> None:
        self.run = run
        self._connection = connection
        self._keys = RunKeys(run)
        self.tasks = TaskQueue(connection, self._keys, claim_after_seconds, max_tasks)
        self.trees = TreeQueue(connection, self._keys)
        self.dead_letters = DeadLetterQueue(connection, self._keys)
        self.replicas = ReplicaRegistry(connection, self._keys)
        self.lease = OwnerLease(connection, self._keys, lease_seconds)
        self.status_keys = RunStatusKeys(connection, self._keys)

    async def incarnation(self) -> str:
        """Changes when the server restarted or lost this run's data: outstanding tasks may then be on no stream."""
        marker = await self._connection.script(_MARK, [self._keys.incarnation], [uuid.uuid4().hex])
        return f"{await self._connection.incarnation()}:{marker.decode(errors='replace')}"

    async def vet(self) -> str:
        """Why the server may lose entries; empty where it does not. InvalidInput for one that cannot be used."""
        return await self._connection.vet()

    async def close(self) -> None:
        """Closes the connection, which other runs in this process may share."""
        await self._connection.close()

    async def clear(self) -> None:
        """Deletes all tasks and trees when a run is done: replicas stop growing them."""
        await self._connection.command("UNLINK", self._keys.tasks, self._keys.trees)

    async def forget(self) -> None:
        """Deletes all keys of the run but lease and generation, so that generations keep rising."""
        keys = self._keys
        names = await self._connection.command("SMEMBERS", keys.replicas)
        await self._connection.command(
            "DEL",
            *(keys.tasks, keys.trees, keys.dead_letters, keys.handled_dead_letters, keys.replicas, keys.status),
            *(keys.stop, keys.learner, keys.incarnation),
            *(keys.replica(name.decode(errors="replace")) for name in names),
        )
        await self._connection.command("ZREM", RUNS, self.run)


async def list_runs(connection: Connection) -> list[str]:
    """The runs on the server, the latest to publish its status first."""
    return [name.decode(errors="replace") for name in await connection.command("ZREVRANGE", RUNS, 0, -1)]
