"""The command that trains, measures and writes a starting policy."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from services.demo.tokenizer import build_tokenizer, write_tokenizer
from services.demo.warm_start.evaluation import measure
from services.demo.warm_start.model_card import accuracy_table, model_card
from services.demo.warm_start.training import LossReport, Recipe, new_model, train

_EVALUATION_SEED = 1_000_003  # the same for all models, so that they answer the same problems


def main(words: Sequence[str] | None = None) -> None:
    """Writes a checkpoint directory in Hugging Face layout, with a README.md. `words`: the command's arguments."""
    arguments = _parser().parse_args(words)
    torch.set_num_threads(1)  # more threads would add in another order and give other weights
    recipe, output = Recipe(steps=arguments.steps), Path(arguments.output)
    tokenizer, model = build_tokenizer(), new_model(arguments.seed)
    train(model, tokenizer, recipe, arguments.seed, _print_progress)
    output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output)
    write_tokenizer(output)
    accuracies = measure(model, tokenizer, tuple(arguments.lengths), arguments.problems, _EVALUATION_SEED)
    card = model_card(recipe, arguments.seed, model.num_parameters(), accuracies)
    (output / "README.md").write_text(card, encoding="utf-8")
    print(accuracy_table(accuracies), end="")
    print(f"written to {output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.demo.warm_start",
        description="Trains the demo's starting policy on noisy demonstrations, measures it and writes it.",
    )
    parser.add_argument("--output", required=True, help="directory to write, made if missing")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the demonstrations (default 0)")
    parser.add_argument("--steps", type=int, default=Recipe().steps, help="training steps (default %(default)s)")
    parser.add_argument("--problems", type=int, default=512, help="held-out problems a length (default %(default)s)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[5, 6], help="lengths measured (default 5 6)")
    return parser


def _print_progress(progress: LossReport) -> None:
    print(f"step {progress.step:5d}  loss {progress.loss:.4f}  {progress.cpu_seconds:5.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
