"""Synthetic bundles of bfloat16 weights, and optimizer steps on them."""

import json
import shutil
from pathlib import Path

import numpy as np

from services.demo.task import checkpoint_directory
from shared.tree.draw import WeightVersion
from shared.weights import Snapshot, SnapshotStore, write_manifest

RUN, ORIGIN = "benchmark", "b0"
CHANGED_SHARE = 0.015
"""Of the values that a synthetic step moves, each to its neighbour: between what was seen at lr 1e-6 and 1e-5."""
_TENSOR_VALUES = 1 << 23


class SyntheticPolicy:
    """Weights in memory, as bits of bfloat16."""

    def __init__(self, num_bytes: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        as_float = self._rng.normal(0.0, 0.02, 1 << 20).astype(np.float32)
        block = (as_float.view(np.uint32) >> 16).astype(np.uint16)
        self.values = np.resize(block, num_bytes // 2)

    def step(self) -> None:
        """Moves CHANGED_SHARE of the values by one unit in the last place."""
        for begin in range(0, len(self.values), _TENSOR_VALUES):
            part = self.values[begin : begin + _TENSOR_VALUES]
            part[self._rng.integers(0, len(part), int(CHANGED_SHARE * len(part)))] ^= 1

    def write(self, directory: Path) -> None:
        """A bundle that a replica takes: these weights, and the demo's tokenizer."""
        directory.mkdir()
        for path in checkpoint_directory().iterdir():
            if path.suffix in (".json", ".jinja"):
                shutil.copy(path, directory)
        table, offset = {}, 0
        for begin in range(0, len(self.values), _TENSOR_VALUES):
            count = min(_TENSOR_VALUES, len(self.values) - begin)
            offsets = [offset, offset := offset + 2 * count]
            table[f"layer.{begin // _TENSOR_VALUES}"] = {"dtype": "BF16", "shape": [count], "data_offsets": offsets}
        head = json.dumps(table).encode()
        head += b" " * (-len(head) % 8)
        with (directory / "model.safetensors").open("wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            self.values.tofile(file)


def adopt(policy: SyntheticPolicy, store: SnapshotStore, draft: Path, number: int) -> Snapshot:
    """The policy as the snapshot of update `number`."""
    shutil.rmtree(draft, ignore_errors=True)
    policy.write(draft)
    return store.adopt(draft, write_manifest(RUN, draft, WeightVersion(1, number, ORIGIN)))
