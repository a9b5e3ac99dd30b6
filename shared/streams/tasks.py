"""The queue of tasks: claims need a heartbeat; a claim ends with a tree or a dead letter, in one transaction."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.errors import Overloaded
from shared.protocol.task import DeadLetter, Task
from shared.protocol.tree import ScoredTree
from shared.streams.connection import Connection
from shared.streams.group import Entry, StreamGroup, parse_entries
from shared.streams.keys import ROLLOUT_GROUP, RunKeys
from shared.streams.reading import Unreadable, read

_PUT = """
local num_new = (#ARGV - 1) / 3
if redis.call('XLEN', KEYS[1]) + num_new > tonumber(ARGV[1]) then return -1 end
for i = 2, #ARGV, 3 do
  redis.call('XADD', KEYS[1], '*', 'id', ARGV[i], 'attempt', ARGV[i + 1], 'task', ARGV[i + 2])
end
return num_new
"""

# entries without a heartbeat: [entry, deliveries before this one]
_TAKE_ABANDONED = """
local out = {}
for _, item in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', ARGV[4])) do
  local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], item[1])[1]
  if entry then out[#out + 1] = {entry, item[4]} end
end
return out
"""

# only claims that are still this consumer's: another may have taken them since
_TOUCH = """
local kept = {}
for i = 4, #ARGV, 2 do
  local id = ARGV[i]
  if #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2]) == 1 then
    local words = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'IDLE', ARGV[3]}
    if ARGV[i + 1] ~= '' then
      words[#words + 1] = 'RETRYCOUNT'
      words[#words + 1] = ARGV[i + 1]
    end
    words[#words + 1] = 'JUSTID'
    redis.call(unpack(words))
    kept[#kept + 1] = id
  end
end
return kept
"""

# ends the claim and appends its result, both or neither; 0 when the claim has already ended
_END = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], '*', 'id', ARGV[3], 'attempt', ARGV[4], ARGV[5], ARGV[6])
return 1
"""

# a released entry counts as abandoned long ago
_RELEASED_IDLE_MILLISECONDS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Claim:
    """A task that this consumer grows, as long as it keeps the claim alive. `deliveries` counts this one.

    It leaves a task that it cannot read alone: the claim expires, and a replica of another release may read it.
    """

    entry_id: str
    task: Task | Unreadable
    deliveries: int
    consumer: str


class TaskQueue(StreamGroup):
    """The run's tasks: the learner puts them, the rollout replicas take them.

    A claim without a heartbeat for `claim_after_seconds` counts as abandoned. The stream holds `max_tasks` at most.
    """

    def __init__(self, connection: Connection, keys: RunKeys, claim_after_seconds: float, max_tasks: int) -> None:
        if claim_after_seconds <= 0 or max_tasks < 1:
            raise ValueError(f"both are positive: {claim_after_seconds=} {max_tasks=}")
        super().__init__(connection, keys.tasks, ROLLOUT_GROUP)
        self._keys = keys
        self._abandoned_milliseconds = max(1, int(claim_after_seconds * 1000))
        self._max_tasks = max_tasks

    async def put(self, tasks: Iterable[Task]) -> None:
        """Appends the tasks, all or none. Overloaded when the stream would exceed its bound."""
        words: list[str | int] = []
        for task in tasks:
            words += [task.id, task.attempt, task.model_dump_json()]
        if not words:
            return
        reply = await self.script(_PUT, [self.stream], [self._max_tasks, *words])
        if reply < 0:
            raise Overloaded(f"the stream of tasks holds at most {self._max_tasks}; wait until some have been grown")

    async def take(self, consumer: str, count: int, wait_seconds: float) -> list[Claim]:
        """Up to `count` tasks, abandoned ones first. Waits at most `wait_seconds` for the first."""
        if count < 1:
            return []
        deadline = time.monotonic() + wait_seconds
        while True:
            claims = await self._take_abandoned(consumer, count)
            left_seconds = deadline - time.monotonic()
            if len(claims) < count:
                wait = 0.0 if claims else left_seconds
                entries = await self.read_new(consumer, count - len(claims), wait)
                claims += [_claim(entry, 1, consumer) for entry in entries]
            if claims or left_seconds <= 0:
                return claims

    async def keep_alive(self, consumer: str, entry_ids: Sequence[str]) -> frozenset[str]:
        """The heartbeat of these claims; returns those that are still this consumer's. Stop growing the others."""
        return await self._touch(consumer, [(entry_id, "") for entry_id in entry_ids], 0)

    async def release(self, claims: Sequence[Claim], *, failed: bool = False) -> None:
        """Gives claims back: another consumer can take them at once. The delivery counts only if it `failed`."""
        for consumer in {claim.consumer for claim in claims}:
            words = [
                (claim.entry_id, str(claim.deliveries - (not failed))) for claim in claims if claim.consumer == consumer
            ]
            await self._touch(consumer, words, _RELEASED_IDLE_MILLISECONDS)

    async def finish(self, claim: Claim, tree: ScoredTree) -> bool:
        """Ends the claim and appends its tree, in one transaction; safe to repeat. False, and nothing is appended, when
        another consumer has ended the task or Redis has lost it."""
        return await self._end(claim, self._keys.trees, "tree", tree.pack())

    async def give_up(self, claim: Claim, reason: str, replica: str) -> bool:
        """Ends the claim with a dead letter that says why, in one transaction; False as with `finish`."""
        if isinstance(claim.task, Unreadable):
            text = reason  # the learner finds an unreadable dead letter, and counts the task as failed
        else:
            dead_letter = DeadLetter(task=claim.task, reason=reason, deliveries=claim.deliveries, replica=replica)
            text = dead_letter.model_dump_json()
        return await self._end(claim, self._keys.dead_letters, "letter", text.encode())

    async def _end(self, claim: Claim, stream: str, field: str, value: bytes) -> bool:
        task = claim.task
        words = [self.group, claim.entry_id, task.id, task.attempt, field, value]
        return bool(await self.script(_END, [self.stream, stream], words))

    async def _touch(self, consumer: str, words: list[tuple[str, str]], idle_milliseconds: int) -> frozenset[str]:
        if not words:
            return frozenset()
        flat = [word for pair in words for word in pair]
        kept = await self.script(_TOUCH, [self.stream], [self.group, consumer, idle_milliseconds, *flat])
        return frozenset(entry_id.decode() for entry_id in kept)

    async def _take_abandoned(self, consumer: str, count: int) -> list[Claim]:
        arguments = [self.group, consumer, self._abandoned_milliseconds, count]
        reply = await self.script(_TAKE_ABANDONED, [self.stream], arguments)
        return [_claim(entry, deliveries + 1, consumer) for raw, deliveries in reply for entry in parse_entries([raw])]


def _claim(entry: Entry, deliveries: int, consumer: str) -> Claim:
    return Claim(entry.id, read(entry, b"task", Task.model_validate_json), deliveries, consumer)
