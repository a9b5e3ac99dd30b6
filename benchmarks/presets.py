"""Trains every preset on the demo's task, as a user would, and measures whether it learns: one seed, one run each.

    .venv/bin/python -m benchmarks.presets [NAME ...] [--runs runs/presets]

prints the table of docs/results/presets.md, a row as soon as its run has ended (two minutes of two cores each). A run
that has finished is not repeated.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from services.launcher.runs.held_out_results import evaluated_steps, read_results
from services.launcher.runs.run_dir import RunDirectory
from services.launcher.settings.plan import RunRequest, make_run_plan
from services.learner.held_out.measure import average_reward, compare
from shared.protocol.figures import RunSummary
from shared.runtime.config import preset_names

TOKENS = 300_000
"""Half of the demo's budget."""
WIDE = 32
"""A tree of more answers takes so much of that budget that few steps are left: such a method has all of the demo's."""
HEAD = "| preset | lr | avg@8 before | after | difference | steps | tokens |\n" + "|---" * 7 + "|"


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a preset made of the demo's model, over the same held-out problems before and after."""

    preset: str
    lr: float
    summary: RunSummary
    change: float
    """Of avg@8."""
    error: float
    """The standard error of the change over problems (P-5)."""

    @property
    def is_sure(self) -> bool:
        """Whether accuracy rose by more than three standard errors."""
        return self.change > 3 * self.error

    @property
    def row(self) -> str:
        one = self.summary
        return (
            f"| `{self.preset}` | {self.lr:g} | {one.avg_at_k_before:.3f} | {one.avg_at_k_after:.3f} | "
            f"{self.change:+.3f} ± {self.error:.3f} | {one.steps} | {one.generated_tokens:,} |"
        )


def train_once(runs: Path, preset: str, *settings: str) -> Learnt:
    """A preset's run of the demo's task, which is trained unless it has finished already."""
    plan = make_run_plan(runs, RunRequest(f"{preset}-planned", preset, ("launcher.task=demo", *settings))).learner
    tokens = TOKENS if plan.growth.sampler.num_draws <= WIDE else 2 * TOKENS
    run = RunDirectory(runs / preset)
    if not run.is_finished:
        options = ["--plain", "--fresh", "--run", preset, "--runs", str(runs), "--config", preset, "--task", "demo"]
        given = [f"max_generated_tokens={tokens}", "evaluation.every=0", "replicas=1", *settings]
        command = [sys.executable, "-m", "services.launcher.cli", "train", *options, *given]
        subprocess.run(command, check=True, timeout=3600, stdout=subprocess.DEVNULL)
    return read_learnt(run, preset, plan.optimizer.lr)


def read_learnt(run: RunDirectory, preset: str, lr: float) -> Learnt:
    """What a finished run left."""
    first, *_, last = evaluated_steps(run)
    change = compare(*(read_results(run, step, "heldout") for step in (first, last)), average_reward)
    assert change is not None
    return Learnt(preset, lr, RunSummary.model_validate_json(run.summary.read_bytes()), change.value, change.error)


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=preset_names(), help="names (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs/presets"))
    given = parser.parse_args()
    print(HEAD)
    found = []
    for preset in given.presets:
        found.append(train_once(given.runs, preset))
        print(found[-1].row, flush=True)
    print(f"\n{sum(one.is_sure for one in found)} of {len(found)} rose by more than three standard errors")


if __name__ == "__main__":
    main()
