"""The snapshots of a policy on disk: received whole or not at all, kept as long as they are needed."""

import asyncio
import errno
import shutil
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from shared.errors import Conflict, InvalidInput, TooLarge, Unavailable, shorten
from shared.files import atomic_write, sync_directory
from shared.protocol.weights import Base, Manifest, Transfer
from shared.tree.draw import WeightVersion
from shared.weights.bodies import Body, DeltaBody, FullBody
from shared.weights.framing import PAUSES_SECONDS, paced
from shared.weights.incoming import Incoming, no_room
from shared.weights.manifest import MANIFEST_NAME, Snapshot, check_contents, check_manifest, read_manifest

_STAGING_PREFIX = ".staging-"
_FED_BYTES = 1 << 20


class SnapshotStore:
    """The snapshots under `root`, one directory per version: the newest `keep` and those in use. An arriving one
    counts among the `keep`: the oldest is deleted before its first byte is stored.

    A root belongs to one process; of an earlier process, complete snapshots are kept if their checksums are still
    right, and the rest is deleted. With `run`, bundles of another run are refused.
    """

    def __init__(
        self, root: Path, keep: int, *, run: str | None = None, pauses_seconds: float = PAUSES_SECONDS
    ) -> None:
        if keep < 1:
            raise ValueError(f"a store keeps at least the newest snapshot, not {keep}")
        self._root = root
        self._keep = keep
        self._run = run
        self._pauses_seconds = pauses_seconds
        self._pins: Counter[WeightVersion] = Counter()
        self._aside: list[Path] = []
        self._origins: dict[str, int] = {}  # the later an origin arrived, the newer are its versions
        self._lock = threading.Lock()  # adopt runs in one thread, pin in the event loop's, prune in a third
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(f"{_STAGING_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        found = list(_find_snapshots(root))
        for directory in (directory for directory, snapshot in found if snapshot is None):
            self._put_aside(directory)
        complete = sorted((one for _, one in found if one is not None), key=lambda snapshot: snapshot.version)
        self._snapshots = {snapshot.version: snapshot for snapshot in complete}
        for version in self._snapshots:
            self._note_origin(version)

    async def receive(
        self, stream: AsyncIterator[bytes], max_bytes: int, expected: WeightVersion | None = None
    ) -> Snapshot:
        """Stores a framed transfer as it streams in; errors as those of `incoming`, and Unavailable when it comes too
        slowly. Of a version that is already here, only the head is read."""
        async with self.incoming(max_bytes, expected) as incoming:
            waiting: list[bytes] = []
            async for chunk in paced(stream, self._pauses_seconds):
                waiting.append(chunk)
                if sum(map(len, waiting)) >= _FED_BYTES or incoming.transfer is None:
                    # hashing and writing release the interpreter, so the event loop goes on
                    if not await asyncio.to_thread(incoming.feed, memoryview(b"".join(waiting))):
                        break
                    waiting.clear()
            else:
                await asyncio.to_thread(incoming.feed, memoryview(b"".join(waiting)))
            return await self.complete(incoming)

    @asynccontextmanager
    async def incoming(self, max_bytes: int, expected: WeightVersion | None = None) -> AsyncIterator[Incoming]:
        """Where a transfer is fed, until `complete` makes it a snapshot; without that, nothing is left behind.

        Feeding raises InvalidInput when it is not as its manifest says, TooLarge when its files exceed `max_bytes` or
        can never fit here, Conflict when it is not of the version `expected`, when other content has the same version
        or a delta's base is not here.
        """
        try:
            area = tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=self._root)
        except OSError as error:
            raise no_room(self._root, error) from error
        pinned: list[WeightVersion] = []
        # mkdtemp makes its directory private; a snapshot may be read by others
        accept = partial(self._accept, max_bytes, expected, Path(area) / "bundle", pinned)
        incoming = Incoming(accept, Path(area) / "bundle")
        try:
            yield incoming
        finally:
            with self._lock:
                self._pins -= Counter(pinned)
            await asyncio.to_thread(self._discard, incoming, Path(area))

    async def complete(self, incoming: Incoming) -> Snapshot:
        """The snapshot of what has come; errors as those of `incoming`."""
        return await asyncio.to_thread(self._complete, incoming)

    def _complete(self, incoming: Incoming) -> Snapshot:
        if incoming.transfer is not None and not incoming.is_wanted:
            return self.get(incoming.transfer.manifest.version)
        manifest = incoming.finish().manifest
        try:
            atomic_write(incoming.directory / MANIFEST_NAME, manifest.model_dump_json(), durable=True)
            snapshot = self._publish(incoming.directory, manifest)
            self._settle()
        except OSError as error:
            raise no_room(self._root, error) from error
        return snapshot

    def _accept(
        self,
        max_bytes: int,
        expected: WeightVersion | None,
        directory: Path,
        pinned: list[WeightVersion],
        transfer: Transfer,
    ) -> Body | None:
        """How a transfer is taken in; None if its bundle is here."""
        manifest = transfer.manifest
        if expected is not None and manifest.version != expected:
            # before it is stored: under its own version it would stand in the way of the true one
            raise Conflict(f"version {expected} is announced, the manifest says {manifest.version}")
        self._check(manifest)
        if self._known(manifest) is not None:
            return None
        base = None if transfer.base is None else self._base(transfer.base, pinned)
        self._make_room(manifest, max_bytes)
        directory.mkdir()
        return FullBody(manifest, directory) if base is None else DeltaBody(manifest, base, directory)

    def _base(self, wanted: Base, pinned: list[WeightVersion]) -> Snapshot:
        with self._lock:
            known = self._snapshots.get(wanted.version)
            if known is None or known.manifest.content_hash != wanted.content_hash:
                here = ", ".join(f"{one.version}:{one.manifest.content_hash[:12]}" for one in self._snapshots.values())
                raise Conflict(
                    f"this delta changes {wanted.version}:{wanted.content_hash[:12]}, which is not here (here: "
                    f"{here or 'nothing'}): send all of the bundle, or what differs from one that is here"
                )
            self._pins[wanted.version] += 1
            pinned.append(wanted.version)
        return known

    def _discard(self, incoming: Incoming, area: Path) -> None:
        incoming.close()
        shutil.rmtree(area, ignore_errors=True)
        self._prune(self._keep)  # of the base, too, if nobody else uses it

    def adopt(self, directory: Path, manifest: Manifest) -> Snapshot:
        """Takes over a directory that this process wrote, with its manifest: moves it, or copies it across disks.
        Blocking: disk."""
        self._check(manifest)
        known = self._known(manifest)
        if known is not None:
            return known
        _check_lengths(directory, manifest)
        snapshot = self._move_in(directory, manifest)
        self._settle()
        return snapshot

    async def discard(self, snapshot: Snapshot) -> None:
        """Deletes a snapshot that is of no use, unless it is in use."""
        await asyncio.to_thread(self._discard_snapshot, snapshot.version)

    def _discard_snapshot(self, version: WeightVersion) -> None:
        with self._lock:
            if not self._pins[version] and (found := self._snapshots.pop(version, None)) is not None:
                self._put_aside(found.directory)
        self._prune(self._keep)

    def latest(self) -> Snapshot | None:
        """The newest snapshot, None before the first."""
        with self._lock:
            return self._snapshots[max(self._snapshots, key=self._age)] if self._snapshots else None

    def get(self, version: WeightVersion) -> Snapshot:
        """The snapshot of one version; InvalidInput when it is not here."""
        if version not in self._snapshots:
            kept = ", ".join(str(version) for version in sorted(self._snapshots)) or "none"
            raise InvalidInput(f"no snapshot of version {version} here; kept are: {kept}")
        return self._snapshots[version]

    @asynccontextmanager
    async def pin(self, snapshot: Snapshot) -> AsyncIterator[Snapshot]:
        """Keeps a snapshot while the block runs, however many newer ones arrive; InvalidInput when it is gone."""
        snapshot = self._take(snapshot.version)
        try:
            yield snapshot
        finally:
            self._let_go(snapshot.version)
            await asyncio.to_thread(self._prune, self._keep)

    def _take(self, version: WeightVersion) -> Snapshot:
        with self._lock:
            snapshot = self.get(version)
            self._pins[version] += 1
        return snapshot

    def _let_go(self, version: WeightVersion) -> None:
        with self._lock:
            self._pins -= Counter((version,))  # of what nobody uses, no count is kept

    def _check(self, manifest: Manifest) -> None:
        check_manifest(manifest)
        if self._run is not None and manifest.run != self._run:
            raise InvalidInput(f"these weights belong to run {shorten(manifest.run)!r}, this store to {self._run!r}")

    def _make_room(self, manifest: Manifest, max_bytes: int) -> None:
        """Blocking: disk."""
        num_bytes = manifest.num_bytes
        if num_bytes > max_bytes:
            raise TooLarge(f"the bundle has {num_bytes} bytes, over the {max_bytes} that are taken here")
        disk = shutil.disk_usage(self._root)
        if num_bytes * (self._keep + 1) > disk.total:
            raise TooLarge(
                f"the bundle has {num_bytes} bytes, and {self._root} with its {disk.total} bytes in all cannot hold "
                f"{self._keep} of them beside the next one; make it larger, or keep snapshots elsewhere"
            )
        self._prune(self._keep - 1)
        free_bytes = shutil.disk_usage(self._root).free
        if num_bytes > free_bytes:
            raise Unavailable(f"the bundle has {num_bytes} bytes, {self._root} only {free_bytes} free; make room there")

    def _known(self, manifest: Manifest) -> Snapshot | None:
        known = self._snapshots.get(manifest.version)
        if known is not None and known.manifest.content_hash != manifest.content_hash:
            raise Conflict(
                f"version {manifest.version} is already here with content {known.manifest.content_hash[:12]}, "
                f"not {manifest.content_hash[:12]}; a version never changes, give the new weights the next number"
            )
        return known

    def _move_in(self, directory: Path, manifest: Manifest) -> Snapshot:
        try:
            return self._publish(directory, manifest)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        with tempfile.TemporaryDirectory(prefix=_STAGING_PREFIX, dir=self._root) as area:
            return self._publish(Path(shutil.copytree(directory, Path(area) / "bundle")), manifest)

    def _publish(self, staged: Path, manifest: Manifest) -> Snapshot:
        """Renames a complete directory to the snapshot of its version."""
        with self._lock:
            # another stream of the same version may have ended first
            if (known := self._known(manifest)) is not None:
                return known
            directory = self._root / str(manifest.version)
            if directory.exists():  # not a known snapshot, hence damaged
                self._put_aside(directory)
            staged.rename(directory)
            snapshot = self._snapshots[manifest.version] = Snapshot(manifest, directory)
            self._note_origin(manifest.version)
        return snapshot

    def _settle(self) -> None:
        sync_directory(self._root)
        self._prune(self._keep)

    def _prune(self, keep: int) -> None:
        """Deletes all but the newest `keep`, the last to arrive, and those in use. Blocking: disk."""
        with self._lock:
            last = next(reversed(self._snapshots), None) if keep else None
            for version in sorted(self._snapshots, key=self._age, reverse=True)[keep:]:
                if not self._pins[version] and version != last:
                    self._put_aside(self._snapshots.pop(version).directory)
            gone, self._aside = self._aside, []
        for directory in gone:
            shutil.rmtree(directory, ignore_errors=True)

    def _note_origin(self, version: WeightVersion) -> None:
        self._origins.setdefault(version.origin, len(self._origins))

    def _age(self, version: WeightVersion) -> tuple[int, WeightVersion]:
        """Greater for newer ones."""
        return self._origins[version.origin], version

    def _put_aside(self, directory: Path) -> None:
        """Moves a directory away to be deleted, so that a crash leaves no half snapshot under its name."""
        with suppress(FileNotFoundError):  # somebody else did
            self._aside.append(directory.rename(self._root / f"{_STAGING_PREFIX}{uuid.uuid4().hex}"))


def _find_snapshots(root: Path) -> Iterator[tuple[Path, Snapshot | None]]:
    """Where an earlier process left versions, and those that are complete; reads every byte of them, as anything may
    have happened since."""
    for directory in list(root.iterdir()):
        try:
            version = WeightVersion.parse(directory.name)
        except ValueError:
            continue
        snapshot = None
        with suppress(ValueError, InvalidInput, OSError):
            manifest = read_manifest(directory)
            check_manifest(manifest)
            check_contents(directory, manifest)
            snapshot = Snapshot(manifest, directory) if manifest.version == version else None
        yield directory, snapshot


def _check_lengths(directory: Path, manifest: Manifest) -> None:
    for file in manifest.files:
        path = directory / file.name
        num_bytes = path.stat().st_size if path.is_file() else -1
        if num_bytes != file.num_bytes:
            raise InvalidInput(f"{path} has {num_bytes} bytes (-1: missing), its manifest says {file.num_bytes}")
