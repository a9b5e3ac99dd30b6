"""Presets by the literal command, `ibtpo train --config NAME --task demo`: they run, learn, and clip as their names
say."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.launcher.runs.held_out_results import evaluated_steps, read_results
from services.launcher.runs.run_dir import RunDirectory
from services.launcher.settings.plan import RunRequest, make_run_plan
from services.learner.held_out.measure import average_reward, compare
from shared.runtime.config import preset_names
from tests.system.demo import read_metrics

STEPS, BATCH = 3, 8
TOKENS = 300_000
"""Half of the demo's budget, which every method uses up in a minute or two."""
WIDE = 32
"""A tree of more answers takes so much of that budget that few steps are left: such a method has all of the demo's."""


def train(directory: Path, preset: str, *settings: str) -> RunDirectory:
    command = [sys.executable, "-m", "services.launcher.cli", "train", "--plain", "--config", preset, "--task", "demo"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *settings], cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return RunDirectory(directory / "runs" / preset)


@pytest.mark.drill
@pytest.mark.parametrize("preset", ["ibtpo-paper", "treerl"])
def test_the_command_of_a_preset_trains_two_steps(preset: str, tmp_path: Path) -> None:
    small = ("replicas=1", "launcher.demo.train_problems=64", "launcher.demo.held_out_problems=4", "evaluation.k=1")
    run = train(tmp_path, preset, "total_steps=2", "batch_size=8", "evaluation.problems=4", *small)
    assert run.read_summary()["updates"] == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("preset", ["dapo", "gspo", "cispo"])
def test_the_clip_of_a_preset_acts(preset: str, tmp_path: Path) -> None:
    small = ("replicas=1", "launcher.demo.train_problems=256", "launcher.demo.held_out_problems=4", "evaluation.k=2")
    run = train(tmp_path, preset, f"total_steps={STEPS}", f"batch_size={BATCH}", "evaluation.problems=4", *small)
    steps = [line for line in read_metrics(run.root) if "avg_at_k" not in line]
    assert len(steps) == STEPS
    for step in steps:
        assert step["clip_share"] > 0
        assert step["ratio_max"] > 1
        if preset == "dapo":  # as many trees as it takes until so many have a signal
            assert round(step["eff_rate"] * step["trees"]) == BATCH


@pytest.fixture(scope="module")
def learnt(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The row of each preset in the table that is printed at the end."""
    rows: dict[str, str] = {}
    yield rows
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if rows and reporter is not None:
        reporter.write_line("\n| preset | avg@8 before | after | difference | tokens | steps | seconds |")
        reporter.write_line("|---|---|---|---|---|---|---|")
        for preset in sorted(rows):
            reporter.write_line(rows[preset])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_learns(preset: str, tmp_path: Path, learnt: dict[str, str]) -> None:
    """Held-out accuracy rises by more than three standard errors of its difference."""
    plan = make_run_plan(tmp_path, RunRequest(None, preset, ("launcher.task=demo",))).learner
    lr = plan.optimizer.lr / math.sqrt(plan.objective.updates_per_step)  # the demo's is that of one update a step
    settings = (
        f"max_generated_tokens={TOKENS if plan.growth.sampler.num_draws <= WIDE else 2 * TOKENS}",
        f"lr={lr:.2g}",
        "evaluation.every=0",
        "replicas=1",
    )
    run = train(tmp_path, preset, *settings)
    first, *_, last = evaluated_steps(run)
    change = compare(*(read_results(run, step, "heldout") for step in (first, last)), average_reward)
    summary = run.read_summary()
    assert change is not None
    learnt[preset] = (
        f"| {preset} | {summary['avg_at_k_before']:.3f} | {summary['avg_at_k_after']:.3f} | {change.value:+.3f} ± "
        f"{change.error:.3f} | {summary['generated_tokens']:,} | {summary['steps']} | {summary['wall_seconds']:.0f} |"
    )
    assert change.value > 3 * change.error
