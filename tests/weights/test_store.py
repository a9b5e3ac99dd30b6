"""A snapshot is on the disk whole or not at all, and stays as long as it is used."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import Conflict, IbtpoError, InvalidInput, TooLarge, Unavailable
from shared.protocol.weights import BundleFile, Manifest, Piece
from shared.tree.draw import WeightVersion
from shared.weights import Snapshot, SnapshotStore, bundle_length, stream_bundle, write_manifest
from shared.weights.framing import MAGIC, full_transfer
from shared.weights.manifest import content_hash
from tests.waiting import wait_until, wait_until_async

FILES = {"config.json": b'{"a": 1}', "model.safetensors": bytes(range(256)) * 40, "empty.txt": b""}
PLENTY = 10**9


class Learner:
    """Writes snapshot directories, as a learner does."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, number: int = 1, *, generation: int = 1, files: dict[str, bytes] = FILES) -> tuple[Manifest, Path]:
        directory = Path(os.path.join(self._root, f"{generation}-{number}-{time.monotonic_ns()}"))
        directory.mkdir(parents=True)
        for name, content in files.items():
            (directory / name).write_bytes(content)
        return write_manifest("r", directory, WeightVersion(generation, number)), directory


@pytest.fixture
def learner(tmp_path: Path) -> Learner:
    return Learner(tmp_path / "learner")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


async def bytes_of(manifest: Manifest, directory: Path) -> bytes:
    return b"".join([chunk async for chunk in stream_bundle(manifest, directory)])


async def chunked(data: bytes, sizes: Sequence[int] = (1000,)) -> AsyncIterator[bytes]:
    """`data` in chunks of these sizes, round and round; some may be empty."""
    at = index = 0
    while at < len(data):
        size = sizes[index % len(sizes)]
        yield data[at : at + size]
        at += size
        index += 1


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "manifest.json"}


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


async def test_a_bundle_arrives_as_it_was_sent(learner: Learner, root: Path) -> None:
    manifest, directory = learner.write()
    store = SnapshotStore(root, keep=2, run="r")
    snapshot = await store.receive(stream_bundle(manifest, directory), PLENTY)
    assert snapshot == store.latest() == Snapshot(manifest, root / "1.1")
    assert contents(snapshot.directory) == FILES
    assert names(root) == {"1.1"}
    assert len(await bytes_of(manifest, directory)) == bundle_length(manifest)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=6).filter(any))
async def test_the_sizes_of_the_chunks_do_not_matter(learner: Learner, root: Path, sizes: list[int]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    manifest, directory = learner.write()
    data = await bytes_of(manifest, directory)
    snapshot = await SnapshotStore(root, keep=1).receive(chunked(data, sizes), PLENTY)
    assert contents(snapshot.directory) == FILES


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
async def test_a_stream_that_ends_early_leaves_nothing(learner: Learner, root: Path, share: float) -> None:
    manifest, directory = learner.write()
    data = await bytes_of(manifest, directory)
    store = SnapshotStore(root, keep=1)
    with pytest.raises(InvalidInput, match="ends within"):
        await store.receive(chunked(data[: int(len(data) * share)]), PLENTY)
    assert names(root) == set()
    assert store.latest() is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0), bit=st.integers(0, 7))
async def test_no_flipped_bit_goes_unnoticed(learner: Learner, root: Path, at: int, bit: int) -> None:
    manifest, directory = learner.write()
    data = bytearray(await bytes_of(manifest, directory))
    data[at % len(data)] ^= 1 << bit
    store = SnapshotStore(root, keep=1)
    try:
        snapshot = await store.receive(chunked(bytes(data)), PLENTY)
    except IbtpoError:
        assert names(root) == set()
        return
    # only the manifest's run and version are not covered by a checksum; their reader compares them
    assert contents(snapshot.directory) == FILES
    assert (snapshot.manifest.run, snapshot.version) != (manifest.run, manifest.version)
    shutil.rmtree(root)


