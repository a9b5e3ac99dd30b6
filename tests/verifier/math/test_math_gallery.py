"""Every example of docs/verifier.md and docs/verifier-math.md is judged as the page says."""

import re
from pathlib import Path

import pytest

from services.verifier.checks.choice import find_choice
from services.verifier.checks.choice_letters import read_letters
from services.verifier.checks.final_answer import DEFAULT
from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.config import ChoiceConfig, Extraction
from tests.verifier.judging import find

_DOCS = Path(__file__).parents[3] / "docs"
TEXT = "".join((_DOCS / name).read_text(encoding="utf-8") for name in ("verifier.md", "verifier-math.md"))
_ROW = re.compile(
    r"^\| `(?P<answer>[^`]*)` \|(?: `(?P<way>\w+)` \|)? `(?P<gold>[^`]*)` \| (?P<verdict>right|wrong|no_answer) \|"
    r"\s*(?P<why>.*?)\s*\|$"
)
_CHOICE = "## Multiple choice"
_WHOLE_RESPONSES = ("## The final answer", "### Where the final answer is looked for", _CHOICE)
_WAYS = ChoiceConfig().extraction


def _examples(*, of_choices: bool) -> list[tuple[str, str, str, str, bool]]:
    """(response, way or "", gold, verdict, whether a worker decides)."""
    examples = []
    section = ""
    for line in TEXT.splitlines():
        section = line if line.startswith("#") else section
        found = _ROW.match(line)
        if found and of_choices == (section == _CHOICE):
            response = found["answer"] if section in _WHOLE_RESPONSES else rf"\boxed{{{found['answer']}}}"
            examples.append((response, found["way"] or "", found["gold"], found["verdict"], "worker" in found["why"]))
    return examples


def test_the_page_has_its_gallery() -> None:
    assert len(_examples(of_choices=False)) > 80
    assert len(_examples(of_choices=True)) > 8


@pytest.mark.parametrize(("response", "way", "gold", "verdict", "by_worker"), _examples(of_choices=False))
def test_an_example_of_the_gallery_is_judged_as_it_says(
    response: str, way: Extraction, gold: str, verdict: str, by_worker: bool
) -> None:
    found = find(gold, response, (way,) if way else DEFAULT)
    if verdict == "no_answer":
        assert found is None
    elif by_worker:
        assert found is not None
        assert found.equivalence is Equivalence.UNKNOWN
    else:
        assert found is not None
        assert found.equivalence is (Equivalence.SAME if verdict == "right" else Equivalence.DIFFERENT), found


@pytest.mark.parametrize(("response", "way", "gold", "verdict", "by_worker"), _examples(of_choices=True))
def test_a_choice_of_the_gallery_is_judged_as_it_says(
    response: str, way: str, gold: str, verdict: str, by_worker: bool
) -> None:
    chosen = find_choice(response, _WAYS)
    found = "no_answer" if chosen is None else "right" if chosen == read_letters(gold) else "wrong"
    assert (way, by_worker, found) == ("", False, verdict)
