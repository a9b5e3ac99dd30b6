"""The command that fits calibration to kept trees."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.calibration import main, read_observations, tree_files
from shared.tree.values.calibration import fit
from tests.learner.synthetic import draws, scored, task


def keep(directory: Path, number: int, *, likelihoods: bool = True, name: str = "") -> None:
    rng = random.Random(number)
    record = draws(rng)
    if likelihoods:
        record = tuple(replace(one, step_likelihoods=tuple(rng.random() for _ in one.step_ends)) for one in record)
    directory.mkdir(exist_ok=True)
    (directory / f"{name or number}.msgpack").write_bytes(scored(task(number), record).pack())


def test_kept_trees_give_a_line_to_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        keep(tmp_path / "trees", number, likelihoods=number != 3)
    keep(tmp_path / "trees", 1, name="again")
    seen, num_trees = read_observations(tree_files([tmp_path]))
    assert num_trees == 3
    best = fit(seen)
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"{len(seen)} nodes of 3 trees (5 files)" in printed
    line = f'values = {{ kind = "prior", source = "likelihood", a = {best.a:.4f}, b = {best.b:.4f} }}'
    assert printed.splitlines()[-1] == line


def test_without_likelihoods_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path / "trees", 1, likelihoods=False)
    (tmp_path / "none.msgpack").write_bytes(b"no tree")
    for path, said in ((tmp_path, "growth.likelihood={}"), (tmp_path / "none.msgpack", "not a scored tree")):
        assert main([str(path)]) == 2
        printed = capsys.readouterr()
        assert (printed.out, len(printed.err.splitlines())) == ("", 1)
        assert said in printed.err
