"""Every example of docs/verifier.md is judged as the page says."""

import re
from pathlib import Path

import pytest

from services.verifier.checks.final_answer import extract_final_answer
from services.verifier.checks.math.comparing.equivalence import Equivalence
from tests.verifier.judging import find

PAGE = Path(__file__).parents[3] / "docs" / "verifier.md"
_ROW = re.compile(
    r"^\| `(?P<answer>[^`]*)` \| `(?P<gold>[^`]*)` \| (?P<verdict>right|wrong|no_answer) \|\s*(?P<why>.*?)\s*\|$"
)


def _examples() -> list[tuple[str, str, str, bool]]:
    examples = []
    section = ""
    for line in PAGE.read_text().splitlines():
        section = line if line.startswith("#") else section
        found = _ROW.match(line)
        if found:
            response = found["answer"] if section == "## The final answer" else rf"\boxed{{{found['answer']}}}"
            examples.append((response, found["gold"], found["verdict"], "worker" in found["why"]))
    return examples


def test_the_page_has_its_gallery() -> None:
    assert len(_examples()) > 80


@pytest.mark.parametrize(("response", "gold", "verdict", "by_worker"), _examples())
def test_an_example_of_the_gallery_is_judged_as_it_says(
    response: str, gold: str, verdict: str, by_worker: bool
) -> None:
    found = find(gold, response)
    if verdict == "no_answer":
        assert extract_final_answer(response, 10_000) is None
    elif by_worker:
        assert found is not None
        assert found.equivalence is Equivalence.UNKNOWN
    else:
        assert found is not None
        assert found.equivalence is (Equivalence.SAME if verdict == "right" else Equivalence.DIFFERENT), found
