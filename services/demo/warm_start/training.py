"""Supervised training on noisy demonstrations.

Shapes: B rows of a batch, T tokens.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from services.demo.demonstrations import Noise, demonstrate
from services.demo.difficulty import Difficulty
from services.demo.expressions import prompt_of
from services.demo.model import generation_config, model_config
from services.demo.split import Split, generate_in
from services.demo.tokenizer import EOS_ID, PAD_ID

_IGNORED_LABEL = -100  # the model's loss skips it


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to train on, and how. It counts steps, not seconds, so that a seed gives the same model again."""

    steps: int = 950
    batch_size: int = 64
    learning_rate: float = 4e-3
    warmup_steps: int = 50
    final_share: float = 0.1
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    noise: Noise = field(default_factory=Noise)
    difficulty: Difficulty = field(default_factory=lambda: Difficulty(lengths=(2, 3, 4, 5)))

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size are positive: {self.steps}, {self.batch_size}")

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to `final_share` of the peak."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.learning_rate * (self.final_share + (1.0 - self.final_share) * cosine)


@dataclass(frozen=True, slots=True)
class LossReport:
    """Progress after `step` steps; `loss` is the mean since the last report, in nats per token."""

    step: int
    loss: float
    cpu_seconds: float


def new_model(seed: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(model_config())
    model.generation_config = generation_config()
    return model


def train(
    model: Qwen3ForCausalLM, tokenizer: Tokenizer, recipe: Recipe, seed: int, report: Callable[[LossReport], None]
) -> None:
    """Trains the model in place; reports every 100 steps and at the end."""
    rng = random.Random(f"{seed} demonstrations")
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=recipe.weight_decay, betas=(0.9, 0.95))
    started, losses = time.process_time(), []
    model.train()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        input_ids_BT, labels_BT = make_batch(tokenizer, recipe, rng)
        loss = model(input_ids=input_ids_BT, labels=labels_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
            report(LossReport(step + 1, sum(losses) / len(losses), time.process_time() - started))
            losses.clear()
    model.eval()


def make_batch(tokenizer: Tokenizer, recipe: Recipe, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """New demonstrations of train expressions, padded on the right; their labels ignore prompts and padding."""
    rows, labels = [], []
    for _ in range(recipe.batch_size):
        expression = generate_in(Split.TRAIN, rng, recipe.difficulty)
        answer = demonstrate(expression, recipe.difficulty.modulus, recipe.noise, rng)
        prompt_ids = tokenizer.encode(prompt_of(expression)).ids
        answer_ids = [*tokenizer.encode(answer).ids, EOS_ID]
        rows.append(prompt_ids + answer_ids)
        labels.append([_IGNORED_LABEL] * len(prompt_ids) + answer_ids)
    return _pad(rows, PAD_ID), _pad(labels, _IGNORED_LABEL)


def _pad(rows: list[list[int]], filler: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])
