"""One tree and one evaluation through real services."""

from pathlib import Path

import pytest

from services.launcher.cli import main
from services.launcher.commands.evaluate import summarize_answers
from shared.errors import Unavailable
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.expansion import IndependentSampler


def answered(*rewards: float | None) -> ScoredTree:
    """A problem answered once per reward, with two tokens each."""
    task = Task(
        run="",
        id="posted",
        problem_id="p",
        prompt_ids=(0,),
        kind="exact",
        answer_key={},
        growth=Growth(sampler=IndependentSampler(initial_draws=len(rewards))),
        seed=0,
    )
    spans = (VersionSpan(WeightVersion(0, 0), 0, 2),)
    draws = tuple(Draw(None, 0, (1, 2), (-1.0, -1.0), (2,), spans, Finish.STOP, reward) for reward in rewards)
    return ScoredTree(task=task, replica="r", draws=draws, usage=TreeUsage())


def test_answers_are_summarized_with_those_without_a_verdict_counted_apart() -> None:
    text = summarize_answers([answered(1, None), answered(0, 1), answered(None, None)], 2)
    assert text == "avg@2 0.750 ± 0.250   pass@2 1.000   (2 problems, 2 tokens per answer, 3 not judged)"


def test_an_evaluation_without_a_verdict_is_an_error() -> None:
    with pytest.raises(Unavailable, match="no answer was judged"):
        summarize_answers([answered(None)], 1)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["ibtpo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0


def test_a_tree_is_grown_drawn_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IBTPO_TOKEN", "of another run")
    run(monkeypatch, "grow", "2+3*4=", "rounds=2", "--save", str(tmp_path / "tree.msgpack"))
    text = capsys.readouterr().out
    for part in ("2+3*4=", "#6 ", "ib tree of 6 answers", "root value"):
        assert part in text, part
    run(monkeypatch, "show", str(tmp_path / "tree.msgpack"))
    assert "ib tree of 6 answers" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demos_model_is_evaluated(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "eval", "--problems", "40", "--k", "4")
    text = capsys.readouterr().out
    assert 0.1 < float(text.split("avg@4 ")[1].split()[0]) < 0.6
    assert "0 not judged" in " ".join(text.split())
