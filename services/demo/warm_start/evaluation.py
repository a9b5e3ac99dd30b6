"""Measures how often a model answers held-out expressions correctly, by sampling from it.

Shapes: B rows of a batch, T tokens, V vocabulary.
"""

import random
from itertools import chain

import torch
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from services.demo.demonstrations import box
from services.demo.difficulty import Difficulty
from services.demo.expressions import Expression, evaluate, prompt_of
from services.demo.split import Split, generate_in
from services.demo.tokenizer import EOS_ID, PAD_ID
from shared.tree.accuracy import Accuracy, measure_accuracy

SAMPLES = 8


def measure(
    model: Qwen3ForCausalLM, tokenizer: Tokenizer, lengths: tuple[int, ...], num_problems: int, seed: int
) -> dict[str, Accuracy]:
    """The accuracy at each length, then over all of them; `num_problems` of each length, 8 answers, temperature 1."""
    groups = {
        f"length {length}": grade_samples(model, tokenizer, Difficulty(lengths=(length,)), num_problems, seed)
        for length in lengths
    }
    groups["lengths " + " and ".join(map(str, lengths))] = list(chain.from_iterable(groups.values()))
    return {name: accuracy for name, rewards in groups.items() if (accuracy := measure_accuracy(rewards))}


def grade_samples(
    model: Qwen3ForCausalLM, tokenizer: Tokenizer, difficulty: Difficulty, num_problems: int, seed: int
) -> list[list[float]]:
    """For each of `num_problems` held-out problems of one length, the rewards of its 8 samples: 1 right, 0 wrong."""
    rng = random.Random(f"{seed} evaluation")
    expressions = [generate_in(Split.HELD_OUT, rng, difficulty) for _ in range(num_problems)]
    prompts = [tokenizer.encode(prompt_of(expression)).ids for expression in expressions for _ in range(SAMPLES)]
    generator = torch.Generator().manual_seed(seed)
    answers_BT = sample(model, torch.tensor(prompts), difficulty.max_answer_tokens, generator)
    rewards = [
        float(is_right_answer(tokenizer, answers_BT[index].tolist(), expressions[index // SAMPLES], difficulty.modulus))
        for index in range(len(prompts))
    ]
    return [rewards[first : first + SAMPLES] for first in range(0, len(rewards), SAMPLES)]


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
    """Whether an answer is complete and ends with the right digit in the box."""
    if EOS_ID not in answer_ids:
        return False
    text = tokenizer.decode(answer_ids[: answer_ids.index(EOS_ID)])
    return text.endswith(box(str(evaluate(expression, modulus))))
