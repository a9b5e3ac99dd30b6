"""One consumer group on one stream: the part that every queue is made of."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from shared.streams.connection import Connection, Refused

# a blocking read is cut into pieces of this length, so that the reader looks around in between
_BLOCK_SECONDS = 1.0
_PAGE = 256
# of entries whose bodies pass through the server's script
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
    """One entry of a stream, as it lies there."""

    id: str
    fields: dict[bytes, bytes]


class Depth(NamedTuple):
    """How many entries nobody has taken yet, and how many were taken and are not acknowledged."""

    queued: int
    pending: int


class StreamGroup:
    """A stream and the one group that reads it. The group starts at the stream's beginning, and is made again when
    the server has lost it."""

    def __init__(self, connection: Connection, stream: str, group: str) -> None:
        self.stream = stream
        self.group = group
        self._connection = connection

    async def script(self, text: str, keys: list[str], arguments: list[Any]) -> Any:
        """A script over this stream's group, which is made first where it is missing."""
        try:
            return await self._connection.script(text, keys, arguments)
        except Refused as error:
            if not _is_missing_group(error):
                raise
        await self.create()
        return await self._connection.script(text, keys, arguments)

    async def create(self) -> None:
        """Makes the stream and the group where they are missing."""
        try:
            await self._connection.command("XGROUP", "CREATE", self.stream, self.group, "0", "MKSTREAM")
        except Refused as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read_new(self, consumer: str, count: int, wait_seconds: float) -> list[Entry]:
        """Up to `count` entries that nobody has taken, waiting for the first one at most `wait_seconds`, and never
        longer than about a second: callers that may wait longer ask again."""
        wait_seconds = max(0.0, min(wait_seconds, _BLOCK_SECONDS))
        block = ("BLOCK", max(1, int(wait_seconds * 1000))) if wait_seconds > 0 else ()
        words = ("XREADGROUP", "GROUP", self.group, consumer, "COUNT", count, *block, "STREAMS", self.stream, ">")
        try:
            reply = await self._connection.command(*words, waits_seconds=wait_seconds)
        except Refused as error:
            if not _is_missing_group(error):
                raise
            await self.create()
            reply = await self._connection.command(*words, waits_seconds=wait_seconds)
        return parse_entries(reply[0][1]) if reply else []

    async def wait_new(self, consumer: str, count: int, wait_seconds: float) -> list[Entry]:
        """As `read_new`, however long the wait."""
        deadline = time.monotonic() + wait_seconds
        while True:
            left_seconds = deadline - time.monotonic()
            entries = await self.read_new(consumer, count, left_seconds)
            if entries or left_seconds <= 0:
                return entries

    async def pending(self) -> list[str]:
        """The ids of all entries that were taken, by whomever, and not acknowledged, in stream order."""
        found: list[str] = []
        start = "-"
        while page := await self._pending_page(start):
            found += page
            start = f"({page[-1]}"
        return found

    async def claim(self, consumer: str, entry_ids: Sequence[str]) -> list[Entry]:
        """These pending entries, now taken by `consumer`; without those that are gone."""
        if not entry_ids:
            return []
        words = ("XCLAIM", self.stream, self.group, consumer, 0, *entry_ids)
        return parse_entries(await self._of_group(words))

    async def acknowledge(self, entry_ids: list[str]) -> None:
        """Done with these: they leave the group and the stream."""
        if entry_ids:
            await self.script(_ACKNOWLEDGE, [self.stream], [self.group, *entry_ids])

    async def ids(self) -> set[tuple[str, int]]:
        """The (id, attempt) of every entry still on the stream, without fetching what it carries. The server reads all
        of it: not for every turn of a loop."""
        found: set[tuple[str, int]] = set()
        start = "-"
        while True:
            page = await self._connection.script(_IDS, [self.stream], [start, _IDS_PAGE])
            if not page:
                return found
            found.update((name.decode(errors="replace"), attempt_of(attempt)) for _, name, attempt in page)
            start = f"({page[-1][0].decode()}"

    async def depth(self) -> Depth:
        """The stream's length, by state."""
        total, pending = await self.script(
            "return {redis.call('XLEN', KEYS[1]), redis.call('XPENDING', KEYS[1], ARGV[1])[1]}",
            [self.stream],
            [self.group],
        )
        return Depth(max(0, total - pending), pending)

    async def _pending_page(self, start: str) -> list[str]:
        words = ("XPENDING", self.stream, self.group, start, "+", _PAGE)
        return [item[0].decode() for item in await self._of_group(words)]

    async def _of_group(self, words: tuple[object, ...]) -> list[Any]:
        """The reply of a command; nothing where Redis has lost the group, which is made anew."""
        try:
            reply: list[Any] = await self._connection.command(*words)
        except Refused as error:
            if not _is_missing_group(error):
                raise
            await self.create()
            return []
        return reply


def parse_entries(reply: list[Any]) -> list[Entry]:
    """The entries of a raw reply; those that were deleted meanwhile are left out."""
    entries = []
    for item in reply:
        if item and item[1]:
            identifier, flat = item
            entries.append(Entry(identifier.decode(), dict(zip(flat[::2], flat[1::2], strict=True))))
    return entries


def attempt_of(text: bytes) -> int:
    """The attempt that an entry says; -1 when it says none."""
    return int(text) if text.isdigit() and len(text) < 10 else -1


def _is_missing_group(error: Refused) -> bool:
    return "NOGROUP" in str(error)
