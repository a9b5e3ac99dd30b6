"""An interrupt of `ibtpo.train` where an event loop runs already, as in a notebook: saved, stopped, resumed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = {"evaluation.problems": 4, "evaluation.k": 1, "launcher.replicas": 1, "batch_size": 4}
PROGRAM = f"""
import asyncio, ibtpo

async def main():
    try:
        ibtpo.train("demo", "mine", total_steps=500, **{SMALL!r})
    except KeyboardInterrupt as error:
        print(error)
    run = ibtpo.Run("mine")
    steps = run.metrics.num_rows
    print("is running:", run.is_running, flush=True)
    run = ibtpo.train(run="mine", resume=True, progress=False, total_steps=steps + 1)
    print("steps:", run.metrics["step"] == list(range(1, steps + 2)), run.is_finished)

asyncio.run(main())
"""

pytestmark = [pytest.mark.drill, pytest.mark.slow, pytest.mark.timeout(600)]


def test_an_interrupt_saves_the_run_and_resume_goes_on(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": "", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "step 2/500" in line:
                process.send_signal(signal.SIGINT)
    said = "".join(lines)
    assert process.returncode == 0, said
    assert "run 'mine' is stopped and saved: ibtpo.train(run='mine', resume=True) continues it" in said
    assert "is running: False" in said
    assert "steps: True True" in said
