r"""Finds the boxes of a text: `\boxed{4}`, `\fbox{4}`, `\boxed 4`."""

import re
from collections.abc import Iterator

from services.verifier.checks.statements import Statement, is_negated

_MAX_BOXES = 64
_MAX_DEPTH = 3
_LOOKS = 4  # boxes of the greatest length that are read
_COMMAND = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
_NUMBER_BOX = re.compile(r"\\boxed\{([0-9][0-9.,]{0,40})\}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
# TeX boxes a token that stands without braces. A word behind the command is prose about boxes.
_TOKEN = re.compile(
    r"[-+]?[0-9]++(?:\.[0-9]++)?(?:[^\s$.,;:!?)\]\\]|\\(?:[a-zA-Z]+|%))*+|[A-Za-z](?=[.,;]?\s{0,8}(?:\$|\\[)\]]|\n|\Z))"
)
_PERCENT = re.compile(r"\s{0,8}\$?\s{0,8}(?:\\?%|percent\b|pct\b)")
# "I put it in \boxed{} as you asked"
_PREPOSITION = re.compile(
    r"\b(?:in|into|within|inside|using|with|as|by|of|an?|the|your|required|requested)\s(?:an?\s|the\s)?[`$\"'(]{0,2}\Z",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\s*+(?:\.{3}|…|\\[lc]?dots|(?:your |final |the )*+answer)?\s*+", re.IGNORECASE)
_MAX_PLACEHOLDER = 32
# "\boxed{4} is wrong"
_DENIED_BEHIND = re.compile(
    r"""[\s$)\]\\*]{0,8}
    (?:(?:is|was|would\ be)\ (?:wrong|incorrect|false|not\ (?:the\ )?(?:\w{1,12}\ )?(?:answer|solution|right|correct))
    |(?:is|was)n['’]t\ (?:the\ )?(?:\w{1,12}\ )?(?:answer|solution|right|correct)|不对|是错|错误)""",
    re.IGNORECASE | re.VERBOSE,
)
_DENYING = ("no", "No", "NO", "n't", "ever", "ither", "pas", "nie")
_OPENERS = " \n$*:([\\"
_NEAR = 40
_STYLE = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|quad|qquad)(?![a-zA-Z])|\\[ ,;:!]|[{}$~]")
_WORDS = re.compile(r"[^\W\d_]+|\S")
# What a boxed sentence may say around its inner box; other words and signs may change the value.
_SENTENCE_WORDS = frozenset(
    """the a an final correct right required answer value result solution option choice is are so thus therefore hence
    equals we get obtain have our my and . , : ;""".split()  # noqa: SIM905
)


def find_boxes(text: str, max_characters: int, depth: int = 0) -> list[Statement] | None:
    """The last outermost boxes, at most 64, in order; None if the last one never closes or is too long.

    An empty box states an empty text.
    """
    if depth == 0 and (only := _find_only_box(text, max_characters)) is not None:
        return [only]
    spans: list[tuple[int, int, int]] = []  # of the command and of the content
    budget = _LOOKS * max_characters
    for start in _find_commands(text):
        command = _COMMAND.match(text, start)
        if command is None:
            continue
        opening = command.end()
        is_braced = text.startswith("{", opening)
        end = (_find_brace if is_braced else _find_token)(text, opening, max_characters)
        budget -= max_characters if end is None else end - start
        if end is None and is_braced and not spans:
            return None
        if budget < 0:
            break
        if end is None or (is_braced and _is_mention(text, start, opening + 1, end)):
            continue
        while spans and spans[-1][0] < end:  # it encloses the boxes found so far
            spans.pop()
        spans.append((start, opening + is_braced, end))
    return [_read_box(text, span, depth) for span in reversed(spans)]


def _find_only_box(text: str, max_characters: int) -> Statement | None:
    """The only box of a text if there is a plain number in it, as in most: it is found in a fraction of the time."""
    start = text.find("\\boxed{")
    if start < 0 or text.find("box") != start + 1 or text.find("box", start + 2) >= 0:
        return None
    box = _NUMBER_BOX.match(text, start)
    if box is None or len(box[0]) > max_characters:
        return None
    end = box.end()
    return Statement(start, end, box[1] + "\\%" if is_percent(text, end) else box[1])


def is_denied(text: str, box: Statement) -> bool:
    """Whether the words beside a box say that it is not the answer."""
    before = text[max(0, box.start - _NEAR) : box.start].rstrip(_OPENERS)
    # most sentences hold none of these, and to look for them is quick
    if (not before.isascii() or _may_deny(before)) and is_negated(before):
        return True
    return _DENIED_BEHIND.match(text, box.end) is not None


def _may_deny(before: str) -> bool:
    for word in _DENYING:  # noqa: SIM110 - twice as fast as any()
        if word in before:
            return True
    return False


def is_percent(text: str, end: int) -> bool:
    """Whether a percent sign stands behind the box that ends there."""
    return _PERCENT.match(text, end) is not None


def _find_commands(text: str) -> Iterator[int]:
    r"""Where `\boxed` and `\fbox` stand, the last one first."""
    boxed, fbox = text.rfind("\\boxed"), text.rfind("\\fbox")
    for _ in range(_MAX_BOXES):
        at = max(boxed, fbox)
        if at < 0:
            return
        yield at
        if at == boxed:
            boxed = text.rfind("\\boxed", 0, at)
        else:
            fbox = text.rfind("\\fbox", 0, at)


def _find_brace(text: str, start: int, max_characters: int) -> int | None:
    """Where the brace at `start` closes; None if the content is longer than `max_characters`."""
    depth = 0
    for brace in _BRACE.finditer(text, start, start + max_characters + 2):
        if brace[0] == "{":
            depth += 1
        elif brace[0] == "}":
            depth -= 1
            if depth == 0:
                return brace.start()
    return None


def _find_token(text: str, start: int, max_characters: int) -> int | None:
    """Where a number or a last letter ends that stands without braces."""
    token = _TOKEN.match(text, start)
    return token.end() if token and token.end() - start <= max_characters else None


def _is_mention(text: str, start: int, opening: int, end: int) -> bool:
    """Whether a box is only spoken of, without an answer in it."""
    if end - opening > _MAX_PLACEHOLDER or text[opening].isdigit():
        return False
    if _PLACEHOLDER.fullmatch(text, opening, end) is None:
        return False
    return _PREPOSITION.search(text[max(0, start - _MAX_PLACEHOLDER) : start]) is not None


def _read_box(text: str, span: tuple[int, int, int], depth: int) -> Statement:
    start, opening, end = span
    closing = end + text.startswith("{", opening - 1)
    content = unwrap(text[opening:end].strip(), depth)
    if content and depth == 0 and is_percent(text, closing):
        content += "\\%"
    return Statement(start, closing, content)


def unwrap(content: str, depth: int = 0) -> str:
    r"""The content without the boxes in it: `4` of `\boxed{4}` and of `\text{The answer is }\boxed{4}`."""
    boxes = find_boxes(content, len(content), depth + 1) if depth < _MAX_DEPTH and "box" in content else None
    if not boxes:
        return content
    outside, whole, at = "", "", 0
    for box in boxes:
        before = content[at : box.start]
        outside, whole, at = outside + before, f"{whole}{before} {box.text} ", box.end
    outside += content[at:]
    if _SENTENCE_WORDS.issuperset(_WORDS.findall(_STYLE.sub(" ", outside).lower())):
        return ", ".join(box.text for box in boxes)
    return " ".join((whole + content[at:]).split())
