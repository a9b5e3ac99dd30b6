"""Finds the program in a model's answer."""

import ast
import re
import warnings
from dataclasses import dataclass
from enum import Enum

from services.verifier.checks.final_answer import strip_thinking

# Parsing is the only work here that is not a glance: later and smaller blocks first, and no more than these.
_MAX_BLOCKS = 8
_MAX_PARSED_CHARACTERS = 65_536
_OPENING = re.compile(r"^(?P<indent> {0,3})(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)[^\n`]*$")


class Language(Enum):
    """A language that answers are written in; its values are the names that fences give it."""

    PYTHON = frozenset({"python", "py", "python3", "py3"})
    JAVASCRIPT = frozenset({"javascript", "js", "node", "nodejs"})


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A fenced block: its language in lower case ("" when it names none) and its text."""

    language: str
    text: str


def find_program(response: str, entry_point: str | None = None, language: Language = Language.PYTHON) -> str:
    """The program of a response, "" when there is none.

    What follows the last `</think>` counts (nothing does while the response still thinks). Without a fenced block,
    that is all of it. With blocks, it is the last one of the best kind: it parses and defines the entry point, it
    parses, it is of the language or of none, any. A response that is a program as it stands (with fences inside its
    strings) is taken whole. Of another language than Python, what a fence names stands for parsing.
    """
    answer = strip_thinking(response) or ""
    blocks = find_code_blocks(answer)
    if not blocks or (language is Language.PYTHON and _parses(answer)):
        return answer.strip("\n")
    best, best_grade = "", -1
    for block in blocks[: -_MAX_BLOCKS - 1 : -1]:
        grade = _plausibility(block, entry_point, language)
        if grade > best_grade:
            best, best_grade = block.text, grade
        if grade == _BEST:
            break
    return best


def find_code_blocks(text: str) -> list[CodeBlock]:
    """The fenced blocks that hold something, in order; an unclosed one reaches to the end (the answer was cut)."""
    blocks: list[CodeBlock] = []
    opening: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.split("\n"):
        bare = line.rstrip("\r")
        if opening is None:
            opening = _OPENING.match(bare)
            lines = []
        elif _closes(bare, opening["fence"]):
            blocks.append(CodeBlock(opening["language"].lower(), "\n".join(lines)))
            opening = None
        else:
            lines.append(_unindented(line, len(opening["indent"])))
    if opening is not None:
        blocks.append(CodeBlock(opening["language"].lower(), "\n".join(lines)))
    return [block for block in blocks if block.text.strip()]


def _closes(line: str, fence: str) -> bool:
    stripped = line.strip(" \t")
    indent = len(line) - len(line.lstrip(" "))
    return indent <= 3 and len(stripped) >= len(fence) and set(stripped) == {fence[0]}


def _unindented(line: str, width: int) -> str:
    return line[width:] if line[:width].isspace() else line


_BEST = 3


def _plausibility(block: CodeBlock, entry_point: str | None, language: Language) -> int:
    is_of_language = block.language in language.value or not block.language
    parses = is_of_language and (_parses(block.text) if language is Language.PYTHON else bool(block.language))
    defines = parses and (entry_point is None or _defines(block.text, entry_point))
    return is_of_language + parses + defines


def _defines(text: str, name: str) -> bool:
    word = re.escape(name)
    return re.search(rf"^[ \t]*(?:(?:async[ \t]+)?def|class)[ \t]+{word}\b|^{word}[ \t]*=", text, re.M) is not None


def _parses(text: str) -> bool:
    if len(text) > _MAX_PARSED_CHARACTERS:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True
