"""`make gpu-check` at a toy's size, on a CPU: what it writes and prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_check_of_a_gpu_runs_at_a_toys_size_on_a_cpu(tmp_path: Path) -> None:
    output = tmp_path / "check.json"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(output.read_text())
    assert found["left_out"] == []
    assert [one["form"] for one in found["learner"]] == ["trees", "dense masks", "trajectories apart"]
    assert [one["layout"] for one in found["learner"]] == ["joined", "stacked", "apart"]
    for one in found["learner"]:
        assert 0 < one["packing_share"] <= 1
        assert one["trained_tokens_per_second"] > 0
        assert one["mfu"] is None
        assert f"| toy | {one['form']} |" in done.stdout
    trees, _, apart = found["learner"]
    assert trees["packing_share"] > apart["packing_share"]
    run = found["run"]
    assert (run["engine"], run["steps"]) == ("embedded", 9)
    assert sum(run["shares"].values()) == pytest.approx(1.0)
    assert "left out" not in done.stdout
