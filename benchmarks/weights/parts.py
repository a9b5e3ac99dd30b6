"""The parts of the way, each alone and against a copy of as many bytes in memory, in CPU-seconds of one thread."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.weights.bundles import RUN, SyntheticPolicy
from benchmarks.weights.usage import Copier
from shared.protocol.weights import Transfer
from shared.tree.draw import WeightVersion
from shared.weights import Incoming, Lineage, Snapshot, write_manifest
from shared.weights.bodies import Body, DeltaBody, FullBody
from shared.weights.framing import frame, full_transfer

_FED_BYTES = 1 << 20


class Rate(NamedTuple):
    """Bytes of a bundle per CPU-second of one part, and the same for a memcpy right before it."""

    part: str
    bytes_per_second: float
    memcpy_bytes_per_second: float

    @property
    def copies(self) -> float:
        """How many copies in memory it costs."""
        return self.memcpy_bytes_per_second / self.bytes_per_second


def measure(scratch: Path, num_bytes: int, num_rounds: int, seed: int) -> list[Rate]:
    """Of one bundle and its successor."""
    policy, copier, rates = SyntheticPolicy(num_bytes, seed), Copier(), []
    base = _snapshot(policy, scratch / "base", 0)
    policy.step()
    new = _snapshot(policy, scratch / "new", 1)
    lineage = Lineage(scratch / "deltas")
    delta = lineage.add(base, new)
    transfer = Transfer.model_validate(
        {**full_transfer(new.manifest).model_dump(), "encoding": "delta", "base": delta.base.model_dump()}
        | {"num_bytes": delta.num_bytes}
    )

    def apply_delta(directory: Path) -> None:
        _receive(transfer, delta.path, lambda: DeltaBody(new.manifest, base, directory), directory)

    def receive_full(directory: Path) -> None:
        whole = full_transfer(new.manifest)
        _receive(whole, None, lambda: FullBody(new.manifest, directory), directory, new)

    parts: dict[str, Callable[[Path], object]] = {
        "write a bundle": policy.write,
        "hash it": lambda _: write_manifest(RUN, new.directory, new.version),
        "encode a delta": lambda _: lineage.add(base, new),
        "take a full one in": receive_full,
        "apply a delta": apply_delta,
    }
    for _ in range(num_rounds):
        for name, part in parts.items():
            memcpy = copier.copy()
            with tempfile.TemporaryDirectory(dir=scratch) as area:
                started = time.thread_time()
                part(Path(area) / "bundle")
                rates.append(Rate(name, new.manifest.num_bytes / (time.thread_time() - started), memcpy))
    return rates


def _snapshot(policy: SyntheticPolicy, directory: Path, number: int) -> Snapshot:
    shutil.rmtree(directory, ignore_errors=True)
    policy.write(directory)
    return Snapshot(write_manifest(RUN, directory, WeightVersion(1, number, "b0")), directory)


def _receive(
    transfer: Transfer, body: Path | None, accept: Callable[[], Body], directory: Path, whole: Snapshot | None = None
) -> None:
    """Feeds a transfer as a download would; reading the files is part of it, as is reading a socket."""
    directory.mkdir()
    incoming = Incoming(lambda _: accept(), directory)
    incoming.feed(memoryview(frame(transfer)))
    files = [body] if body else [whole.directory / one.name for one in transfer.manifest.files] if whole else []
    buffer = memoryview(bytearray(_FED_BYTES))
    for path in files:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                incoming.feed(buffer[:count])
    incoming.finish()
    incoming.close()
