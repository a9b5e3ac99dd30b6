"""Answers in words: what of their spelling counts."""

import re

from services.verifier.checks.math.reading.forms import Form, Product, Symbol, Text

_IGNORED = re.compile(r"""[\s"'(){}\[\],;!?$*_\\-]|\.(?![0-9])""")
_ARTICLES = re.compile(r"\A(?:the|an?) ")


def words_key(words: str) -> str:
    """The letters and digits of an answer in words: case, spaces and punctuation do not count."""
    return _IGNORED.sub("", _ARTICLES.sub("", words.strip().casefold()))


def words_of(form: Form) -> str | None:
    """The words that a form is, or could be meant as: odd is a product of three letters to the parser."""
    match form:
        case Text(words):
            return words
        case Symbol(name):
            return name
        case Product(factors):
            names = [factor.name if isinstance(factor, Symbol) else None for factor in factors]
            return "".join(name for name in names if name) if all(names) else None
        case _:
            return None
