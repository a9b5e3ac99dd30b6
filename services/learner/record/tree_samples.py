"""Keeps some trees of a run as files to look at: the last ones, and a uniform sample of all."""

import random
from collections.abc import Sequence
from pathlib import Path

from shared.files import atomic_write
from shared.protocol.tree import ScoredTree

_LAST = "last-{}.msgpack"
_SAMPLE = "sample-{}.msgpack"


class TreeSamples:
    """At most `keep` last trees and `keep` sampled ones in `directory`; later trees replace earlier ones."""

    def __init__(self, directory: Path, keep: int, seed: int) -> None:
        self._directory = directory
        self._keep = keep
        self._seed = seed

    def add(self, trees: Sequence[ScoredTree], num_before: int) -> None:
        """Adds trees that follow `num_before` others of the run. Blocking: disk."""
        if not self._keep:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        for number, tree in enumerate(trees, start=num_before):
            if number >= num_before + len(trees) - self._keep:
                atomic_write(self._directory / _LAST.format(number % self._keep), tree.pack())
            if (index := self._sample_index(number)) < self._keep:
                atomic_write(self._directory / _SAMPLE.format(index), tree.pack())

    def _sample_index(self, number: int) -> int:
        """Reservoir sampling: every tree so far is in the sample with equal probability."""
        return number if number < self._keep else random.Random(f"{self._seed} {number}").randint(0, number)