async def test_a_broken_connection_leaves_nothing(learner: Learner, root: Path) -> None:
    manifest, directory = learner.write()
    data = await bytes_of(manifest, directory)

    async def breaking() -> AsyncIterator[bytes]:
        yield data[:-100]
        raise RuntimeError("connection reset")

    with pytest.raises(RuntimeError, match="connection reset"):
        await SnapshotStore(root, keep=1).receive(breaking(), PLENTY)
    assert names(root) == set()


async def test_a_cancelled_transfer_leaves_nothing(learner: Learner, root: Path) -> None:
    manifest, directory = learner.write()
    data = await bytes_of(manifest, directory)

    async def stalling() -> AsyncIterator[bytes]:
        yield data[:-100]
        await asyncio.Event().wait()

    transfer = asyncio.create_task(SnapshotStore(root, keep=1).receive(stalling(), PLENTY))
    await wait_until_async(lambda: names(root) != set())
    transfer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await transfer
    assert names(root) == set()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data + b"x", "bytes after its last file"),
        (lambda data: b"PK" + data, "not a weight bundle"),
        (lambda data: MAGIC + b"\0" * 8, "a description of 0 bytes"),
        (lambda data: MAGIC + b"\xff" * 8 + data, "a description of 18446744073709551615 bytes"),
        (lambda data: MAGIC + (4).to_bytes(8, "little") + b"[{}]", "description cannot be read"),
        (lambda data: b"", "ends within the header"),
    ],
)
async def test_what_is_no_bundle_is_refused(
    learner: Learner, root: Path, spoil: Callable[[bytes], bytes], said: str
) -> None:
    data = spoil(await bytes_of(*learner.write()))
    with pytest.raises(InvalidInput, match=said):
        await SnapshotStore(root, keep=1).receive(chunked(data), PLENTY)
    assert names(root) == set()


def framed(transfer: dict[str, Any] | Manifest, body: bytes) -> bytes:
    """A bundle framed by hand; a dict is a description that no honest learner would write."""
    if isinstance(transfer, Manifest):
        transfer = full_transfer(transfer).model_dump(mode="json")
    header = json.dumps(transfer).encode()
    return MAGIC + len(header).to_bytes(8, "little") + header + body


@pytest.mark.parametrize(
    "name", ["../evil", "a/b", "/etc/passwd", "..", ".", "", ".staging", "a\\b", "a\0b", "C:x", "x" * 200]
)
async def test_a_name_that_leads_elsewhere_is_refused(learner: Learner, root: Path, name: str) -> None:
    manifest, _ = learner.write(files={"a": b"1"})
    body = full_transfer(manifest).model_dump(mode="json")
    body["manifest"]["files"][0]["name"] = name
    with pytest.raises(InvalidInput, match="plain name"):
        await SnapshotStore(root, keep=1).receive(chunked(framed(body, b"1")), PLENTY)
    assert names(root) == set()
    assert not (root.parent / "evil").exists()


@pytest.mark.parametrize("names_given", [["a", "a"], ["a", "A"], ["manifest.json"], ["Manifest.JSON"]])
async def test_names_that_would_overwrite_each_other_are_refused(root: Path, names_given: list[str]) -> None:
    nothing = Piece(num_bytes=0, xxh3="0" * 32)
    files = tuple(BundleFile(name=name, pieces=(nothing,)) for name in names_given)
    manifest = Manifest(run="r", version=WeightVersion(1, 1), files=files, content_hash=content_hash(files))
    with pytest.raises(InvalidInput, match="distinct names"):
        await SnapshotStore(root, keep=1).receive(chunked(framed(manifest, b"")), PLENTY)


async def test_a_wrong_checksum_names_the_file(learner: Learner, root: Path) -> None:
    manifest, directory = learner.write()
    (directory / "model.safetensors").write_bytes(b"\1" + FILES["model.safetensors"][1:])
    with pytest.raises(InvalidInput, match=r"model\.safetensors arrived with xxh3"):
        await SnapshotStore(root, keep=1).receive(stream_bundle(manifest, directory), PLENTY)
    assert names(root) == set()


