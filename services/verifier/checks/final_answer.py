r"""Extracts a response's final answer: the boxes after its last thinking part.

All of this is linear in the response; only the last `_MAX_BOXES` boxes in the last `_MAX_CHARACTERS` are read.
"""

import re
from dataclasses import dataclass

from shared.protocol.thought import strip_thinking

_MAX_BOXES = 64
_MAX_CHARACTERS = 1 << 18
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE = re.compile(r"[-+]?[0-9A-Za-z]+(?:\.[0-9]+)?")
_PERCENT = re.compile(r"\s{0,8}\$?\s{0,8}(?:\\?%|percent\b|pct\b)")
_SENTENCE_END = re.compile(r"[.!?]\s*\$?\s+\S|\n\s*\n|[.!?]\**\s*\n")
_WORD = re.compile(r"[^\W\d_]")
_MAX_GAP_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    r"""The contents of a response's boxes.

    `stated`: the distinct boxes of the last sentence that has any; several are alternatives, or a list of values.
    `boxes`: all distinct boxes; they count only if the gold has as many values.
    `without_percent`: what the only stated box holds itself, if a percent sign behind it is taken along in `stated`.
    """

    stated: tuple[str, ...]
    boxes: tuple[str, ...]
    without_percent: str | None = None


def extract_final_answer(response: str, max_characters: int) -> FinalAnswer | None:
    r"""The boxes of `response`, or else its last line `#### 18`; None if it has neither.

    None also if the last box is empty, never closes, or is longer than `max_characters`.
    """
    text = strip_thinking(response)
    if text is None:
        return None
    text = text[-_MAX_CHARACTERS:]
    spans = _find_boxes(text, max_characters)
    if spans is None:
        return None
    if not spans:
        return _extract_after_hashes(text, max_characters)
    contents = [_read_content(text, start, end) for _, start, end in spans]
    if not contents[-1]:
        return None
    first = len(spans) - 1
    while first > 0 and _is_same_sentence(text[spans[first - 1][2] + 1 : spans[first][0]]):
        first -= 1
    stated = _deduplicate(contents[first:])
    percent_behind = len(stated) == 1 and _PERCENT.match(text, spans[-1][2] + 1) is not None
    return FinalAnswer(stated, _deduplicate(contents), stated[0].removesuffix("\\%") if percent_behind else None)


def _find_boxes(text: str, max_characters: int) -> list[tuple[int, int, int]] | None:
    """(start of the command, start and end of the content) of each outermost box; None if the last one is broken."""
    spans: list[tuple[int, int, int]] = []
    limit = len(text)
    for _ in range(_MAX_BOXES):
        at = max(text.rfind("\\boxed", 0, limit), text.rfind("\\fbox", 0, limit))
        if at < 0:
            break
        limit = at
        command = _BOX.match(text, at)
        if command is None:
            continue
        span = _find_content(text, command.end(), max_characters)
        if span is None:
            if not spans:
                return None
            continue
        while spans and spans[-1][0] < span[1]:  # it encloses the boxes found so far
            spans.pop()
        spans.append((at, *span))
    spans.reverse()
    return spans


def _find_content(text: str, start: int, max_characters: int) -> tuple[int, int] | None:
    """Start and end of what stands in braces, or of a bare token; None if it is longer than `max_characters`."""
    if text[start : start + 1] != "{":
        bare = _BARE.match(text, start, start + max_characters)
        return (start, bare.end()) if bare else None
    depth = 0
    for brace in _BRACE.finditer(text, start, start + max_characters + 2):
        if brace[0] == "{":
            depth += 1
        elif brace[0] == "}":
            depth -= 1
            if depth == 0:
                return start + 1, brace.start()
    return None


def _read_content(text: str, start: int, end: int) -> str:
    content = text[start:end].strip()
    inner = _BOX.match(content)
    if inner is not None:  # a box around a box
        span = _find_content(content, inner.end(), len(content))
        content = content[span[0] : span[1]].strip() if span else content
    if content and _PERCENT.match(text, end + 1):
        return content + "\\%"
    return content


def _is_same_sentence(between: str) -> bool:
    """Whether two boxes with this text between them stand in one sentence."""
    if len(between) > _MAX_GAP_CHARACTERS:
        return False
    return _SENTENCE_END.search(between) is None or _WORD.search(between.replace("\\quad", "")) is None


def _deduplicate(contents: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(content for content in contents if content))


def _extract_after_hashes(text: str, max_characters: int) -> FinalAnswer | None:
    """The answer of a last line `#### 18`, as in GSM8K's reference solutions."""
    at = text.rfind("####")
    if at < 0 or (at > 0 and text[at - 1] != "\n"):
        return None
    line = text[at + 4 :].strip()
    if not line or "\n" in line or len(line) > max_characters:
        return None
    return FinalAnswer((line,), (line,))
