"""The problems of a run: read from JSON lines, with their prompts as token ids."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from shared.errors import InvalidInput
from shared.files import read_rows
from shared.protocol.task import Problem
from shared.runtime.logs import event_logger
from shared.weights import Encoder

log = event_logger(__name__)
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class EncodedProblem:
    """A problem with its prompt as token ids of the policy."""

    id: str
    prompt_ids: tuple[int, ...]
    kind: str
    answer_key: dict[str, Any]
    source: str = ""
    """A hash of the prompt as the row has it; a template may render it otherwise on another day."""
    where: str = ""
    """`file:line`."""

    @property
    def file(self) -> str:
        return self.where.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class ProblemLimits:
    """What the policy accepts: token ids below `vocab_size`, prompt and answer within `context_length`."""

    vocab_size: int
    context_length: int
    max_answer_tokens: int

    def refusal(self, problem: EncodedProblem) -> str:
        """Why a problem is too long; empty if it is not."""
        tokens, answer = len(problem.prompt_ids), self.max_answer_tokens
        if tokens + answer <= self.context_length:
            return ""
        return (
            f"a prompt of {tokens} tokens and an answer of {answer} exceed the policy's context of "
            f"{self.context_length}; shorten it or lower growth.max_tokens"
        )


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """The problems of some files, and what is to be said of the rows that were left out."""

    problems: tuple[EncodedProblem, ...] = ()
    note: str = ""


def read_problems(
    paths: Iterable[Path], encode: Encoder, limits: ProblemLimits, at_most: int | None = None
) -> ProblemSet:
    """The rows of the files, or the first `at_most` of each. A row that is too long for the policy is left out.

    InvalidInput names file and line of the first row that is unusable otherwise.
    """
    paths = tuple(paths)
    rows = [(row, limits.refusal(row)) for path in paths for row in _read_file(path, encode, limits, at_most)]
    problems = tuple(problem for problem, reason in rows if not reason)
    too_long = [f"{problem.where}: {reason}" for problem, reason in rows if reason]
    if not problems and too_long:
        raise InvalidInput(f"{too_long[0]} ({len(too_long)} problems, all too long)")
    if not problems:
        raise InvalidInput(f"no problems in {', '.join(map(str, paths))}: one JSON object per line is expected")
    if not too_long:
        return ProblemSet(problems)
    note = f"{len(too_long)} of {len(rows)} problems are left out, the first {too_long[0]}"
    log.warning("problems_left_out", problems=len(too_long), first=too_long[0])
    return ProblemSet(problems, note)


def _read_file(path: Path, encode: Encoder, limits: ProblemLimits, at_most: int | None) -> Iterator[EncodedProblem]:
    """The problems of a file. Columns that a problem has no use for are named in the log."""
    where_of_id: dict[str, str] = {}
    ignored: set[str] = set()
    for where, problem in islice(read_rows(path, Problem), at_most):
        _note_id(problem, where, where_of_id)
        ignored |= (problem.model_extra or {}).keys()
        yield _encode(problem, where, encode, limits)
    if ignored:
        log.info("columns_ignored", file=str(path), columns=sorted(ignored))


def _note_id(problem: Problem, where: str, where_of_id: dict[str, str]) -> None:
    if problem.id in where_of_id:
        raise InvalidInput(
            f"{where}: the id {problem.id!r} is that of {where_of_id[problem.id]}; give every row one of its own"
        )
    where_of_id[problem.id] = where


def check_rows(paths: Iterable[Path]) -> None:
    """InvalidInput that names the rows of all files that cannot be problems of any policy."""
    broken: list[InvalidInput] = []
    for path in paths:
        where_of_id: dict[str, str] = {}
        for where, problem in read_rows(path, Problem, broken=broken):
            try:
                _note_id(problem, where, where_of_id)
            except InvalidInput as error:
                broken.append(error)
        if not where_of_id and not broken:
            broken.append(InvalidInput(f"no problems in {path}: one JSON object per line is expected"))
    if broken:
        more = f"; and {len(broken) - _MOST_NAMED} more" if len(broken) > _MOST_NAMED else ""
        raise InvalidInput("; ".join(map(str, broken[:_MOST_NAMED])) + more)


def fingerprint(problems: Sequence[EncodedProblem]) -> str:
    """A hash of the problems: a run can only be resumed on the same ones."""
    digest = hashlib.sha256()
    for problem in problems:
        prompt, key = problem.source or problem.prompt_ids, sorted(problem.answer_key.items())
        digest.update(repr((problem.id, prompt, problem.kind, key)).encode())
    return digest.hexdigest()[:16]


def _encode(problem: Problem, where: str, encode: Encoder, limits: ProblemLimits) -> EncodedProblem:
    if not problem.kind:
        raise InvalidInput(f"{where}: kind is empty: nobody would judge the answers; give math, code or your own")
    try:
        token_ids = encode(problem.prompt)
    except ValueError as error:
        raise InvalidInput(f"{where}: {error}") from error
    if not token_ids:
        raise InvalidInput(f"{where}: the prompt of problem {problem.id!r} has no tokens")
    if max(token_ids) >= limits.vocab_size:
        raise InvalidInput(
            f"{where}: the tokenizer gives token {max(token_ids)}, but the model has {limits.vocab_size} tokens: "
            "take the tokenizer of this model"
        )
    source = hashlib.sha256(repr(problem.prompt).encode()).hexdigest()[:16]
    return EncodedProblem(problem.id, token_ids, problem.kind, problem.answer_key, source, where)
