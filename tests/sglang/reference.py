"""What transformers computes, from nothing and one sequence at a time: the truth that the engines are held to."""

import random
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from services.demo.difficulty import Difficulty
from services.demo.expressions import generate, prompt_of
from services.rollout.vocabulary import Vocabulary

EOS = 1


def prompts(vocabulary: Vocabulary, number: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Different prompts of the demo's task, as token ids."""
    rng = random.Random(seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < number:
        found[vocabulary.encode(prompt_of(generate(rng, Difficulty())))] = None
    return list(found)


@lru_cache
def model_of(directory: Path) -> PreTrainedModel:
    """The model in float32."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def distributions(directory: Path, prefix: tuple[int, ...], new: tuple[int, ...], temperature: float) -> torch.Tensor:
    """The log-probabilities of the whole vocabulary from which each new token was drawn."""
    with torch.no_grad():
        logits = model_of(directory)(torch.tensor([prefix + new])).logits[0, len(prefix) - 1 : -1]
    return (logits / (temperature or 1.0)).log_softmax(-1)


def logprobs(directory: Path, prefix: tuple[int, ...], new: tuple[int, ...], temperature: float = 1.0) -> list[float]:
    """Of the new tokens."""
    found: list[float] = distributions(directory, prefix, new, temperature)[range(len(new)), list(new)].tolist()
    return found


def sampling_logprobs(
    directory: Path, prefix: tuple[int, ...], new: tuple[int, ...], temperature: float, top_k: int, top_p: float
) -> list[float]:
    """Of the new tokens, renormalised over the fewest of the top k that reach top p."""
    found = []
    for row, token in zip(distributions(directory, prefix, new, temperature), new, strict=True):
        probs, order = row.exp().sort(descending=True)
        before = probs.cumsum(0) - probs
        kept = (before < top_p) & (torch.arange(len(probs)) < top_k)
        assert token in order[kept]
        found.append(float(row[token] - probs[kept].sum().log()))
    return found


def greedy(directory: Path, prefix: tuple[int, ...], max_tokens: int) -> tuple[int, ...]:
    """The most likely continuation, token by token."""
    answer: tuple[int, ...] = ()
    with torch.no_grad():
        while len(answer) < max_tokens and answer[-1:] != (EOS,):
            answer += (int(model_of(directory)(torch.tensor([prefix + answer])).logits[0, -1].argmax()),)
    return answer
