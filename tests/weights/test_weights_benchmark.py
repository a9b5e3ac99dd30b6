"""`python -m benchmarks.weights` at a toy's size: all of its tables, and the line that ends it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_benchmark_of_new_weights_ends_with_its_figures() -> None:
    command = [sys.executable, "-m", "benchmarks.weights", "--toy", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["bit_equal"] is True
    assert figures["late_replicas"] == 0
    assert 0 < figures["delta_share"] < 0.05
    assert min(figures["blocked_copies"], figures["cpu_seconds_per_gb"]) > 0
