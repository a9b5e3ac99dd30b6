"""Multiple choice: which letters a response chooses."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from services.verifier.checks.check import AnswerKey, Case, Judgement, TextCheck, read_key
from services.verifier.checks.choice_letters import MAX_CHARACTERS, find_claims, is_refuted, normalize, read_letters
from services.verifier.checks.choice_options import Options
from services.verifier.checks.final_answer import find_final_answer
from services.verifier.checks.statements import (
    READ_CHARACTERS,
    Statement,
    find_statements,
    is_taken_back,
    last_statements,
)
from services.verifier.config import ChoiceConfig, ChoiceExtraction, Ways
from shared.errors import InvalidInput
from shared.protocol.thought import strip_thinking
from shared.protocol.verdict import Outcome, VerdictItem

_RULE = "choice"
_NO_OPTIONS = Options()
_BARE_CHARACTERS = 24
_NOT = re.compile(r"\s*(?:(?:definitely|certainly|clearly)\s)?(?:not|never|nicht|pas|no|не|不是?)\s", re.IGNORECASE)
_NONE = re.compile(r"\s*(?:none|neither|nothing|unclear|unknown)\b|\s*都不", re.IGNORECASE)
_BARE_NEXT = re.compile(r"[.,;]?\s{0,4}[(\[]?[A-Z][)\]]?[.]?\s{0,4}(?:\n|\Z)")
_WORDS = re.compile(r"[^\W\d_]{2}.*[a-z]|[a-z]{2}|[0-9]|[\u0370-\u1fff\u3040-\u9fff\uac00-\ud7af]{2}")
_NAME = re.compile(r"\A(?:the\s)?(?:option|choice|answer)\s", re.IGNORECASE)
# "B. Paris", "B) Paris", "B, because …", but not "C. elegans" or "I, for one, …"
_OPTION = re.compile(r"(?:[(\[][A-Z][)\]]|[A-Z]\)|[A-HJ-Z],)\s|[A-Z][.:]\s(?![a-z])")
_LISTED = re.compile(r"(?<![A-Za-z0-9])[(\[]?[A-Z][.):\]]\s")


OptionText = Annotated[str, Field(max_length=2_000)]


class ChoiceKey(AnswerKey):
    """The right letter, or all right letters, as "A, C" or "AC". `options`: their texts, in order or by letter."""

    gold: str = Field(min_length=1, max_length=64)
    options: tuple[OptionText, ...] | dict[str, OptionText] = Field((), max_length=26)
    extraction: Ways[ChoiceExtraction] | None = None


@dataclass(frozen=True, slots=True)
class Letters:
    """The right letters, and where the chosen ones are looked for."""

    gold: frozenset[str]
    options: Options
    extraction: tuple[ChoiceExtraction, ...]


class ChoiceCheck(TextCheck[Letters]):
    """Right if the response chooses exactly the gold's letters."""

    kind = "choice"

    def __init__(self, config: ChoiceConfig) -> None:
        self._config = config

    def prepare(self, item: VerdictItem) -> Case[Letters]:
        key = read_key(ChoiceKey, item)
        gold = read_letters(normalize(key.gold).strip())
        if not gold:
            raise InvalidInput(f"item {item.id!r}: gold {key.gold!r} is no choice; give letters as 'B' or 'A, C'")
        options = Options.of(key.options)
        if key.options and not gold <= options.letters:
            raise InvalidInput(f"item {item.id!r}: gold {key.gold!r} is none of the {len(key.options)} options")
        return Case(item.response, Letters(gold, options, key.extraction or self._config.extraction), item.limits)

    def judge_text(self, case: Case[Letters]) -> Judgement:
        chosen = find_choice(case.response, case.key.extraction, case.key.options)
        if chosen is None:
            return Judgement(0.0, Outcome.NO_ANSWER, "no letter in a box or tag, behind 'Answer:' or on a line", _RULE)
        if not chosen:
            reason = "the final answer chooses no letter, or takes it back"
            return Judgement(0.0, Outcome.WRONG, reason, _RULE, final_answer="")
        letters = ", ".join(sorted(chosen))
        if chosen == case.key.gold:
            return Judgement(1.0, Outcome.RIGHT, rule=_RULE, final_answer=letters)
        return Judgement(0.0, Outcome.WRONG, f"chose {letters}", _RULE, final_answer=letters)


