"""Run folders as learners leave them, for reports to read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tomli_w

from services.launcher.runs.run_dir import RunDirectory
from services.learner.held_out.results import Header, ResultsFile
from shared.protocol.figures import StepFigures
from shared.tree.draw import WeightVersion
from tests.learner.evaluations import make_evaluation, result


def write_run(
    root: Path,
    rewards: Mapping[int, Sequence[Sequence[float]]],
    *,
    steps: int = 4,
    seed: int = 0,
    finished: bool = True,
    **learner: object,
) -> RunDirectory:
    """A run whose held-out problems got these rewards, by the step of the evaluation."""
    run = RunDirectory(root)
    run.make()
    settings = {"run": run.name, "run_dir": str(root), "seed": seed, "data": [str(root / "data" / "train.jsonl")]}
    run.config.write_text(tomli_w.dumps({"learner": settings | learner}))
    figures = [
        StepFigures(step=step, trees=4, root_value=0.1 * step, generated_tokens=1000, update_seconds=2.0)
        for step in range(1, steps + 1)
    ]
    evaluations = [make_evaluation({"a": each}, step, WeightVersion(1, step), 2) for step, each in rewards.items()]
    lines = [json.dumps(one.flat()) for one in evaluations] + [one.model_dump_json() for one in figures]
    run.metrics.write_text("".join(f"{line}\n" for line in lines))
    for step, each in rewards.items():
        file = ResultsFile(run.evaluations / str(step), "a")
        file.begin(Header(set="a", weights=""), {str(number): result(number, one) for number, one in enumerate(each)})
    if finished:
        run.summary.write_text(json.dumps({"run": run.name, "method": "grpo", "warning": ""}))
    return run
