"""Deterministic runs: equal bit for bit, also where one was killed and went on."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.demo import Demo, read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
SMALL = (
    "learner.total_steps=6", "learner.batch_size=4", "learner.evaluation.problems=4", "learner.evaluation.every=3",
    "learner.evaluation.k=2", "learner.checkpoint_every=2", "learner.growth.max_tokens=24",
    "launcher.demo.train_problems=64", "launcher.demo.held_out_problems=8", "rollout.claim_after_seconds=3",
)  # fmt: skip


@pytest.fixture
def demos(tmp_path: Path) -> Iterator[dict[str, Demo]]:
    made = {name: Demo(tmp_path, name) for name in ("one", "other", "killed")}
    yield made
    for demo in made.values():
        demo.end()


def fingerprint(demo: Demo) -> str:
    """Of the weights that the run left."""
    return hashlib.sha256((demo.run / "policy/model.safetensors").read_bytes()).hexdigest()


def figures(demo: Demo) -> list[dict[str, object]]:
    """All that the run recorded, but what its machine took for it."""
    of_machine = ("_seconds", "_per_second", "_gib", "_tflops", "mfu")
    return [
        {
            name: value
            for name, value in line.items()
            if name not in ("version", "time") and not name.endswith(of_machine)
        }
        for line in read_metrics(demo.run)
    ]


@pytest.mark.parametrize(
    "trained",
    [pytest.param((), id="all weights"), pytest.param(("learner.lora.rank=4",), id="adapters")],
)
def test_runs_with_equal_settings_are_equal_and_one_that_was_killed_equals_them(
    demos: dict[str, Demo], trained: tuple[str, ...]
) -> None:
    for demo in demos.values():
        demo.start("learner.deterministic=true", *SMALL, *trained)
    demos["killed"].wait_until(lambda status: status.step >= 3)
    demos["killed"].kill("learner")
    for demo in demos.values():
        assert demo.wait() == 0, demo.log
    one, other, killed = demos.values()
    assert "tasks_replaced" in (killed.run / "logs/learner.jsonl").read_text()
    assert len(figures(one)) == 6 + 3
    assert figures(other) == figures(one)
    assert figures(killed) == figures(one)
    assert fingerprint(other) == fingerprint(one)
    assert fingerprint(killed) == fingerprint(one)
