"""The trees that are kept to be looked at."""

import random
from collections import Counter
from pathlib import Path

from services.learner.record.tree_samples import TreeSamples
from shared.protocol.tree import ScoredTree
from tests.learner.synthetic import draws, scored, task


def kept(directory: Path, kind: str) -> set[str]:
    return {ScoredTree.unpack(path.read_bytes()).task.id for path in directory.glob(f"{kind}-*.msgpack")}


def trees(count: int) -> list[ScoredTree]:
    record = draws(random.Random(0), 1, 0)
    return [scored(task(number), record) for number in range(count)]


def test_the_last_trees_stay(tmp_path: Path) -> None:
    tree_samples, every = TreeSamples(tmp_path, 3, seed=0), trees(10)
    for start in range(0, 10, 5):
        tree_samples.add(every[start : start + 5], start)
    assert kept(tmp_path, "last") == {"0-7", "0-8", "0-9"}
    assert len(kept(tmp_path, "sample")) == 3


def test_few_trees_stay_all(tmp_path: Path) -> None:
    TreeSamples(tmp_path, 3, seed=0).add(trees(2), 0)
    assert kept(tmp_path, "last") == kept(tmp_path, "sample") == {"0-0", "0-1"}


def test_none_are_kept_when_none_are_wanted(tmp_path: Path) -> None:
    TreeSamples(tmp_path / "trees", 0, seed=0).add(trees(2), 0)
    assert not (tmp_path / "trees").exists()


def test_the_sample_is_fair(tmp_path: Path) -> None:
    every, seen = trees(6), Counter[str]()
    for seed in range(100):
        tree_samples = TreeSamples(tmp_path, 2, seed)
        tree_samples.add(every[:3], 0)
        tree_samples.add(every[3:], 3)
        seen.update(kept(tmp_path, "sample"))
        for path in tmp_path.iterdir():
            path.unlink()
    # 100 · 2/6 each, standard deviation 4.7
    assert all(15 <= seen[f"0-{number}"] <= 52 for number in range(6)), seen
