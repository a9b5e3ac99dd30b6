"""`ibtpo show` of answers to held-out problems."""

from pathlib import Path

import pytest

from services.launcher.commands.show import show_held_out, show_results
from services.learner.held_out.results import Header, ProblemResult, ResultsFile
from shared.errors import InvalidInput
from tests.learner.evaluations import result


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run that kept the results of two evaluations."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.toml").write_text("")
    before, after = result(7, [0.0, 0.0, 0.0], ["5", "6", "6"]), result(7, [1.0, 1.0, 0.0], ["4", "4", "6"])
    odd = result(8, [0.0, None, 0.0], [None, None, ""], finish=["length", "stop", "stop"])
    for step, found in ((0, [before]), (9, [after, odd])):
        write(tmp_path / "mine" / "evaluations" / str(step), found)
    return tmp_path


def write(folder: Path, found: list[ProblemResult]) -> None:
    ResultsFile(folder, "gsm8k").begin(Header(set="gsm8k", weights=""), {one.id: one for one in found})


def test_answers_are_counted_beside_what_was_right_before(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show_held_out(runs, "mine", "gsm8k", None) == 0
    title, header, first, second = capsys.readouterr().out.splitlines()
    assert title.strip() == "gsm8k, step 9; before: step 0"
    assert header.split() == ["problem", "right", "before", "tokens", "cut", "answers"]
    assert first.split() == ["7", "0.67", "0.00", "2", "4", "✔", "×2", "6", "×1"]
    assert " ".join(second.split()) == "8 0.00 – 2 1 (cut) ×1 (not judged) ×1 (none) ×1"


def test_results_that_are_not_kept_are_named(runs: Path) -> None:
    with pytest.raises(InvalidInput, match="no results of a held-out set 'math'; of these: gsm8k"):
        show_held_out(runs, "mine", "math", None)
    with pytest.raises(InvalidInput, match="of step 3: of 0, 9"):
        show_held_out(runs, "mine", "gsm8k", 3)


def test_a_file_of_results_is_shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show_results(runs / "mine" / "evaluations" / "9" / "gsm8k.jsonl") == 0
    assert "4 ✔ ×2" in capsys.readouterr().out
    with pytest.raises(InvalidInput, match="holds no results"):
        show_results(runs / "mine" / "config.toml")
