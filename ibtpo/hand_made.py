"""Makes a tree of answers that are only texts: every distinct step is a token."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise
from numbers import Real
from typing import TypeAlias

from services.launcher.runs.model_files import TokenTable
from shared.errors import InvalidInput
from shared.protocol.task import MAX_DRAWS, Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.samplers import IndependentSampler
from shared.tree.segmentation import Segmenter

Steps: TypeAlias = tuple[str, ...]
_BYTES = Segmenter([bytes([byte]) for byte in range(256)], frozenset())


def make_tree(
    answers: Sequence[str | Sequence[str]],
    rewards: Sequence[float | None],
    prompt: str,
    logprobs: Sequence[Sequence[float]] | None,
) -> tuple[ScoredTree, TokenTable]:
    """The tree, in which equal beginnings are shared, and its tokens. InvalidInput for what is no tree."""
    steps = [_split(answer, number) for number, answer in enumerate(answers, 1)]
    if not 1 <= len(steps) <= MAX_DRAWS:
        raise InvalidInput(f"a tree has 1 to {MAX_DRAWS} answers, not {len(steps)}")
    if len(rewards) != len(steps):
        raise InvalidInput(
            f"answers: {len(steps)}, rewards: {len(rewards)}; give one reward for each answer, or None for it"
        )
    of_steps = _shares(steps) if logprobs is None else [tuple(map(float, one)) for one in logprobs]
    if list(map(len, of_steps)) != list(map(len, steps)):
        raise InvalidInput(f"the answers have {[*map(len, steps)]} steps, and logprobs {[*map(len, of_steps)]} numbers")
    token_of = {
        text: token for token, text in enumerate(dict.fromkeys([prompt, *(one for each in steps for one in each)]))
    }
    draws = tuple(
        _draw([token_of[step] for step in each], of_each, _check_reward(reward))
        for each, of_each, reward in zip(steps, of_steps, rewards, strict=True)
    )
    growth = Growth(
        sampler=IndependentSampler(initial_draws=len(draws)), merge_equal_draws=True, max_tokens=max(map(len, steps))
    )
    task = Task(run="", id="0-0", problem_id="given", prompt_ids=(0,), kind="", answer_key={}, growth=growth, seed=0)
    tokens = TokenTable(tuple(text.encode("utf-8", "replace") for text in token_of), frozenset(), ends_are_text=True)
    return ScoredTree(task=task, replica="", draws=draws, usage=TreeUsage()), tokens


def _split(answer: str | Sequence[str], number: int) -> Steps:
    """The texts of its steps, which end at blank lines as those of any answer do."""
    if isinstance(answer, str):
        data = answer.encode("utf-8", "replace")
        ends = _BYTES.step_ends((), data) if data else ()
        answer = [data[start:end].decode("utf-8", "replace") for start, end in pairwise((0, *ends))]
    steps = tuple(answer)
    if not steps or not all(isinstance(step, str) and step for step in steps):
        raise InvalidInput(f"answer {number} is {answer!r}: an answer is a text, or the texts of its steps")
    return steps


def _shares(steps: Sequence[Steps]) -> list[tuple[float, ...]]:
    """Of every step, log of the share of the answers that came to it which took it."""
    prefixes = [[each[:length] for length in range(len(each) + 1)] for each in steps]
    counts = Counter(prefix for each in prefixes for prefix in each)
    return [tuple(math.log(counts[b] / counts[a]) for a, b in pairwise(each)) for each in prefixes]


def _draw(token_ids: Sequence[int], logprobs: tuple[float, ...], reward: float | None) -> Draw:
    num_tokens = len(token_ids)
    ends = tuple(accumulate([1] * num_tokens))
    spans = (VersionSpan(WeightVersion(0, 0), 0, num_tokens),)
    return Draw(None, 0, tuple(token_ids), logprobs, ends, spans, Finish.STOP, reward)


def _check_reward(reward: object) -> float | None:
    if reward is None:
        return None
    if isinstance(reward, Real) and 0 <= (value := float(reward)) <= 1:
        return value
    raise InvalidInput(f"a reward lies in [0, 1], or is None where nothing is known: {reward!r}")
