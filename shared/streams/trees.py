"""The queues to the learner: grown trees and dead letters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.protocol.task import DeadLetter
from shared.protocol.tree import ScoredTree
from shared.streams.connection import Connection
from shared.streams.group import Depth, Entry, StreamGroup
from shared.streams.keys import LEARNER_GROUP, RunKeys
from shared.streams.reading import Unreadable, read

Item = TypeVar("Item")

_MAX_HANDLED = 1000

_ACKNOWLEDGE_DEAD_LETTERS = """
for i = 3, #ARGV do
  local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  redis.call('XDEL', KEYS[1], ARGV[i])
  if entry then
    for k = 1, #entry[2], 2 do
      if entry[2][k] == 'letter' then redis.call('LPUSH', KEYS[2], entry[2][k + 1]) end
    end
  end
end
redis.call('LTRIM', KEYS[2], 0, ARGV[2] - 1)
"""


@dataclass(frozen=True, slots=True)
class Delivery(Generic[Item]):
    """An item that stays pending until it is acknowledged."""

    entry_id: str
    item: Item


class ReturnQueue(Generic[Item]):
    """A queue that replicas append to and the learner takes from. Items stay pending until their effect is on disk."""

    def __init__(self, group: StreamGroup, field: bytes, reader: Callable[[bytes], Item]) -> None:
        self._group = group
        self._field = field
        self._reader = reader

    async def take(self, consumer: str, count: int, wait_seconds: float) -> list[Delivery[Item | Unreadable]]:
        """Up to `count` new items. Waits at most `wait_seconds` for the first."""
        return self._read(await self._group.wait_new(consumer, count, wait_seconds))

    async def pending(self) -> list[str]:
        """The entry ids of all items that were delivered, to any consumer, and not acknowledged, in stream order."""
        return await self._group.pending()

    async def redeliver(self, consumer: str, entry_ids: Sequence[str]) -> list[Delivery[Item | Unreadable]]:
        """Pending items again, those that still exist."""
        return self._read(await self._group.claim(consumer, entry_ids))

    async def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """Removes items from the stream: their effect is in a checkpoint, or they have none."""
        await self._group.acknowledge(list(entry_ids))

    async def ids(self) -> set[tuple[str, int]]:
        """The (id, attempt) of every item on the stream, delivered or not."""
        return await self._group.ids()

    async def depth(self) -> Depth:
        """Items that wait, and items that were delivered and not acknowledged."""
        return await self._group.depth()

    def _read(self, entries: list[Entry]) -> list[Delivery[Item | Unreadable]]:
        return [Delivery(entry.id, read(entry, self._field, self._reader)) for entry in entries]


class TreeQueue(ReturnQueue[ScoredTree]):
    """The run's grown trees, appended by `TaskQueue.finish`."""

    def __init__(self, connection: Connection, keys: RunKeys) -> None:
        super().__init__(StreamGroup(connection, keys.trees, LEARNER_GROUP), b"tree", ScoredTree.unpack)


class DeadLetterQueue(ReturnQueue[DeadLetter]):
    """The run's tasks that were given up. The newest that the learner counted stay in a list, for people to read."""

    def __init__(self, connection: Connection, keys: RunKeys) -> None:
        group = StreamGroup(connection, keys.dead_letters, LEARNER_GROUP)
        super().__init__(group, b"letter", DeadLetter.model_validate_json)
        self._keys = keys

    async def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """Moves dead letters that the learner has counted to the list."""
        if entry_ids:
            keys = [self._keys.dead_letters, self._keys.handled_dead_letters]
            await self._group.script(_ACKNOWLEDGE_DEAD_LETTERS, keys, [self._group.group, _MAX_HANDLED, *entry_ids])
