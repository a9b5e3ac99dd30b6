"""Which problems are dropped though they can be read: duplicates, and those of a held-out set."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from services.learner.data.prompting import INSTRUCTIONS

_WORD = re.compile(r"\w+")
_MATH_MARKS = re.compile(r"\\(?:left|right|,|!|;|:|quad|qquad|displaystyle)(?![a-zA-Z])|\\[()\[\]]|\$|~")
_SAME_COMMANDS = re.compile(r"\\[dt](?=frac|binom)")
_LOOSE_SPACE = re.compile(r"(?<!\w)\s+|\s+(?!\w)")
_INSTRUCTION = re.compile(
    r"(?:"
    + "|".join(
        (
            *map(re.escape, INSTRUCTIONS.values()),
            r"(?:please |let's )?(?:reason|think) step by step,? and (?:put|output) (?:your|the) final answer "
            r"(?:within|in|inside|after) (?:\\boxed\{\}|\"####\")\.?",
            r"remember to put your answer on its own line after \"answer:\"\.?",
            r"(?:put|give|write|enclose) (?:your|the) final answer (?:within|in|inside) \\boxed\{(?:\.\.\.)?\}\.?",
        )
    )
    + r")\s*\Z",
    re.IGNORECASE,
)
_LONGEST_INSTRUCTION = 250
_BOILERPLATE = 10
"""Held-out problems that share a run of words; from so many on it is a phrase of the set, no problem's own."""


def without_instruction(text: str) -> str:
    """A problem without a usual instruction behind it, by which problems of different sets would look alike."""
    begin = max(0, len(text) - _LONGEST_INSTRUCTION)
    found = _INSTRUCTION.search(text, begin)
    return text[: found.start()] if found else text


def normalize(text: str) -> str:
    """The text by which problems are compared: without marks of formulas, case, and white space that parts no words."""
    plain = _MATH_MARKS.sub("", unicodedata.normalize("NFKC", text)).casefold()
    plain = _SAME_COMMANDS.sub(r"\\", plain)
    return _LOOSE_SPACE.sub("", " ".join(plain.split()))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is compared of a problem, as hashes."""

    normalized: int
    exact: int
    answer: int

    @classmethod
    def of(cls, text: str, answer: str = "") -> "Fingerprint":
        text = without_instruction(text)
        return cls(_hash(normalize(text)), _hash(text) & 0xFFFFFFFF, _hash(answer) & 0xFFFFFFFF)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


class SeenProblems:
    """The problems so far, as hashes: some 150 bytes each."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def find(self, problem: Fingerprint) -> str:
        """Why this problem is one that came before; empty if it is new. It does not count it as seen."""
        known = self._seen.get(problem.normalized)
        if known is None:
            return ""
        if known & 0xFFFFFFFF != problem.answer:
            return "the same problem came before, with another answer"
        is_exact = known >> 32 == problem.exact
        return "the same problem came before" if is_exact else "the same problem came before, written otherwise"

    def add(self, problem: Fingerprint) -> None:
        self._seen.setdefault(problem.normalized, problem.exact << 32 | problem.answer)


class HeldOutIndex:
    """The problems of held-out sets, by which those to train on are checked."""

    def __init__(self) -> None:
        self._texts: list[tuple[str, str]] = []
        self._equal: dict[int, str] = {}
        self._runs: dict[int, dict[int, str]] = {}

    def add(self, name: str, text: str) -> None:
        """A problem of the set of this name."""
        self._texts.append((name, text))
        self._equal.setdefault(Fingerprint.of(text).normalized, name)
        self._runs.clear()

    def find(self, problem: Fingerprint, text: str, num_words: int) -> str:
        """Why a problem counts as held out; empty if it does not."""
        if name := self._equal.get(problem.normalized):
            return f"is in the held-out set {name}"
        if num_words and self._texts:
            runs = self._runs_of(num_words)
            for run in _word_runs(text, num_words):
                if name := runs.get(run):
                    return f"shares {num_words} words in a row with the held-out set {name}"
        return ""

    def _runs_of(self, num_words: int) -> dict[int, str]:
        if num_words not in self._runs:
            found = [(name, set(_word_runs(text, num_words))) for name, text in self._texts]
            counts = Counter(run for _, runs in found for run in runs)
            self._runs[num_words] = {run: name for name, runs in found for run in runs if counts[run] < _BOILERPLATE}
        return self._runs[num_words]


def _word_runs(text: str, num_words: int) -> Iterator[int]:
    """The hashes of all runs of so many words, in lower case, without punctuation and instructions."""
    words = _WORD.findall(without_instruction(text).casefold())
    return (hash(tuple(words[start : start + num_words])) for start in range(len(words) - num_words + 1))
