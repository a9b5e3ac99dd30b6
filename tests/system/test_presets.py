"""Presets that are named after a clip, run on the demo's task: the clip acts in every step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.demo import read_metrics

STEPS, BATCH = 3, 8


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("preset", ["dapo", "gspo", "cispo"])
def test_the_clip_of_a_preset_acts(preset: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services.launcher.cli", "train", "--plain", "--config", preset]
    settings = [f"total_steps={STEPS}", f"batch_size={BATCH}", "replicas=1", "evaluation.problems=4", "evaluation.k=2"]
    settings += ["launcher.demo.train_problems=256", "launcher.demo.held_out_problems=4"]
    done = subprocess.run(
        [*command, *settings], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    steps = [line for line in read_metrics(tmp_path / "runs" / preset) if "avg_at_k" not in line]
    assert len(steps) == STEPS
    for step in steps:
        assert step["clip_share"] > 0
        assert step["ratio_max"] > 1
        if preset == "dapo":  # as many trees as it takes until so many have a signal
            assert round(step["eff_rate"] * step["trees"]) == BATCH
