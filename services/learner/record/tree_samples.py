"""Keeps some trees of a run as files, to be looked at: the last ones, and a fair sample of all."""

import random
from collections.abc import Sequence
from pathlib import Path

from shared.files import atomic_write
from shared.protocol.tree import ScoredTree

_LAST = "last-{}.msgpack"
_SAMPLE = "sample-{}.msgpack"


class TreeShelf:
    """At most `keep` files of each kind in `directory`, by slot; a later tree takes the place of an earlier one."""

    def __init__(self, directory: Path, keep: int, seed: int) -> None:
        self._directory = directory
        self._keep = keep
        self._seed = seed

    def put(self, trees: Sequence[ScoredTree], num_before: int) -> None:
        """Shelves the trees that follow `num_before` others of the run. Blocking: disk."""
        if not self._keep:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        for number, tree in enumerate(trees, start=num_before):
            if number >= num_before + len(trees) - self._keep:
                self._write(_LAST.format(number % self._keep), tree)
            if (slot := self._sample_slot(number)) < self._keep:
                self._write(_SAMPLE.format(slot), tree)

    def _sample_slot(self, number: int) -> int:
        """Reservoir sampling: each tree so far is in the sample with the same probability."""
        return number if number < self._keep else random.Random(f"{self._seed} {number}").randint(0, number)

    def _write(self, name: str, tree: ScoredTree) -> None:
        atomic_write(self._directory / name, tree.pack())
