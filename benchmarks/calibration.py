"""Fits the calibration of likelihoods, a and b of V4-c, to the trees that a run kept, and says how reliable they are.

    .venv/bin/python -m benchmarks.calibration runs/NAME [TREE.msgpack …]

takes the trees of a run's folder (learner.keep_trees), or files, grown with growth.likelihood. The last line is to be
copied into a configuration. Reliability after the fit is of the trees that it was fitted to.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from shared.errors import InvalidInput
from shared.protocol.tree import ScoredTree
from shared.tree.values import PriorSource
from shared.tree.values.calibration import Calibration, Observation, fit
from shared.tree.values.prior import observations
from shared.tree.values.reliability import Reliability


def tree_files(paths: Iterable[Path]) -> list[Path]:
    """The files themselves, and those in the folders of runs."""
    return [
        file for path in paths for file in (sorted((path / "trees").glob("*.msgpack")) if path.is_dir() else [path])
    ]


def read_observations(files: Sequence[Path]) -> tuple[list[Observation], int]:
    """What likelihoods said of the trees' nodes, and how many trees have any. A tree that is kept twice counts once.

    InvalidInput for a file that is no tree.
    """
    seen: set[str] = set()
    found: list[Observation] = []
    num_trees = 0
    for file in files:
        try:
            scored = ScoredTree.unpack(file.read_bytes())
        except OSError as error:
            raise InvalidInput(f"cannot read {file}: {error.strerror}") from error
        if (name := f"{scored.task.run} {scored.task.id}") in seen:
            continue
        seen.add(name)
        of_tree = observations(scored.tree(), PriorSource.LIKELIHOOD)
        num_trees += bool(of_tree)
        found += of_tree
    return found, num_trees


def describe(name: str, seen: Sequence[Observation], by: Calibration) -> str:
    """A row of the table."""
    one = Reliability.of([each._replace(estimate=by.of(each.estimate)) for each in seen])
    assert one is not None
    agreement = "–" if one.correlation is None else f"{one.correlation:.3f}"
    return f"| {name} | {one.cross_entropy:.4f} | {one.brier:.4f} | {one.calibration_error:.4f} | {agreement} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="+", help="folders of runs, or files of trees")
    files = tree_files(parser.parse_args(arguments).paths)
    try:
        seen, num_trees = read_observations(files)
    except InvalidInput as error:
        print(error, file=sys.stderr)
        return 2
    if not seen:
        print(
            f"none of {len(files)} trees has likelihoods: grow them with growth.likelihood={{}}, and keep some "
            "(learner.keep_trees)",
            file=sys.stderr,
        )
        return 2
    best = fit(seen)
    print(f"{len(seen)} nodes of {num_trees} trees ({len(files)} files)\n")
    print("| prior | cross-entropy | Brier score | ECE | correlation with counts |\n|---|---|---|---|---|")
    print(describe("Φ", seen, Calibration()))
    print(describe("σ(a·logit Φ + b)", seen, best))
    print(f'\nvalues = {{ kind = "prior", source = "likelihood", a = {best.a:.4f}, b = {best.b:.4f} }}')
    return 0


if __name__ == "__main__":
    sys.exit(main())
