"""The whole system as real processes: it trains, survives the death of each process, and its accounts balance."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoModelForCausalLM

from services.learner.record.state import LearnerState
from shared.protocol.figures import RunSummary
from shared.protocol.status import RunStatus
from shared.runtime.child_process import kill_group
from tests.accounts import is_balanced
from tests.waiting import wait_until

pytestmark = [pytest.mark.drill, pytest.mark.timeout(330)]
SUMMARY_KEYS = {
    "sampler", "seed", "generated_tokens", "trajectories", "trees", "steps", "avg_at_k_before", "avg_at_k_after",
    "pass_at_k_after", "eff_rate", "avg_rate", "root_value", "ib_score", "cov_eta", "trajectories_per_1k_tokens",
    "tokens_per_second", "cache_hit_share", "wall_seconds",
}  # fmt: skip


class Demo:
    """`ibtpo demo` as a user starts it, small."""

    def __init__(self, directory: Path) -> None:
        self.run = directory / "runs" / "drill"
        self._log = directory / "demo.log"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *settings: str) -> None:
        command = [sys.executable, "-m", "services.launcher.cli", "demo", "--run", "drill", "--plain", *settings]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=self._directory, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def pid(self, service: str) -> int:
        return int(json.loads((self.run / "run.json").read_text())["pids"][service])

    def kill(self, service: str) -> None:
        os.kill(self.pid(service), signal.SIGKILL)

    def status(self) -> RunStatus | None:
        try:
            url = json.loads((self.run / "run.json").read_text())["learner_url"]
            return RunStatus.model_validate_json(httpx.get(f"{url}/v1/status", timeout=2).content)
        except (OSError, KeyError, ValueError, httpx.HTTPError):
            return None

    def wait_until(self, is_so: Callable[[RunStatus], bool], seconds: float = 150) -> RunStatus:
        def status_if_so() -> RunStatus | None:
            assert self._process is not None
            assert self._process.poll() is None, self.log
            status = self.status()
            if status is None:
                return None
            assert is_balanced(status.accounts), status.accounts
            return status if is_so(status) else None

        status = wait_until(status_if_so, seconds, lambda: f"the end of the log:\n{self.log[-3000:]}")
        assert status is not None
        return status

    def interrupt(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def wait(self, seconds: float = 200) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            kill_group(self._process.pid)
            self._process.wait()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    one = Demo(tmp_path)
    yield one
    one.end()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def read_checkpoint(run: Path) -> LearnerState:
    newest = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    return LearnerState.model_validate_json((newest / "state.json").read_text())


SMALL = (
    "learner.batch_size=8", "learner.evaluation.problems=8", "learner.evaluation.every=0", "learner.checkpoint_every=2",
    "launcher.demo.train_problems=256", "launcher.demo.held_out_problems=16", "rollout.claim_after_seconds=3",
)  # fmt: skip


def test_a_run_survives_the_death_of_every_process(demo: Demo) -> None:
    demo.start("learner.total_steps=22", *SMALL)
    demo.wait_until(lambda status: status.step >= 2)
    demo.kill("rollout-1")
    step = demo.wait_until(lambda status: status.step >= 5).step
    demo.kill("verifier")
    step = demo.wait_until(lambda status: status.step >= step + 3).step
    demo.kill("learner")
    demo.wait_until(lambda status: status.step >= step + 1)
    demo.kill("redis")
    demo.kill("rollout-2")
    assert demo.wait() == 0, demo.log
    summary = json.loads((demo.run / "summary.json").read_text())
    assert summary.keys() == RunSummary.model_fields.keys() >= SUMMARY_KEYS
    assert summary["steps"] == 22
    assert summary["trees"] == 22 * 8
    steps = [line["step"] for line in read_metrics(demo.run) if "grad_norm" in line]
    assert steps == list(range(1, 23))
    accounts = read_checkpoint(demo.run).ledger.accounts
    assert is_balanced(accounts)
    assert accounts.used + accounts.skipped == 22 * 8
    AutoModelForCausalLM.from_pretrained(demo.run / "policy")
    assert (demo.run / "report.html").stat().st_size > 10_000


def test_an_interrupted_run_leaves_nothing_behind_and_continues_where_it_was(demo: Demo) -> None:
    demo.start("learner.total_steps=8", *SMALL)
    demo.wait_until(lambda status: status.step >= 2)
    pids = json.loads((demo.run / "run.json").read_text())["pids"].values()
    demo.interrupt()
    demo.wait(60)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    done = read_checkpoint(demo.run).progress.step
    assert 2 <= done < 8
    demo.start("--resume", "learner.total_steps=8", *SMALL)
    assert demo.wait() == 0, demo.log
    assert [line["step"] for line in read_metrics(demo.run) if "grad_norm" in line] == list(range(1, 9))