async def test_a_content_hash_that_is_not_that_of_the_files_is_refused(learner: Learner, root: Path) -> None:
    manifest, directory = learner.write()
    lying = manifest.model_copy(update={"content_hash": "0" * 64})
    with pytest.raises(InvalidInput, match="content_hash is 0000"):
        await SnapshotStore(root, keep=1).receive(stream_bundle(lying, directory), PLENTY)


async def test_weights_of_another_run_are_refused(learner: Learner, root: Path) -> None:
    manifest, directory = learner.write()
    with pytest.raises(InvalidInput, match="belong to run 'r', this store to 'other'"):
        await SnapshotStore(root, keep=1, run="other").receive(stream_bundle(manifest, directory), PLENTY)


async def test_a_bundle_over_the_bound_is_refused_by_its_manifest(learner: Learner, root: Path) -> None:
    manifest, directory = learner.write()
    data, sent = await bytes_of(manifest, directory), 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal sent
        async for chunk in chunked(data, (100,)):
            sent += len(chunk)
            yield chunk

    with pytest.raises(TooLarge, match="10248 bytes, over the 10000"):
        await SnapshotStore(root, keep=1).receive(counted(), 10_000)
    assert sent < 2000


async def test_a_bundle_that_can_never_fit_beside_the_served_one_is_refused_at_once(
    learner: Learner, root: Path
) -> None:
    manifest, _ = learner.write(files={"a": b"1"})
    huge = BundleFile(name="a", pieces=(Piece(num_bytes=10**15, xxh3="0" * 32),))
    manifest = manifest.model_copy(update={"files": (huge,), "content_hash": content_hash([huge])})
    with pytest.raises(TooLarge, match=r"bytes in all cannot hold 1 of them beside the next one; make it larger"):
        await SnapshotStore(root, keep=1).receive(chunked(framed(manifest, b"1")), 10**16)


async def test_a_history_that_began_again_is_newer_than_the_one_before(learner: Learner, root: Path) -> None:
    store = SnapshotStore(root, keep=1)
    for version in (WeightVersion(1, 4, "dead"), WeightVersion(1, 0, "beef"), WeightVersion(1, 1, "beef")):
        _, directory = learner.write()
        await store.receive(stream_bundle(write_manifest("r", directory, version), directory), PLENTY)
    assert names(root) == {"1.1-beef"}


async def test_a_version_comes_once_and_never_changes(learner: Learner, root: Path) -> None:
    store = SnapshotStore(root, keep=2)
    first = await store.receive(stream_bundle(*learner.write()), PLENTY)
    assert await store.receive(stream_bundle(*learner.write()), PLENTY) == first
    with pytest.raises(Conflict, match=r"version 1\.1 is already here"):
        await store.receive(stream_bundle(*learner.write(files={"a": b"other"})), PLENTY)
    assert contents(first.directory) == FILES


async def test_the_same_version_twice_at_once_becomes_one(learner: Learner, root: Path) -> None:
    store = SnapshotStore(root, keep=2)
    data = await bytes_of(*learner.write())

    async def slowly() -> AsyncIterator[bytes]:
        async for chunk in chunked(data):
            await asyncio.sleep(0)
            yield chunk

    snapshots = await asyncio.gather(*(store.receive(slowly(), PLENTY) for _ in range(4)))
    assert len(set(map(str, snapshots))) == 1
    assert names(root) == {"1.1"}


async def test_the_newest_stay_and_a_newer_generation_is_newer(learner: Learner, root: Path) -> None:
    store = SnapshotStore(root, keep=2)
    for generation, number in ((1, 1), (1, 10), (1, 9), (2, 1)):
        await store.receive(stream_bundle(*learner.write(number, generation=generation)), PLENTY)
    latest = store.latest()
    assert latest is not None
    assert latest.version == WeightVersion(2, 1)
    assert names(root) == {"1.10", "2.1"}
    with pytest.raises(InvalidInput, match=r"no snapshot of version 1\.1 here; kept are: 1\.10, 2\.1"):
        store.get(WeightVersion(1, 1))
    assert store.get(WeightVersion(1, 10)).directory == root / "1.10"


