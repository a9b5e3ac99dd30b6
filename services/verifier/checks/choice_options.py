"""The options of a question, if its key has them: their texts stand for their letters, and must agree with them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from services.verifier.checks.choice_letters import normalize, read_letters

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# "(B) Paris", "Option B: Paris"
_LABEL = re.compile(r"\s{0,8}(?:(?:the\s)?(?:option|choice)\s)?[(\[]?[A-Za-z][)\]]?\s?[.:)-]?\s{1,8}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Options:
    """(letter, text) of every option; none where the key does not give them."""

    texts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, options: tuple[str, ...] | dict[str, str]) -> "Options":
        """Of their texts, for A, B, …, or by letter."""
        pairs = options.items() if isinstance(options, dict) else zip(_LETTERS, options, strict=False)
        return cls(tuple((letter.strip("() .").upper(), _fold(text)) for letter, text in pairs))

    @property
    def letters(self) -> frozenset[str]:
        return frozenset(letter for letter, _ in self.texts)

    def read(self, text: str) -> frozenset[str] | None:
        """As `read_letters`; a text that is one option's alone chooses it, and a letter with another's text nothing."""
        letters = read_letters(text)
        if not self.texts or letters == frozenset():
            return letters
        label = _LABEL.match(text) if letters else None
        named = frozenset(self._find(text[label.end() if label else 0 :]))
        if letters is None:
            return named if len(named) == 1 else None
        return frozenset() if named and not named & letters else letters

    def _find(self, text: str) -> Iterator[str]:
        """The letters whose text this is."""
        folded = _fold(text)
        return (letter for letter, option in self.texts if folded and option == folded)


def _fold(text: str) -> str:
    return " ".join(normalize(text).casefold().split()).strip(" .,;:")
