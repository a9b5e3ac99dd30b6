"""One consumer group on one stream: what every queue is made of."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from shared.errors import Unavailable
from shared.streams.connection import CommandRefused, Connection

# a blocking read is split into reads of this length, so that callers can act in between
_BLOCK_SECONDS = 1.0
_PAGE = 256
# fewer at once where the script reads whole entries
_IDS_PAGE = 16

_IDS = """
local out = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  out[#out + 1] = {entry[1], fields['id'] or '', fields['attempt'] or ''}
end
return out
"""

_ACKNOWLEDGE = """
for i = 2, #ARGV do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  redis.call('XDEL', KEYS[1], ARGV[i])
end
return #ARGV - 1
"""


class Entry(NamedTuple):
    id: str
    fields: dict[bytes, bytes]


class Depth(NamedTuple):
    """Entries that wait to be taken, and entries that were taken and not acknowledged."""

    queued: int
    pending: int


class StreamGroup:
    """A stream and the one group that reads it, from its beginning. A group that the server lost is created again."""

    def __init__(self, connection: Connection, stream: str, group: str) -> None:
        self.stream = stream
        self.group = group
        self._connection = connection

    async def script(self, text: str, keys: list[str], arguments: list[Any]) -> Any:
        """Runs a script on this stream's group, creating the group where it is missing."""
        return await self._with_group(lambda: self._connection.script(text, keys, arguments))

    async def create(self) -> None:
        """Creates the stream and the group where they are missing."""
        try:
            await self._connection.command("XGROUP", "CREATE", self.stream, self.group, "0", "MKSTREAM")
        except CommandRefused as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read_new(self, consumer: str, count: int, wait_seconds: float) -> list[Entry]:
        """Up to `count` entries that nobody has taken. Waits for the first at most `wait_seconds`, and about a second:
        to wait longer, call again."""
        wait_seconds = max(0.0, min(wait_seconds, _BLOCK_SECONDS))
        block = ("BLOCK", max(1, int(wait_seconds * 1000))) if wait_seconds > 0 else ()
        words = ("XREADGROUP", "GROUP", self.group, consumer, "COUNT", count, *block, "STREAMS", self.stream, ">")
        reply = await self._with_group(lambda: self._connection.command(*words, waits_seconds=wait_seconds))
        return parse_entries(reply[0][1]) if reply else []

    async def wait_new(self, consumer: str, count: int, wait_seconds: float) -> list[Entry]:
        """As `read_new`, for any `wait_seconds`."""
        deadline = time.monotonic() + wait_seconds
        while True:
            left_seconds = deadline - time.monotonic()
            entries = await self.read_new(consumer, count, left_seconds)
            if entries or left_seconds <= 0:
                return entries

    async def pending(self) -> list[str]:
        """The ids of all entries that were taken, by any consumer, and not acknowledged, in stream order."""
        found: list[str] = []
        start = "-"
        while page := await self._pending_page(start):
            found += page
            start = f"({page[-1]}"
        return found

    async def claim(self, consumer: str, entry_ids: Sequence[str]) -> list[Entry]:
        """Moves pending entries to `consumer` and returns those that still exist."""
        if not entry_ids:
            return []
        words = ("XCLAIM", self.stream, self.group, consumer, 0, *entry_ids)
        return parse_entries(await self._with_group(lambda: self._connection.command(*words)))

    async def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """Removes entries from the group and the stream: their effect is in a checkpoint, or they have none."""
        if entry_ids:
            await self.script(_ACKNOWLEDGE, [self.stream], [self.group, *entry_ids])

    async def ids(self) -> set[tuple[str, int]]:
        """The (id, attempt) of every entry on the stream, taken or not, without its body. The server reads the whole
        stream: call it seldom."""
        found: set[tuple[str, int]] = set()
        start = "-"
        while True:
            page = await self._connection.script(_IDS, [self.stream], [start, _IDS_PAGE])
            if not page:
                return found
            found.update((name.decode(errors="replace"), parse_attempt(attempt)) for _, name, attempt in page)
            start = f"({page[-1][0].decode()}"

    async def depth(self) -> Depth:
        """The length of the stream, by state."""
        total, pending = await self.script(
            "return {redis.call('XLEN', KEYS[1]), redis.call('XPENDING', KEYS[1], ARGV[1])[1]}",
            [self.stream],
            [self.group],
        )
        return Depth(max(0, total - pending), pending)

    async def _pending_page(self, start: str) -> list[str]:
        words = ("XPENDING", self.stream, self.group, start, "+", _PAGE)
        return [item[0].decode() for item in await self._with_group(lambda: self._connection.command(*words))]

    async def _with_group(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """The reply to a command on the group, which is created where Redis has none, or has lost it. Unavailable when
        it is gone again at once."""
        try:
            return await work()
        except CommandRefused as error:
            if not _is_missing_group(error):
                raise
        await self.create()
        try:
            return await work()
        except CommandRefused as error:
            if not _is_missing_group(error):
                raise
            raise Unavailable(
                f"the stream {self.stream} is deleted again and again: does something else delete keys in this Redis, "
                "or is its maxmemory-policy not noeviction?"
            ) from error


def parse_entries(reply: list[Any]) -> list[Entry]:
    """The entries of a raw reply, without those deleted meanwhile."""
    entries = []
    for item in reply:
        if item and item[1]:
            identifier, flat = item
            entries.append(Entry(identifier.decode(), dict(zip(flat[::2], flat[1::2], strict=True))))
    return entries


def parse_attempt(text: bytes) -> int:
    """The attempt in an entry; -1 where there is none."""
    return int(text) if text.isdigit() and len(text) < 10 else -1


def _is_missing_group(error: CommandRefused) -> bool:
    return "NOGROUP" in str(error)
