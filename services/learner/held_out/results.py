"""What was answered to every problem of a held-out set, as a file that an interrupted evaluation goes on with."""

import gzip
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from shared.errors import InvalidInput
from shared.files import atomic_write, atomic_writer, read_json_lines
from shared.protocol.message import Message
from shared.protocol.tree import ScoredTree

_BIG_BYTES = 1 << 20
"""A complete file that is larger is compressed."""


class Header(Message):
    """The first line: of which answers the file is. Answers of another one are of no use to it."""

    set: str
    weights: str
    """What tells the policy from others."""
    settings: dict[str, Any] = Field(default_factory=dict)


class ProblemResult(Message):
    """The answers to one problem: a value for each in every list."""

    id: str
    problem: str
    """A hash of prompt, kind and answer key."""
    rewards: tuple[float | None, ...]
    """None: no verdict. 0 where the limit cut the answer and nobody judged it."""
    answers: tuple[str | None, ...]
    """The final answers, as verdicts have them: empty where none is stated, None where nobody compares them."""
    votes: tuple[int | None, ...]
    """Which answers are the same: those of one number. None: not counted."""
    tokens: tuple[int, ...]
    finish: tuple[str, ...]

    @classmethod
    def of(cls, id: str, problem: str, tree: ScoredTree, votes: tuple[int | None, ...]) -> Self:
        draws = tree.draws
        return cls(
            id=id,
            problem=problem,
            rewards=tuple(draw.counted_reward for draw in draws),
            answers=tuple(draw.final_answer for draw in draws),
            votes=votes,
            tokens=tuple(len(draw.token_ids) for draw in draws),
            finish=tuple(draw.finish.value for draw in draws),
        )

    @property
    def judged(self) -> tuple[float, ...]:
        """The rewards of the answers that count."""
        return tuple(reward for reward in self.rewards if reward is not None)


class ResultsFile:
    """SET.jsonl: a header and a line per problem, written as they are answered; SET.jsonl.gz when it is complete and
    big."""

    def __init__(self, folder: Path, name: str) -> None:
        self._plain = folder / f"{name}.jsonl"
        self._packed = folder / f"{name}.jsonl.gz"

    @property
    def path(self) -> Path:
        return self._packed if self._packed.exists() else self._plain

    def read(self) -> tuple[Header | None, dict[str, ProblemResult]]:
        """The header, None if there is no file or none that can be read, and the results by problem id. A line that is
        broken, as a process leaves that was killed, is left out."""
        lines = self._lines()
        try:
            header = Header.model_validate(next(lines, None))
        except (ValidationError, InvalidInput):
            return None, {}
        results = {}
        for line in lines:
            try:
                result = ProblemResult.model_validate(line)
            except ValidationError:
                continue
            results[result.id] = result
        return header, results

    def begin(self, header: Header, results: Mapping[str, ProblemResult]) -> None:
        """Replaces the file by one of these."""
        self._plain.parent.mkdir(parents=True, exist_ok=True)
        lines = [header.model_dump_json(), *(result.model_dump_json() for result in results.values())]
        atomic_write(self._plain, "".join(f"{line}\n" for line in lines))
        self._packed.unlink(missing_ok=True)

    def append(self, result: ProblemResult) -> None:
        with self._plain.open("a", encoding="utf-8") as file:
            file.write(result.model_dump_json() + "\n")

    def finish(self) -> None:
        """Compresses a big one."""
        if self._plain.exists() and self._plain.stat().st_size > _BIG_BYTES:
            with (
                atomic_writer(self._packed) as packed,
                gzip.open(packed, "wb") as file,
                self._plain.open("rb") as plain,
            ):
                shutil.copyfileobj(plain, file)
            self._plain.unlink()

    def _lines(self) -> Iterator[Any]:
        if self._packed.exists():
            cut = suppress(EOFError, OSError, ValueError, zlib.error)  # then it ends where it can be read
            with cut, gzip.open(self._packed, "rt", encoding="utf-8") as file:
                yield from (json.loads(line) for line in file)
        elif self._plain.exists():
            yield from (line for _, line in read_json_lines(self._plain, broken=[]))


def remove_old(folder: Path, keep: int) -> None:
    """Removes the results of all steps but the first and the last, `keep` in all."""
    steps = sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())
    first = min(keep, 1)
    for step in steps[first : max(first, len(steps) - keep + first)]:
        shutil.rmtree(folder / str(step), ignore_errors=True)


def differences(there: Header, now: Header) -> list[str]:
    """What differs between two headers, each as `k: 8 there, 4 now`."""
    old, new = ({"set": one.set, "model": one.weights} | one.settings for one in (there, now))
    return [
        f"{key}: {old.get(key)} there, {new.get(key)} now"
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
    ]
