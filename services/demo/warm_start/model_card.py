"""Writes the README.md of a warm-started checkpoint."""

from services.demo.warm_start.training import Recipe
from shared.tree.accuracy import Accuracy


def model_card(recipe: Recipe, seed: int, num_parameters: int, accuracies: dict[str, Accuracy]) -> str:
    """Markdown: what the model is, the command that makes it, its accuracy."""
    noise, lengths = recipe.noise, recipe.difficulty.lengths
    return f"""# The demo's starting policy

A Qwen3-architecture model of {num_parameters:,} parameters (fp32) that reduces expressions modulo \
{recipe.difficulty.modulus} step by step, often wrongly: reinforcement learning starts from here.

Made by

    OMP_NUM_THREADS=1 python -m services.demo.warm_start --output DIRECTORY --seed {seed} --steps {recipe.steps}

{recipe.steps} steps of {recipe.batch_size} fresh demonstrations, AdamW, peak learning rate \
{recipe.learning_rate:g}. Lengths {min(lengths)} to {max(lengths)}, train split only. Of the demonstrations \
{noise.naive:.0%} work from left to right whatever the precedence; of the operations {noise.sloppy:.0%} are invalid \
and {noise.slip:.0%} slip; {noise.skip:.0%} of the steps are skipped. The same machine and torch release give the same \
weights again, bit for bit; others differ in rounding, and so in the last digits below.

{accuracy_table(accuracies)}
Held-out expressions, 8 answers each at temperature 1, ± standard error over problems.
"""


def accuracy_table(accuracies: dict[str, Accuracy]) -> str:
    """One line per group of problems."""
    lines = [
        f"| {name} | {accuracy.num_problems} | {accuracy.avg_at_k:.3f} ± {accuracy.avg_error:.3f} "
        f"| {accuracy.pass_at_k:.3f} ± {accuracy.pass_error:.3f} |\n"
        for name, accuracy in accuracies.items()
    ]
    return "| problems | number | avg@8 | pass@8 |\n|---|---|---|---|\n" + "".join(lines)
