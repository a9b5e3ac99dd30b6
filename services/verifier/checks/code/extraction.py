"""Extracts the program from a response."""

import ast
import re
import warnings
from dataclasses import dataclass
from enum import Enum

from shared.protocol.thought import strip_thinking

# Parsing takes time: only the last blocks are parsed, and no long ones.
_MAX_BLOCKS = 8
_MAX_PARSED_CHARACTERS = 65_536
_OPENING = re.compile(r"^(?P<indent> {0,3})(?P<fence>`{3,}+|~{3,}+)[ \t]*+(?P<language>[\w+#.-]*+)[^\n`]*+$")


class Language(Enum):
    """A programming language; the value is the set of its names in fences."""

    PYTHON = frozenset({"python", "py", "python3", "py3"})
    JAVASCRIPT = frozenset({"javascript", "js", "node", "nodejs"})
    CPP = frozenset({"cpp", "c++", "cc", "cxx"})


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A fenced block; `language` is in lower case, "" if the fence names none."""

    language: str
    text: str


def find_program(response: str, entry_point: str | None = None, language: Language = Language.PYTHON) -> str:
    """The program of a response without its thinking part; "" if there is none.

    It is the last of the best blocks: one that parses and defines the entry point, else one that parses, else one in
    the language or in none, else any; of equal ones the last that names the language, as sample output often names
    none. Without blocks, or if it parses as Python (fences may stand in its strings), the whole response is the
    program. Other languages are not parsed: a fence that names it counts as parsed.
    """
    answer = strip_thinking(response) or ""
    blocks = find_code_blocks(answer)
    if not blocks or (language is Language.PYTHON and _parses(answer)):
        return answer.strip("\n")
    best, best_rank = "", -1
    in_order = sorted(blocks, key=lambda block: block.language in language.value)
    for block in in_order[: -_MAX_BLOCKS - 1 : -1]:
        rank = _rank_block(block, entry_point, language)
        if rank > best_rank:
            best, best_rank = block.text, rank
        if rank == _MAX_RANK:
            break
    return best


def find_program_in(response: str, entry_point: str | None, language: str, max_characters: int) -> str:
    """For workers: the first `max_characters` of the program in the language of this name."""
    return find_program(response, entry_point, Language[language])[:max_characters]


def find_code_blocks(text: str) -> list[CodeBlock]:
    """The non-empty fenced blocks, in order. An unclosed one ends with the text: the answer was cut off."""
    blocks: list[CodeBlock] = []
    opening: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.split("\n"):
        bare = line.rstrip("\r")
        if opening is None:
            opening = _OPENING.match(bare)
            lines = []
        elif _is_closing(bare, opening["fence"]):
            blocks.append(CodeBlock(opening["language"].lower(), "\n".join(lines)))
            opening = None
        else:
            lines.append(_remove_indent(line, len(opening["indent"])))
    if opening is not None:
        blocks.append(CodeBlock(opening["language"].lower(), "\n".join(lines)))
    return [block for block in blocks if block.text.strip()]


def _is_closing(line: str, fence: str) -> bool:
    stripped = line.strip(" \t")
    indent = len(line) - len(line.lstrip(" "))
    return indent <= 3 and len(stripped) >= len(fence) and set(stripped) == {fence[0]}


def _remove_indent(line: str, width: int) -> str:
    return line[width:] if line[:width].isspace() else line


_MAX_RANK = 3


def _rank_block(block: CodeBlock, entry_point: str | None, language: Language) -> int:
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