async def test_a_snapshot_in_use_outlives_newer_ones_and_goes_when_it_is_let_go(learner: Learner, root: Path) -> None:
    store = SnapshotStore(root, keep=1)
    used = await store.receive(stream_bundle(*learner.write(1)), PLENTY)
    async with store.pin(used), store.pin(used):
        for number in (2, 3):
            await store.receive(stream_bundle(*learner.write(number)), PLENTY)
        assert contents(used.directory) == FILES
        assert names(root) == {"1.1", "1.3"}
    assert names(root) == {"1.3"}
    with pytest.raises(InvalidInput):
        async with store.pin(used):
            pass


async def test_room_is_made_before_a_snapshot_is_staged(learner: Learner, root: Path) -> None:
    store = SnapshotStore(root, keep=1)
    served = await store.receive(stream_bundle(*learner.write(1)), PLENTY)
    async with store.pin(served):
        for number in (2, 3):
            data = await bytes_of(*learner.write(number))

            async def watched(data: bytes = data) -> AsyncIterator[bytes]:
                async for chunk in chunked(data):
                    yield chunk
                assert [name for name in names(root) if not name.startswith(".staging-")] == ["1.1"]

            await store.receive(watched(), PLENTY)
        assert names(root) == {"1.1", "1.3"}


async def test_snapshots_are_pinned_while_others_are_adopted_in_a_thread(learner: Learner, root: Path) -> None:
    store = SnapshotStore(root, keep=1)
    written = [learner.write(number) for number in range(1, 40)]

    def adopt_all() -> None:
        for manifest, directory in written:
            store.adopt(directory, manifest)

    adopting = asyncio.create_task(asyncio.to_thread(adopt_all))
    while not adopting.done():
        latest = store.latest()
        if latest is not None:
            with suppress(InvalidInput):
                async with store.pin(latest):
                    assert contents(latest.directory) == FILES
        await asyncio.sleep(0)
    await adopting
    assert names(root) == {"1.39"}


async def test_a_restart_finds_what_was_complete_and_removes_what_was_not(learner: Learner, root: Path) -> None:
    await SnapshotStore(root, keep=3).receive(stream_bundle(*learner.write(1)), PLENTY)
    (root / ".staging-abc").mkdir()
    (root / ".staging-abc" / "model.safetensors").write_bytes(b"half")
    shutil.copytree(root / "1.1", root / "1.2")  # says that it is 1.1
    shutil.copytree(root / "1.1", root / "notes")
    store = SnapshotStore(root, keep=3)
    latest = store.latest()
    assert latest is not None
    assert latest.directory == root / "1.1"
    assert not (root / ".staging-abc").exists()
    (root / "1.1" / "config.json").write_bytes(b"")
    assert SnapshotStore(root, keep=3).latest() is None


async def test_a_snapshot_that_is_found_is_not_trusted_by_its_length(learner: Learner, root: Path) -> None:
    manifest, directory = learner.write()
    snapshot = await SnapshotStore(root, keep=3).receive(stream_bundle(manifest, directory), PLENTY)
    model = snapshot.directory / "model.safetensors"
    model.write_bytes(b"\1\2\3\4" + model.read_bytes()[4:])
    store = SnapshotStore(root, keep=3)
    assert store.latest() is None
    again = await store.receive(stream_bundle(manifest, directory), PLENTY)
    assert contents(again.directory) == FILES


@pytest.mark.parametrize("name", ["adapter_config.json", ".hidden"])
async def test_a_snapshot_that_is_found_with_one_more_file_is_not_served(
    learner: Learner, root: Path, name: str
) -> None:
    snapshot = await SnapshotStore(root, keep=3).receive(stream_bundle(*learner.write()), PLENTY)
    (snapshot.directory / name).write_text("{}")
    assert SnapshotStore(root, keep=3).latest() is None


