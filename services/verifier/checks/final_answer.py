r"""Extracts a response's final answer: what follows its last thinking part states, in the ways that are looked for.

All of this is linear in the response, and only its last `_MAX_CHARACTERS` are read.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from services.verifier.checks.boxes import find_boxes, is_denied, is_percent, unwrap
from services.verifier.checks.statements import (
    Statement,
    find_statements,
    find_tags,
    last_sentence,
    last_statements,
)
from services.verifier.config import Extraction
from shared.protocol.thought import strip_thinking

_MAX_CHARACTERS = 1 << 18
_NUMBER_CHARACTERS = 1 << 14
_NEAR = 32
_NUMBER = re.compile(
    r"(?<![\w.,])(?:\\?\$)?[-+−]?(?:\\?\$)?(?:[0-9]{1,3}(?:,[0-9]{3})++|[0-9]++)(?:\.[0-9]++)?(?:/[0-9]++)?+(?:\\?%)?"
)
# A number is part of something larger behind "3 +", "3 or", "\frac{" and before "x", "^2", "= y".
_EMPHASIS = re.compile(r"(?:\*\*(?![\w(])|(?<![\w)])\*\*|__|`|\"|\$|\\[()\[\]])+")
_BOX_BEFORE = re.compile(r"\\(?:boxed|fbox)\s?\{\Z")
_GOES_ON_BEFORE = re.compile(
    r"(?:[-+−±*/×·÷^_<>≤≥≠,{(\[:~≈|\\0-9]|\\[a-zA-Z]{1,16}|\b(?:or|and|to|not|than|of|about|roughly|approximately|least|most|but|except|minus|negative|plus|times"
    r"|over)\b)\s*\Z",
    re.IGNORECASE,
)
_GOES_ON_BEHIND = re.compile(
    r"\s*(?:[-+−±*/×·÷^_<>≤≥≠=~≈|:{\[!?]|\\[a-zA-Z]|\.?[0-9]|(?:or|and|to|times|plus|minus)\b\s*\$?[-0-9a-z]\b|[b-zB-Z](?![\w'’]))|[\w(}]"
)
_SCALE = re.compile(
    r"\s+(?:hundred|thousand|million|billion|trillion|dozen|percent|pct|squared|cubed|factorial|half|halves|thirds?|quarters?"
    r"|fourths?|fifths?|tenths?|hundredths?|thousandths?|choose|mod|in (?:binary|base|hex))\b"
)
_REASON = re.compile(
    r",?\s(?:because|since|which(?!\s(?:is|was)\s(?:not|wrong|incorrect|false|impossible))|denn|weil|car|porque)\b|[,，]?\s?因为"
)
_COPULA = re.compile(r"\s?(?:입니다|이다|です|である|だ)\Z")
DEFAULT: tuple[Extraction, ...] = ("box", "hashes")


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    r"""The texts in which a response states its answer.

    `stated`: the distinct ones of the last sentence that has any; several are alternatives, or a list of values. Empty
    if an answer was begun and not given, or taken back.
    `boxes`: all distinct ones; they count only if the gold has as many values.
    `end`: where the last one ends.
    `without_percent`: what the only stated box holds itself, if a percent sign behind it is taken along in `stated`.
    """

    stated: tuple[str, ...]
    boxes: tuple[str, ...]
    without_percent: str | None = None
    end: int = field(default=0, compare=False)


_NOT_GIVEN = FinalAnswer((), ())


def extract_final_answer(
    response: str, max_characters: int, extraction: Sequence[Extraction] = DEFAULT
) -> FinalAnswer | None:
    """What the first of these ways finds; None if none finds anything.

    None also if the last statement is empty, never closes, or is longer than `max_characters`.
    """
    text = strip_thinking(response)
    if text is None:
        return None
    for way in extraction:
        found = find_final_answer(text, max_characters, way)
        if found is not None:
            return found if found.stated else None
    return None


def find_final_answer(text: str, max_characters: int, way: Extraction) -> FinalAnswer | None:
    """What is stated in this way; None if nothing is, an answer without texts if it is not given or taken back."""
    start = max(0, len(text) - _MAX_CHARACTERS)
    found = _FINDERS[way](text[start:], max_characters)
    return replace(found, end=found.end + start) if found and start else found


def _find_in_boxes(text: str, max_characters: int) -> FinalAnswer | None:
    boxes = _find_stated_boxes(text, max_characters)
    if boxes is None:
        return None
    return _join_boxes(text, last_sentence(text, boxes), boxes) if boxes else _NOT_GIVEN


def _find_in_last_box(text: str, max_characters: int) -> FinalAnswer | None:
    boxes = _find_stated_boxes(text, max_characters)
    if boxes is None:
        return None
    return _join_boxes(text, boxes[-1:], boxes[-1:]) if boxes else _NOT_GIVEN


def _find_stated_boxes(text: str, max_characters: int) -> list[Statement] | None:
    """The boxes that are not denied; none if the last one is empty or broken; None if the text has no box."""
    boxes = find_boxes(text, max_characters)
    if boxes is None or (boxes and not boxes[-1].text):
        return []
    return [box for box in boxes if not is_denied(text, box)] if boxes else None


def _find_after_hashes(text: str, max_characters: int) -> FinalAnswer | None:
    """The answer of a last line `#### 18`, as in GSM8K's reference solutions."""
    at = text.rfind("####")
    if at < 0 or (at > 0 and text[at - 1] != "\n"):
        return None
    line = text[at + 4 :].strip()
    return None if not line or "\n" in line else _find_whole(line, max_characters)


