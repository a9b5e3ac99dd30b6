"""Formats of multiple choice: GPQA, MMLU and its like, ARC."""

import hashlib
import re
import string
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from services.learner.data.formats.base import ConvertedRow, Format, Unusable, first_of, json_of, kept, text_of
from services.learner.data.reading.rows import Row

_KEPT = ("subject", "category", "src", "level", "Subdomain", "High-level domain", "question_id", "Record ID")
_GPQA = ("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_SHUFFLED = "options stand in an order that depends on the row alone"
_SCIQ = ("question", "correct_answer", "distractor1", "distractor2", "distractor3")


def make_choice(question: str, options: Sequence[str], right: int, row: Row) -> ConvertedRow:
    if not 2 <= len(options) <= len(string.ascii_uppercase):
        raise Unusable(f"{len(options)} options; there must be 2 to 26")
    if not 0 <= right < len(options):
        raise Unusable("the answer is none of the options")
    if sum(option == options[right] for option in options) > 1:
        raise Unusable("another option has the text of the right one")
    lines = [f"{letter}. {option}" for letter, option in zip(string.ascii_uppercase, options, strict=False)]
    key = {"gold": string.ascii_uppercase[right], "options": list(options)}
    return ConvertedRow("\n".join((question, "", *lines)), "choice", key, kept(row, *_KEPT))


def _shuffled(right: str, wrong: Sequence[str], question: str) -> tuple[list[str], int]:
    """The options in an order that depends on the row alone, and the place of the right one."""
    options = [right, *wrong]

    def rank(option: str) -> bytes:
        return hashlib.sha256(f"{question}\0{option}".encode()).digest()

    ordered = sorted(options, key=rank)
    return ordered, ordered.index(right)


def _gpqa(row: Row) -> ConvertedRow:
    question, right, *wrong = (text_of(row, name) for name in _GPQA)
    return make_choice(question, *_shuffled(right, wrong, question), row)


def _sciq(row: Row) -> ConvertedRow:
    question, right, *wrong = (text_of(row, name) for name in _SCIQ)
    return make_choice(question, *_shuffled(right, wrong, question), row)


def _has_options(row: Row) -> bool:
    has_question = isinstance(first_of(row, "question", "question_stem"), str)
    listed = first_of(row, "choices", "options", "endings")
    return (has_question and (isinstance(listed, list | dict) or (isinstance(listed, str) and listed[:1] in "[{"))) or (
        has_question and all(isinstance(row.get(letter), str) for letter in "ABCD")
    )


def options_of(listed: Any) -> tuple[list[str], list[str]]:
    """Options in one of their usual forms, and their labels."""
    listed = json_of(listed, "options")
    if isinstance(listed, dict) and "text" in listed:
        texts, labels = list(listed["text"]), [str(label) for label in listed.get("label", ())]
    elif isinstance(listed, dict):
        texts, labels = list(listed.values()), [str(label) for label in listed]
    elif isinstance(listed, list) and all(isinstance(one, dict) and "text" in one for one in listed):
        texts, labels = [one["text"] for one in listed], [str(one.get("label", "")) for one in listed]
    else:
        texts, labels = list(listed or ()), []
    texts = _without_letters([str(text).strip() for text in texts if text is not None and str(text) != "N/A"])
    return texts, labels if len(labels) == len(texts) else list(string.ascii_uppercase[: len(texts)])


def _without_letters(texts: list[str]) -> list[str]:
    """Options without the letters before them, where each has its own: `A) 21`."""
    found = [
        re.match(rf"\(?{one}\s?[).:]\s*(?=\S)", text) for one, text in zip(string.ascii_uppercase, texts, strict=False)
    ]
    if len(found) < len(texts) or not all(found):
        return texts
    return [text[mark.end() :] for text, mark in zip(texts, found, strict=True) if mark]


def right_option(answer: Any, texts: list[str], labels: list[str], first: int = 0) -> int:
    """The place of the right option, which is named by place, by label or by its text; `first` is the first place."""
    if isinstance(answer, bool) or answer is None:
        raise Unusable("no answer")
    if isinstance(answer, int):
        return answer - first
    text = str(answer).strip()
    for known in (labels, [label.upper() for label in labels], texts):
        if text in known:
            return known.index(text)
    stripped = text.strip("().").upper()
    if stripped in labels:
        return labels.index(stripped)
    if text.isdecimal():
        return int(text) - first
    raise Unusable("the answer is none of the options")


def _choice_parts(row: Row) -> tuple[Any, list[str], list[str]]:
    """The answer of a row, its options, and their labels."""
    listed = first_of(row, "choices", "options", "endings")
    if listed is None:
        listed = {letter: row[letter] for letter in string.ascii_uppercase if isinstance(row.get(letter), str)}
    texts, labels = options_of(listed)
    answer = first_of(row, "answer_index", "answer_idx", "answerKey", "answer", "label", "gold", "correct")
    return answer, texts, labels


def _listed_choice(row: Row, first: int = 0) -> ConvertedRow:
    answer, texts, labels = _choice_parts(row)
    right = right_option(answer, texts, labels, first)
    return make_choice(text_of(row, "question", "question_stem"), texts, right, row)


def _place_of(row: Row) -> tuple[int, int]:
    """Which place from 0 on a row's answer names, and how many options there are; Unusable for what is no choice."""
    answer, texts, labels = _choice_parts(row)
    return right_option(answer, texts, labels), len(texts)


def numbered(form: Format, rows: Sequence[Row]) -> Format:
    """The format that reads a set whose answers count from 1: some are as large as there are options, none is 0."""
    if form.convert is not _listed_choice:
        return form
    places = []
    for row in rows:
        with suppress(Unusable):
            places.append(_place_of(row))
    if any(place == 0 for place, _ in places) or not any(place == size for place, size in places):
        return form
    return replace(
        form, convert=lambda row: _listed_choice(row, first=1), note="its answers are numbers that count from 1"
    )


CHOICE_FORMATS = (
    Format(
        "gpqa",
        "Idavidrein/gpqa",
        "Question; Correct Answer; Incorrect Answer 1 to 3, in an order of the row's own",
        lambda row: all(name in row for name in _GPQA),
        _gpqa,
        note=_SHUFFLED,
    ),
    Format(
        "mmlu",
        "cais/mmlu, TIGER-Lab/MMLU-Pro, ai2_arc, CommonsenseQA, MedQA",
        "question; choices or options, or A to D; answer, answer_index or answerKey",
        _has_options,
        _listed_choice,
    ),
    Format(
        "sciq",
        "allenai/sciq",
        "question; correct_answer; distractor1 to 3, in an order of the row's own",
        lambda row: all(name in row for name in _SCIQ),
        _sciq,
        note=_SHUFFLED,
    ),
)