async def test_a_sender_that_dribbles_loses_its_place(learner: Learner, root: Path) -> None:
    data = await bytes_of(*learner.write())

    async def dribble() -> AsyncIterator[bytes]:
        for byte in data:
            yield bytes([byte])
            await asyncio.sleep(0.02)

    with pytest.raises(Unavailable, match=r"comes too slowly: \d+ bytes in 0 s"):
        await SnapshotStore(root, keep=1, pauses_seconds=0.2).receive(dribble(), PLENTY)
    assert names(root) == set()


async def test_a_damaged_snapshot_is_deleted_with_the_next_arrival(learner: Learner, root: Path) -> None:
    await SnapshotStore(root, keep=1).receive(stream_bundle(*learner.write(1)), PLENTY)
    (root / "1.1" / "model.safetensors").write_bytes(b"\1" + FILES["model.safetensors"][1:])
    store = SnapshotStore(root, keep=1)
    await store.receive(stream_bundle(*learner.write(2)), PLENTY)
    assert names(root) == {"1.2"}


async def test_a_damaged_snapshot_is_replaced_by_a_fresh_one(learner: Learner, root: Path) -> None:
    await SnapshotStore(root, keep=3).receive(stream_bundle(*learner.write(1)), PLENTY)
    (root / "1.1" / "config.json").unlink()
    snapshot = await SnapshotStore(root, keep=3).receive(stream_bundle(*learner.write(1)), PLENTY)
    assert contents(snapshot.directory) == FILES


def test_a_directory_of_this_process_is_adopted_whole(learner: Learner, root: Path) -> None:
    store = SnapshotStore(root, keep=2)
    manifest, directory = learner.write()
    snapshot = store.adopt(directory, manifest)
    assert contents(snapshot.directory) == FILES
    assert not directory.exists()
    manifest, directory = learner.write(2)
    (directory / "config.json").write_bytes(b"changed since")
    with pytest.raises(InvalidInput, match="its manifest says"):
        store.adopt(directory, manifest)


def test_only_a_flat_directory_of_files_has_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is empty"):
        write_manifest("r", tmp_path, WeightVersion(1, 1))
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="plain files only"):
        write_manifest("r", tmp_path, WeightVersion(1, 1))
    (tmp_path / "link").unlink()
    (tmp_path / "bad name").write_bytes(b"")
    with pytest.raises(InvalidInput, match="plain name"):
        write_manifest("r", tmp_path, WeightVersion(1, 1))


def test_a_store_keeps_something(root: Path) -> None:
    with pytest.raises(ValueError, match="at least the newest"):
        SnapshotStore(root, keep=0)


RECEIVER = """
import asyncio, sys
from pathlib import Path
from shared.weights import SnapshotStore

async def from_pipe():
    while chunk := await asyncio.to_thread(sys.stdin.buffer.read1, 65536):
        yield chunk

print(asyncio.run(SnapshotStore(Path(sys.argv[1]), keep=2).receive(from_pipe(), 10**9)).version)
"""


async def test_a_process_killed_in_the_middle_leaves_no_snapshot(learner: Learner, root: Path) -> None:
    data = await bytes_of(*learner.write(files={"model.safetensors": os.urandom(3_000_000)}))
    receiver = subprocess.Popen([sys.executable, "-c", RECEIVER, str(root)], stdin=subprocess.PIPE)
    assert receiver.stdin is not None
    receiver.stdin.write(data[:2_500_000])
    receiver.stdin.flush()
    wait_until(lambda: list(root.glob(".staging-*/bundle/model.safetensors")))
    receiver.send_signal(signal.SIGKILL)
    receiver.wait()
    receiver.stdin.close()
    store = SnapshotStore(root, keep=2)
    assert store.latest() is None
    assert names(root) == set()
    await store.receive(chunked(data, (65536,)), PLENTY)
