"""A run whose model cannot be trained: the command ends with the reason, and the learner is not started again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.demo.task import checkpoint_directory


@pytest.mark.slow
def test_a_learner_that_refuses_its_model_exits_3_and_is_not_restarted(redis_url: str, tmp_path: Path) -> None:
    shutil.copytree(checkpoint_directory(), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"no weights")
    row = {"id": "1", "prompt": "1+1=", "kind": "math", "answer_key": {"gold": "2"}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    settings = ("learner.model=model", "learner.data=rows.jsonl", "total_steps=1", "--redis-url", redis_url)
    command = [sys.executable, "-m", "services.launcher.cli", "train", "--plain", "--config", "grpo", "--run", "mine"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([*command, *settings], cwd=tmp_path, env=environment, capture_output=True, timeout=100)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 2
    assert "learner ended with exit code 3" in said
    assert "model.safetensors is not safetensors" in said
    assert "Traceback" not in said
    assert (tmp_path / "runs/mine/logs/learner.jsonl").read_text().count('"cannot_start"') == 1
