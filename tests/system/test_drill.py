"""The whole system as real processes: it trains, survives the death of each process, and its accounts balance."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from services.learner.record.state import LearnerState
from shared.protocol.figures import RunSummary
from tests.accounts import is_balanced
from tests.system.demo import Demo, read_metrics

pytestmark = [pytest.mark.drill, pytest.mark.timeout(330)]
SUMMARY_KEYS = {
    "sampler", "seed", "generated_tokens", "trajectories", "trees", "steps", "avg_at_k_before", "avg_at_k_after",
    "pass_at_k_after", "eff_rate", "avg_rate", "root_value", "ib_score", "cov_eta", "trajectories_per_1k_tokens",
    "tokens_per_second", "cache_hit_share", "wall_seconds",
}  # fmt: skip


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    one = Demo(tmp_path)
    yield one
    one.end()


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
    found = demo.examine()
    assert not {name: one for name, one in found.items() if one[0] == "failed"}
    assert {"verifier: judges", "replica rollout-2: weights", "run drill: steps", "redis: persistence"} <= found.keys()
    demo.interrupt()
    demo.wait(60)
    assert "--resume" in demo.examine()["run drill: status"][1]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    done = read_checkpoint(demo.run).progress.step
    assert 2 <= done < 8
    demo.start("--resume", "learner.total_steps=8", *SMALL)
    assert demo.wait() == 0, demo.log
    assert [line["step"] for line in read_metrics(demo.run) if "grad_norm" in line] == list(range(1, 9))