def find_choice(
    response: str, extraction: Sequence[ChoiceExtraction], options: Options = _NO_OPTIONS
) -> frozenset[str] | None:
    """The letters that a response chooses; none of them if it contradicts itself, None if it does not choose."""
    text = strip_thinking(response)
    if text is None:
        return None
    tail = normalize(text[-READ_CHARACTERS:])
    has_other_mark = False
    for way in extraction:
        if way == "answer_is":
            chosen = _choose_in_words(tail, options)
        elif way == "last_line":
            chosen = _choose_by_lines(tail)
        elif (found := find_final_answer(text, MAX_CHARACTERS, way)) is None:
            continue
        elif not found.stated:
            return None
        else:
            behind = text[max(found.end, len(text) - READ_CHARACTERS) :]
            chosen = _choose_in_marks(found.stated, normalize(behind), options)
            has_other_mark |= chosen is None
        if chosen is not None:
            return chosen
    return frozenset() if has_other_mark else None


def _choose_in_marks(contents: Sequence[str], behind: str, options: Options) -> frozenset[str] | None:
    """What stands in boxes or tags, unless what follows contradicts it; None if it is no letter, but say a value."""
    read = [_read_mark(normalize(content), options) for content in contents]
    if not all(read):
        return frozenset() if any(letters is not None for letters in read) else None
    chosen = frozenset().union(*filter(None, read))
    return frozenset() if _is_contradicted(chosen, behind, options) else chosen


def _read_mark(content: str, options: Options) -> frozenset[str] | None:
    letters = options.read(content.strip())
    return _choose_in_words(content, options) if letters is None else letters


def _choose_in_words(text: str, options: Options) -> frozenset[str] | None:
    """What the last sentence says that states an answer; else the one letter that is called correct."""
    letters_of = _read_statements(text, options)
    if not letters_of:
        return _choose_by_claims(text)
    last = last_statements(text, list(letters_of))
    if not last or not all(letters_of[statement] for statement in last):
        return frozenset()
    chosen = frozenset().union(*(letters_of[statement] for statement in last))
    return frozenset() if _is_contradicted(chosen, text[last[-1].end :], options) else chosen


def _read_statements(text: str, options: Options) -> dict[Statement, frozenset[str]]:
    """The statements that speak of letters, with those that they choose or deny."""
    letters_of: dict[Statement, frozenset[str]] = {}
    for statement in find_statements(text, of_choices=True):
        negation = _NOT.match(statement.text)
        if negation:
            statement = statement._replace(is_denied=True, text=statement.text[negation.end() :])
        letters = options.read(statement.text)
        if letters is None and _NONE.match(statement.text):
            letters = frozenset()
        if letters is not None:
            letters_of[statement] = letters
    return letters_of


def _choose_by_claims(text: str) -> frozenset[str] | None:
    right, wrong = find_claims(text)
    if not right:
        return None
    return right if len(right) == 1 and not right & wrong else frozenset()


def _is_contradicted(chosen: frozenset[str], behind: str, options: Options) -> bool:
    """Whether the text behind the chosen letters takes them back, denies one or states another."""
    if is_refuted(behind) or is_taken_back(behind, 0) or _BARE_NEXT.match(behind):
        return True
    right, wrong = find_claims(behind)
    if not right <= chosen or wrong & chosen:
        return True
    statements = _read_statements(behind, options).items()
    return any(bool(letters & chosen) if it.is_denied else letters != chosen for it, letters in statements)


def _choose_by_lines(text: str) -> frozenset[str] | None:
    """The letters of the first or last line, if it has nothing else, or only the text of its option; no line may have
    others."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        return None
    for is_given in (_is_bare, _is_option):
        if is_given(lines[0]) or is_given(lines[-1]):
            readings = {read_letters(line) for line in set(lines) if is_given(line)} - {None}
            return readings.pop() if len(readings) == 1 else frozenset()
    return None


def _is_bare(line: str) -> bool:
    """Whether a line may be letters without words."""
    return len(line) <= _BARE_CHARACTERS and _WORDS.search(_NAME.sub("", line)) is None


def _is_option(line: str) -> bool:
    """Whether a line begins as an option does: "B. Paris"."""
    return _OPTION.match(line) is not None and len(_LISTED.findall(line)) <= 1
