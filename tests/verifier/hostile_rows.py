"""Rows that would hold up a careless verifier: runs and nestings of what each kind of answer is made of."""

import random
from collections.abc import Iterator
from typing import Any

from tests.verifier.hostile_texts import families, text_of
from tests.verifier.serving import make_item

_LENGTHS = (150, 1_900, 9_000, 80_000)
_LATEX = r"\frac{ \sqrt{ \binom{ ( ) { } [ + - ^ _ ! \pm | x 1 1.5 , = \le \cup \text{ \pi \lfloor \sin \left"
_PROSE = r"\boxed{ \boxed{4} } **Answer:** answer (A) B , or . not <think> </think> #### $"
_CODE = "``` ~~~ a; def ( [ { ' \\ # lambda: - not x, if else f'{"
# what stands around a text, so that it is looked at, and the key
_FORMS: list[tuple[str, str, str, dict[str, Any], str]] = [
    ("math", "So \\boxed{", "}", {"gold": "x^2+\\sqrt{2}"}, _LATEX),
    ("math", "So \\boxed{4}", "", {"gold": "4"}, _PROSE),
    ("math", "\\boxed{", "}", {"gold": "\\{1,2,3\\}"}, _LATEX),
    ("choice", "\\boxed{", "}", {"gold": "A"}, _PROSE),
    ("choice", "Answer: ", "", {"gold": "A"}, _PROSE),
    ("exact", "", "", {"gold": "yes " * 100}, _PROSE),
    ("code", "```python\n", "\n```", {"tests": {"type": "stdio", "cases": [{"input": "", "output": "1"}]}}, _CODE),
    ("code", "", "\n", {"tests": {"type": "assert", "entry_point": "f", "asserts": ["assert f() == 1"]}}, _CODE),
]


def hostile_rows(number: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Items, always the same for a seed; of the texts of all families, each time another."""
    draw = random.Random(seed)
    families_of = {fragments: list(families([*fragments.split(), " ", "\n"])) for *_, fragments in _FORMS}
    for n in range(number):
        kind, before, after, key, fragments = _FORMS[n % len(_FORMS)]
        text = text_of(draw.choice(families_of[fragments]), draw.choice(_LENGTHS), draw.choice(("", "x", "?")))
        yield make_item(kind, before + text + after, key, f"{kind}-{n}", limits={"wall_seconds": 1})
