"""Policy bundles as a learner writes them: small safetensors that training moves a little."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from shared.tree.draw import WeightVersion
from shared.weights import Outgoing, Snapshot, write_manifest


class Weights:
    """Tensors of several widths, as bits."""

    def __init__(self, seed: int = 0, size: int = 5000) -> None:
        self._rng = np.random.default_rng(seed)
        draw = self._rng.integers
        self.tensors = {
            "embed": draw(0, 1 << 16, (size // 50, 50), np.uint16),
            "norm": draw(0, 1 << 32, (7,), np.uint32),
            "moe": draw(0, 1 << 63, (3, 11), np.uint64),
            "mask": draw(0, 255, (13,), np.uint8),
            "none": np.zeros((0, 4), np.float32),
        }
        self.config = '{"model_type": "tiny"}'

    def move(self, share: float) -> None:
        """Changes about this share of all values, mostly by one."""
        for name, tensor in self.tensors.items():
            steps = (self._rng.random(tensor.shape) < share) * self._rng.choice([1, 1, 1, 300], tensor.shape)
            self.tensors[name] = tensor + steps.astype(tensor.dtype)

    def write(self, directory: Path, version: WeightVersion) -> Snapshot:
        directory.mkdir(parents=True)
        save_file(self.tensors, directory / "model.safetensors")
        (directory / "config.json").write_text(self.config)
        (directory / "empty.txt").touch()
        return Snapshot(write_manifest("r", directory, version), directory)


def bytes_of(outgoing: Outgoing) -> bytes:
    """What a receiver is sent."""
    return outgoing.head + b"".join(path.read_bytes()[:num_bytes] for path, num_bytes in outgoing.files)


async def in_chunks(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "manifest.json"}
