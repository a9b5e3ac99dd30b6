"""How often a model answers held-out expressions rightly, by sampling from it.

Shapes: B rows of a batch, T tokens, V vocabulary.
"""

import random
import statistics
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from services.demo.demonstrations import boxed
from services.demo.difficulty import Difficulty
from services.demo.expressions import Expression, evaluate, prompt_of
from services.demo.split import Split, generate_in
from services.demo.tokenizer import EOS_ID, PAD_ID

SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Accuracy:
    """avg@8 and pass@8 over `num_problems` held-out problems, each with its standard error over problems."""

    label: str
    num_problems: int
    average: float
    average_error: float
    passing: float
    passing_error: float


def measure(
    model: Qwen3ForCausalLM, tokenizer: Tokenizer, lengths: tuple[int, ...], num_problems: int, seed: int
) -> list[Accuracy]:
    """The accuracy at each length, then over all of them; `num_problems` of each length, temperature 1."""
    shares_of_length = {
        length: right_shares(model, tokenizer, Difficulty(lengths=(length,)), num_problems, seed) for length in lengths
    }
    every_share = [share for shares in shares_of_length.values() for share in shares]
    rows = [_accuracy(f"length {length}", shares) for length, shares in shares_of_length.items()]
    return [*rows, _accuracy("lengths " + " and ".join(map(str, lengths)), every_share)]


def right_shares(
    model: Qwen3ForCausalLM, tokenizer: Tokenizer, difficulty: Difficulty, num_problems: int, seed: int
) -> list[float]:
    """For each of `num_problems` held-out problems of one length, the share of its samples that are right."""
    rng = random.Random(f"{seed} evaluation")
    expressions = [generate_in(Split.HELD_OUT, rng, difficulty) for _ in range(num_problems)]
    prompts = [tokenizer.encode(prompt_of(expression)).ids for expression in expressions for _ in range(SAMPLES)]
    generator = torch.Generator().manual_seed(seed)
    answers_BT = sample(model, torch.tensor(prompts), difficulty.max_answer_tokens, generator)
    is_right = [
        is_right_answer(tokenizer, answers_BT[row].tolist(), expressions[row // SAMPLES], difficulty.modulus)
        for row in range(len(prompts))
    ]
    return [sum(is_right[first : first + SAMPLES]) / SAMPLES for first in range(0, len(is_right), SAMPLES)]


@torch.inference_mode()
def sample(
    model: Qwen3ForCausalLM, prompt_ids_BT: torch.Tensor, max_tokens: int, generator: torch.Generator
) -> torch.Tensor:
    """Continues prompts of one width at temperature 1; what follows EOS is padding."""
    output = model(input_ids=prompt_ids_BT, use_cache=True)
    is_done_B = torch.zeros(len(prompt_ids_BT), dtype=torch.bool)
    columns = []
    for _ in range(max_tokens):
        probabilities_BV = output.logits[:, -1].softmax(dim=-1)
        next_ids_B = torch.multinomial(probabilities_BV, 1, generator=generator)[:, 0].masked_fill(is_done_B, PAD_ID)
        columns.append(next_ids_B)
        is_done_B |= next_ids_B == EOS_ID
        if is_done_B.all():
            break
        output = model(input_ids=next_ids_B[:, None], cache=output.cache, use_cache=True)
    return torch.stack(columns, dim=1)


def is_right_answer(tokenizer: Tokenizer, answer_ids: list[int], expression: Expression, modulus: int) -> bool:
    """Whether an answer came to its end, with the right digit boxed there."""
    if EOS_ID not in answer_ids:
        return False
    text = tokenizer.decode(answer_ids[: answer_ids.index(EOS_ID)])
    return text.endswith(boxed(str(evaluate(expression, modulus))))


def _accuracy(label: str, shares: list[float]) -> Accuracy:
    passes = [float(share > 0) for share in shares]
    return Accuracy(
        label, len(shares), statistics.fmean(shares), _error(shares), statistics.fmean(passes), _error(passes)
    )


def _error(values: list[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
