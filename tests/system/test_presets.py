"""Presets by the literal command, `ibtpo train --config NAME --task demo`: they run, learn, and clip as their names
say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.presets import train_once
from services.launcher.runs.run_dir import RunDirectory
from shared.runtime.config import preset_names
from tests.system.demo import read_metrics

STEPS, BATCH = 3, 8


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
    small += (f"total_steps={STEPS}", f"batch_size={BATCH}", "evaluation.problems=4")
    run = train(tmp_path, preset, "lr=5e-4", *small)  # at the presets' own, few of so few tokens would be clipped
    steps = [line for line in read_metrics(run.root) if "avg_at_k" not in line]
    assert len(steps) == STEPS
    for step in steps:
        assert step["clip_share"] > 0
        assert step["ratio_max"] > 1
        if preset == "dapo":  # as many trees as it takes until so many have a signal
            assert round(step["eff_rate"] * step["trees"]) == BATCH


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_learns(preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Held-out accuracy rises by more than three standard errors of its difference."""
    learnt = train_once(tmp_path, preset)
    with capsys.disabled():  # each at once: whoever ends the hour of it early keeps what was measured
        print(f"\n{learnt.row}")
    assert learnt.is_sure
