"""The queues to the learner: grown trees and dead letters."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import ValidationError

from shared.errors import InvalidInput
from shared.protocol.task import DeadLetter
from shared.protocol.tree import ScoredTree
from shared.streams.connection import Connection
from shared.streams.group import Entry, StreamGroup
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


class ReturnQueue(StreamGroup, Generic[Item]):
    """A queue that replicas append to and the learner takes from. Items stay pending until their effect is on disk."""

    def __init__(self, connection: Connection, stream: str, field: bytes, reader: Callable[[bytes], Item]) -> None:
        super().__init__(connection, stream, LEARNER_GROUP)
        self._field = field
        self._reader = reader

    async def take(self, consumer: str, count: int, wait_seconds: float) -> list[Delivery[Item | Unreadable]]:
        """Up to `count` new items. Waits at most `wait_seconds` for the first."""
        return self._read(await self.wait_new(consumer, count, wait_seconds))

    async def redeliver(self, consumer: str, entry_ids: Sequence[str]) -> list[Delivery[Item | Unreadable]]:
        """Pending items again, those that still exist."""
        return self._read(await self.claim(consumer, entry_ids))

    def _read(self, entries: list[Entry]) -> list[Delivery[Item | Unreadable]]:
        return [Delivery(entry.id, read(entry, self._field, self._reader)) for entry in entries]


class TreeQueue(ReturnQueue[ScoredTree]):
    """The run's grown trees, appended by `TaskQueue.finish`."""

    def __init__(self, connection: Connection, keys: RunKeys) -> None:
        super().__init__(connection, keys.trees, b"tree", ScoredTree.unpack)


class DeadLetterQueue(ReturnQueue[DeadLetter]):
    """The run's tasks that were given up. The newest that the learner counted stay in a list, for people to read."""

    def __init__(self, connection: Connection, keys: RunKeys) -> None:
        super().__init__(connection, keys.dead_letters, b"letter", _read_letter)
        self._handled = keys.handled_dead_letters

    async def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """Moves dead letters that the learner has counted to the list."""
        if entry_ids:
            arguments = [self.group, _MAX_HANDLED, *entry_ids]
            await self.script(_ACKNOWLEDGE_DEAD_LETTERS, [self.stream, self._handled], arguments)

    async def newest_reasons(self, count: int) -> list[str]:
        """Why tasks were given up: of up to `count` that the learner has counted, the newest first; what cannot be read
        is left out."""
        found = []
        for text in await self._connection.command("LRANGE", self._handled, 0, count - 1):
            with contextlib.suppress(ValidationError):
                try:
                    found.append(_read_letter(text).reason)
                except InvalidInput as of_unreadable:
                    found.append(str(of_unreadable))
        return found


def _read_letter(text: bytes) -> DeadLetter:
    """InvalidInput, which is the reason, for the letter of a task that no replica could read: it holds nothing else."""
    if not text.startswith(b"{"):
        raise InvalidInput(text.decode(errors="replace"))
    return DeadLetter.model_validate_json(text)
