r"""Where a response says its final answer: the boxes after its last thinking part.

Everything here is linear in the response and looks at no more than `_MOST_BOXES` boxes, counted from the end.
"""

import re
from dataclasses import dataclass

_THINK, _THOUGHT = "<think>", "</think>"
_MOST_BOXES = 64
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE = re.compile(r"[-+]?[0-9A-Za-z]+(?:\.[0-9]+)?")
_PERCENT = re.compile(r"\s*\$?\s*(?:\\?%|percent\b|pct\b)")
_SENTENCE_END = re.compile(r"[.!?]\s*\$?\s+\S|\n\s*\n|[.!?]\**\s*\n")
_WORD = re.compile(r"[^\W\d_]")
_FAR_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    r"""The boxes of a response, as written, without the box.

    `stated` are the distinct boxes of the last sentence that has one: more than one are alternatives, or a list of
    values. `boxes` are all distinct boxes, which only a gold of as many values may ask for.
    """

    stated: tuple[str, ...]
    boxes: tuple[str, ...]


def strip_thinking(response: str) -> str | None:
    """What follows the last `</think>`; None when the response is still thinking."""
    closed = response.rfind(_THOUGHT)
    opened = response.find(_THINK, closed + 1 if closed >= 0 else 0)
    if opened >= 0:
        return None
    return response[closed + len(_THOUGHT) :] if closed >= 0 else response


def extract_final_answer(response: str, longest: int) -> FinalAnswer | None:
    r"""The final answer of `response`: its boxes, or the line after a closing `####`; None when it states none.

    A box that never closes, or is longer than `longest` characters, states none; nor does an empty last box.
    """
    text = strip_thinking(response)
    if text is None:
        return None
    spans = _spans(text, longest)
    if spans is None:
        return None
    if not spans:
        return _after_hashes(text, longest)
    contents = [_content(text, start, end) for _, start, end in spans]
    if not contents[-1]:
        return None
    first = len(spans) - 1
    while first > 0 and _belongs_together(text[spans[first - 1][2] + 1 : spans[first][0]]):
        first -= 1
    return FinalAnswer(_distinct(contents[first:]), _distinct(contents))


def _spans(text: str, longest: int) -> list[tuple[int, int, int]] | None:
    """(start of the command, start of the content, its end) of the outermost boxes; None if the last is broken."""
    spans: list[tuple[int, int, int]] = []
    limit = len(text)
    for _ in range(_MOST_BOXES):
        at = max(text.rfind("\\boxed", 0, limit), text.rfind("\\fbox", 0, limit))
        if at < 0:
            break
        limit = at
        command = _BOX.match(text, at)
        if command is None:
            continue
        span = _closed(text, command.end(), longest)
        if span is None:
            if not spans:
                return None
            continue
        while spans and spans[-1][0] < span[1]:  # it encloses the boxes found so far
            spans.pop()
        spans.append((at, *span))
    spans.reverse()
    return spans


def _closed(text: str, start: int, longest: int) -> tuple[int, int] | None:
    """The content's start and end, of braces that close within `longest` characters, or of a bare token."""
    if text[start : start + 1] != "{":
        bare = _BARE.match(text, start, start + longest)
        return (start, bare.end()) if bare else None
    depth = 0
    for brace in _BRACE.finditer(text, start, start + longest + 2):
        if brace[0] == "{":
            depth += 1
        elif brace[0] == "}":
            depth -= 1
            if depth == 0:
                return start + 1, brace.start()
    return None


def _content(text: str, start: int, end: int) -> str:
    content = text[start:end].strip()
    inner = _BOX.match(content)
    if inner is not None:  # a box around a box
        span = _closed(content, inner.end(), len(content))
        content = content[span[0] : span[1]].strip() if span else content
    if content and _PERCENT.match(text, end + 1):
        return content + "\\%"
    return content


def _belongs_together(between: str) -> bool:
    """Whether two boxes with this text between them are one statement."""
    if len(between) > _FAR_CHARACTERS:
        return False
    return _SENTENCE_END.search(between) is None or _WORD.search(between.replace("\\quad", "")) is None


def _distinct(contents: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(content for content in contents if content))


def _after_hashes(text: str, longest: int) -> FinalAnswer | None:
    """The last line's `#### 18`, the form of GSM8K's reference chains."""
    at = text.rfind("####")
    if at < 0 or (at > 0 and text[at - 1] != "\n"):
        return None
    line = text[at + 4 :].strip()
    if not line or "\n" in line or len(line) > longest:
        return None
    return FinalAnswer((line,), (line,))
