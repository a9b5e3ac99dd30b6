"""The deltas between published versions, and the shortest way from what a replica has to the newest."""

import asyncio
import mmap
import os
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.protocol.weights import Base, Encoding, Transfer
from shared.weights.delta import encode_piece, values_in
from shared.weights.framing import frame, full_transfer
from shared.weights.manifest import PlacedPiece, Snapshot, places_of, same_layout

_WORTH = 0.7
"""Up to this share of the bundle deltas pay: whoever takes them also copies the base."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A file of blocks that make the bundle `base` into that of `result`."""

    base: Base
    result: Snapshot
    path: Path
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A transfer as it is sent: `head`, then the files' bytes. `on_sent`, if any, is told how many were."""

    transfer: Transfer
    head: bytes
    files: tuple[tuple[Path, int], ...]
    """Each with its length in bytes."""
    on_sent: Callable[[int], None] | None = None

    @property
    def num_bytes(self) -> int:
        return len(self.head) + self.transfer.num_bytes


def send_full(snapshot: Snapshot) -> Outgoing:
    """All of a bundle, which must stay on the disk meanwhile."""
    transfer = full_transfer(snapshot.manifest)
    files = tuple((snapshot.directory / file.name, file.num_bytes) for file in snapshot.manifest.files)
    return Outgoing(transfer, frame(transfer), files)


class Lineage:
    """Keeps the deltas that lead to the newest snapshot while all together are much smaller than it. Blocks overwrite:
    several deltas, one after another, are one delta of the first base.

    The newest snapshot is its own anchor: the learner holds it whole, to take the next difference from.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._is_begun = False
        self._chain: list[Delta] = []
        self._in_use: Counter[Path] = Counter()
        self._gone: set[Path] = set()
        self._lock = threading.Lock()  # add runs in a thread, route in the event loop's

    def add(self, base: Snapshot, new: Snapshot) -> Delta:
        """Writes the delta from the newest snapshot so far to the next; both must stay on the disk meanwhile. Blocking:
        reads both."""
        self._begin()
        path = self._directory / f"{new.version}.delta"
        try:
            with path.open("wb") as file:
                for block in blocks_between(base, new):
                    file.write(block)
        except OSError:  # half a delta leads nowhere, and takes room that the next one may need
            path.unlink(missing_ok=True)
            raise
        delta = Delta(base.manifest.base, new, path, path.stat().st_size)
        with self._lock:
            chain = [*self._chain, delta] if self._is_followed_by(delta) else [delta]
            while sum(one.num_bytes for one in chain) >= _WORTH * new.manifest.num_bytes:
                chain = chain[1:]
            self._gone |= {one.path for one in (*self._chain, delta)} - {one.path for one in chain}
            self._chain = chain
        self._drop()
        return delta

    def _begin(self) -> None:
        """Clears the directory, once: of the deltas that an earlier process left nobody knows where they lead. Not
        sooner, as a process that still waits for its turn may have been given another's directory."""
        if not self._is_begun:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory.mkdir(parents=True)
            self._is_begun = True

    def _is_followed_by(self, delta: Delta) -> bool:
        """Whether the chain leads to the delta's base, and numbers pieces as it does."""
        if not self._chain:
            return False
        last = self._chain[-1].result
        files = last.manifest.files, delta.result.manifest.files
        return last.manifest.base == delta.base and len(files[0]) == len(files[1]) and all(map(same_layout, *files))

    @asynccontextmanager
    async def route(self, newest: Snapshot, have: Base | None) -> AsyncIterator[Outgoing]:
        """What to send to a replica that has `have`: a delta where it leads to `newest`, else all of it; `newest` must
        stay on the disk meanwhile."""
        with self._lock:
            chain = self._chain_from(newest, have)
            if not all(delta.path.exists() for delta in chain):  # somebody else has tidied up
                chain = ()
            self._in_use.update([delta.path for delta in chain])
        if not chain:
            yield send_full(newest)
            return
        num_bytes = sum(delta.num_bytes for delta in chain)
        transfer = Transfer(manifest=newest.manifest, encoding=Encoding.DELTA, base=chain[0].base, num_bytes=num_bytes)
        try:
            yield Outgoing(transfer, frame(transfer), tuple((delta.path, delta.num_bytes) for delta in chain))
        finally:
            with self._lock:
                self._in_use -= Counter(delta.path for delta in chain)  # of what nobody uses, no count is kept
            await asyncio.to_thread(self._drop)

    def length(self, newest: Snapshot, have: Base | None) -> int:
        """How many bytes the body of that has."""
        with self._lock:
            chain = self._chain_from(newest, have)
        return sum(delta.num_bytes for delta in chain) if chain else newest.manifest.num_bytes

    def _chain_from(self, newest: Snapshot, have: Base | None) -> Sequence[Delta]:
        """The deltas from `have` to `newest`; none where there are not all. The lock must be held."""
        chain = self._chain
        if have is None or not chain or chain[-1].result != newest:
            return ()
        return next((chain[first:] for first, delta in enumerate(chain) if delta.base == have), [])

    def _drop(self) -> None:
        """Deletes the files that are of no use, as soon as nobody sends them. Blocking: disk."""
        with self._lock:
            unused = self._gone - self._in_use.keys()
            self._gone -= unused
        for path in unused:
            path.unlink(missing_ok=True)


def blocks_between(base: Snapshot, new: Snapshot) -> Iterator[bytes]:
    """The blocks that make the bundle `base` into `new`. Blocking: reads both."""
    known = {file.name: file for file in base.manifest.files}
    before = {(place.file, place.begin): place.piece.xxh3 for place in places_of(base.manifest)}
    with ExitStack() as opened:
        maps = {
            (snapshot.directory, file.name): opened.enter_context(_mapped(snapshot.directory / file.name))
            for snapshot in (base, new)
            for file in snapshot.manifest.files
            if file.num_bytes
        }
        alike = {file.name for file in new.manifest.files if file.name in known and same_layout(known[file.name], file)}
        for number, place in enumerate(places_of(new.manifest)):
            is_alike = place.file in alike
            if not place.piece.num_bytes or (is_alike and before[place.file, place.begin] == place.piece.xxh3):
                continue
            base_file = maps[base.directory, place.file] if is_alike else None
            yield from _blocks_of(number, place, maps[new.directory, place.file], base_file)


def _blocks_of(number: int, place: PlacedPiece, new: mmap.mmap, base: mmap.mmap | None) -> Iterator[bytes]:
    where = place.begin, place.piece.num_bytes, place.piece.width
    return encode_piece(number, values_in(new, *where), None if base is None else values_in(base, *where))


def _mapped(path: Path) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)
