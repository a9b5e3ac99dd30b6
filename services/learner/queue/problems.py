"""The problems of a run: read from JSON lines, with their prompts as token ids."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from shared.errors import InvalidInput
from shared.files import read_rows
from shared.protocol.task import Problem

Prompt: TypeAlias = str | tuple[dict[str, str], ...]
Encoder: TypeAlias = Callable[[Prompt], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class EncodedProblem:
    """A problem with its prompt as token ids of the policy."""

    id: str
    prompt_ids: tuple[int, ...]
    kind: str
    answer_key: dict[str, Any]
    where: str = ""
    """`file:line`."""


@dataclass(frozen=True, slots=True)
class ProblemLimits:
    """What the policy accepts: token ids below `vocab_size`, prompt and answer within `context_length`."""

    vocab_size: int
    context_length: int
    max_answer_tokens: int


def read_problems(
    paths: Iterable[Path], encode: Encoder, limits: ProblemLimits, at_most: int | None = None
) -> tuple[EncodedProblem, ...]:
    """The rows of the files, or the first `at_most`. InvalidInput names file and line of the first that is unusable."""
    rows = islice(((where, problem) for path in paths for where, problem in read_rows(path, Problem)), at_most)
    problems = tuple(_encode(problem, where, encode, limits) for where, problem in rows)
    if not problems:
        raise InvalidInput(f"no problems in {', '.join(map(str, paths))}: one JSON object per line is expected")
    return problems


def prompt_encoder(tokenizer: Any) -> Encoder:
    """Encodes text as the tokenizer does, and chat messages by its template, up to where the answer begins."""

    def encode(prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, str):
            return tuple(tokenizer(prompt)["input_ids"])
        if tokenizer.chat_template is None:
            raise ValueError("the prompt is chat messages, but the policy's tokenizer has no chat template; give text")
        text = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode


def fingerprint(problems: Sequence[EncodedProblem]) -> str:
    """A hash of the problems: a run can only be resumed on the same ones."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(repr((problem.id, problem.prompt_ids, problem.kind, sorted(problem.answer_key.items()))).encode())
    return digest.hexdigest()[:16]


def _encode(problem: Problem, where: str, encode: Encoder, limits: ProblemLimits) -> EncodedProblem:
    if not problem.kind:
        raise InvalidInput(f"{where}: kind is empty: nobody would judge the answers; give math, code or your own")
    try:
        prompt_ids = encode(problem.prompt)
    except ValueError as error:
        raise InvalidInput(f"{where}: {error}") from error
    if not prompt_ids:
        raise InvalidInput(f"{where}: the prompt of problem {problem.id!r} has no tokens")
    if max(prompt_ids) >= limits.vocab_size:
        raise InvalidInput(
            f"{where}: the tokenizer gives token {max(prompt_ids)}, but the model has {limits.vocab_size} tokens: "
            "take the tokenizer of this model"
        )
    if len(prompt_ids) + limits.max_answer_tokens > limits.context_length:
        raise InvalidInput(
            f"{where}: a prompt of {len(prompt_ids)} tokens and an answer of {limits.max_answer_tokens} exceed the "
            f"policy's context of {limits.context_length}; drop the row or lower growth.max_tokens"
        )
    return EncodedProblem(problem.id, prompt_ids, problem.kind, problem.answer_key, where)
