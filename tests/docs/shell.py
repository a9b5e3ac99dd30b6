"""The commands that the documentation tells its readers to type."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1``` *$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^    +\S.*\n)+", re.MULTILINE)
_SHELL = {"", "sh", "bash", "console"}
_INLINE = re.compile(r"`([^`\n]+)`")
_SEPARATORS = set("();<>|&")


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its words, and where it stands."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def pages() -> list[Path]:
    """Every page that a reader follows; the changelog also names what is gone."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> Iterator[Command]:
    """The commands of a page's code, and of the code in its sentences."""
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    for block in code_blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            yield from (Command(name, words) for words in _split(line.strip().removeprefix("$ ")))
    for match in _INLINE.finditer(_FENCE.sub("", text)):
        yield from (Command(name, words) for words in _split(match[1]))


def code_blocks(text: str) -> Iterator[str]:
    """What stands in code blocks of a shell, or of no language."""
    for indent, language, block in _FENCE.findall(text):
        if language in _SHELL:
            yield re.sub(rf"^{indent}", "", block, flags=re.MULTILINE)
    yield from _INDENTED.findall(_FENCE.sub("", text))


def _split(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of one line; none where it is no shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""  # to a shell, # begins a comment only where a word begins
    words: list[str] = []
    try:
        for word in lexer:
            if word.startswith("#"):
                break
            if set(word) <= _SEPARATORS:
                yield tuple(words)
                words = []
            elif word not in ("…", "..."):
                words.append(word)
    except ValueError:  # a quotation over several lines, or a sentence
        return
    yield tuple(words)
