"""Compares methods on the demo's task at equal tokens: whole runs, several seeds, held-out problems.

    .venv/bin/python -m benchmarks.methods [--seeds 11 12 13] [--runs runs/methods]

trains with every method and seed (about two minutes of two cores each) and prints the table of docs/results/methods.md.
A run that has finished is not repeated.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from shared.protocol.figures import RunSummary

METHODS = {  # name: sampler, advantage
    "IB trees, IB-TPO": ("ib", "ibtpo"),
    "8 independent answers, GRPO": ("independent", "grpo"),
    "IB trees, GRPO on their leaves": ("ib", "grpo"),
}
PROBLEMS = 600
TOKENS = 600_000


def train_once(runs: Path, sampler: str, advantage: str, seed: int, tokens: int) -> RunSummary:
    """The summary of one run, which is trained unless it has finished already."""
    name = f"{sampler}-{advantage}-{seed}"
    path = runs / name / "summary.json"
    if not path.exists():
        settings = {
            "sampler": sampler,
            "advantage": advantage,
            "seed": seed,
            "max_generated_tokens": tokens,
            "launcher.demo.held_out_problems": PROBLEMS,
            "evaluation.problems": PROBLEMS,
            "evaluation.every": 0,  # only before and after
        }
        given = [f"{key}={value}" for key, value in settings.items()]
        options = ["--plain", "--fresh", "--run", name, "--runs", str(runs)]
        command = [sys.executable, "-m", "services.launcher.cli", "demo", *options, *given]
        subprocess.run(command, check=True, timeout=3600, stdout=subprocess.DEVNULL)
    return RunSummary.model_validate_json(path.read_bytes())


def row(method: str, summaries: Sequence[RunSummary]) -> str:
    """One method over its seeds: mean and standard error."""
    after = [summary.avg_at_k_after for summary in summaries]
    error = f"{statistics.stdev(after) / len(after) ** 0.5:.3f}" if len(after) > 1 else "–"
    mean = {
        key: statistics.fmean(getattr(summary, key) for summary in summaries)
        for key in ("pass_at_k_after", "trajectories", "eff_rate", "generated_tokens")
    }
    return (
        f"| {method} | {', '.join(f'{one:.3f}' for one in after)} | {statistics.fmean(after):.3f} ± {error} | "
        f"{mean['pass_at_k_after']:.3f} | {mean['trajectories']:,.0f} | {mean['eff_rate']:.2f} | "
        f"{mean['generated_tokens']:,.0f} |"
    )


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--runs", type=Path, default=Path("runs/methods"))
    parser.add_argument("--tokens", type=int, default=TOKENS, help="generated, of each run (default: %(default)s)")
    given = parser.parse_args()
    print("| method | avg@8 after, by seed | mean ± standard error | pass@8 | trajectories | Eff-Rate | tokens |")
    print("|---|---|---|---|---|---|---|")
    for method, (sampler, advantage) in METHODS.items():
        found = [train_once(given.runs, sampler, advantage, seed, given.tokens) for seed in given.seeds]
        print(row(method, found), flush=True)
    print(f"\nbefore: avg@8 {found[0].avg_at_k_before:.3f} on {PROBLEMS} problems")


if __name__ == "__main__":
    main()