def _find_in_tags(text: str, max_characters: int) -> FinalAnswer | None:
    return _read_last(text, find_tags(text), max_characters)


def _find_in_words(text: str, max_characters: int) -> FinalAnswer | None:
    statements = [statement._replace(text=_trim(statement.text)) for statement in find_statements(text)]
    return _read_last(text, statements, max_characters)


def _find_last_line(text: str, max_characters: int) -> FinalAnswer | None:
    return _find_whole(text.rstrip().rpartition("\n")[2], max_characters)


def _find_whole(text: str, max_characters: int) -> FinalAnswer | None:
    line = text.strip()
    return _join([Statement(0, len(text), line)]) if 0 < len(line) <= max_characters else None


def _find_last_number(text: str, max_characters: int) -> FinalAnswer | None:
    """The last number, if it stands alone: `2` of `x^2`, of `2x` or of `\frac{1}{2}` is none, nor is one of a list."""
    start = max(0, len(text) - _NUMBER_CHARACTERS)
    last = max(_NUMBER.finditer(text, start), key=lambda number: number.start(), default=None)
    if last is None:
        return None
    before, behind = text[max(0, last.start() - _NEAR) : last.start()], text[last.end() : last.end() + _NEAR]
    if _BOX_BEFORE.search(before) and behind.startswith("}"):
        before, behind = _BOX_BEFORE.sub("", before), behind[1:]
    before, behind = _EMPHASIS.sub(" ", before), _EMPHASIS.sub(" ", behind)
    if len(last[0]) > max_characters or _GOES_ON_BEFORE.search(before) or _GOES_ON_BEHIND.match(behind):
        return _NOT_GIVEN
    scale = _SCALE.match(behind)
    return _join([Statement(last.start(), last.end(), last[0] + (scale[0] if scale else ""))])


def _read_last(text: str, statements: Sequence[Statement], max_characters: int) -> FinalAnswer | None:
    """What the last of these statements say, with what stands in boxes in them."""
    if not statements:
        return None
    last = last_statements(text, statements)
    if not last or not last[-1].text or any(len(statement.text) > max_characters for statement in last):
        return _NOT_GIVEN
    return _join([statement._replace(text=unwrap(statement.text)) for statement in last])


def _join_boxes(text: str, last: Sequence[Statement], boxes: Sequence[Statement]) -> FinalAnswer:
    found = _join(last, boxes)
    if len(found.stated) == 1 and is_percent(text, boxes[-1].end):
        return replace(found, without_percent=found.stated[0].removesuffix("\\%"))
    return found


def _join(last: Sequence[Statement], all_of_them: Sequence[Statement] | None = None) -> FinalAnswer:
    stated = _texts(last)
    boxes = _texts(all_of_them) if all_of_them and len(all_of_them) > len(last) else stated
    return FinalAnswer(stated, boxes, end=last[-1].end)


def _texts(statements: Sequence[Statement]) -> tuple[str, ...]:
    if len(statements) == 1:
        return (statements[0].text,) if statements[0].text else ()
    return tuple(dict.fromkeys(statement.text for statement in statements if statement.text))


def _trim(text: str) -> str:
    """What a sentence states, without its reasons, its emphasis and its full stop."""
    reason = _REASON.search(text)
    stated = text[: reason.start()] if reason else text
    return _COPULA.sub("", stated.strip(' \t\n\r*_`"“”')).rstrip(" \t.,;:*_`")


_FINDERS: dict[Extraction, Callable[[str, int], FinalAnswer | None]] = {
    "box": _find_in_boxes,
    "last_box": _find_in_last_box,
    "hashes": _find_after_hashes,
    "answer_tag": _find_in_tags,
    "answer_is": _find_in_words,
    "last_number": _find_last_number,
    "last_line": _find_last_line,
    "response": _find_whole,
}
