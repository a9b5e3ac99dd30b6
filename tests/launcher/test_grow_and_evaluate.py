"""One tree and one evaluation through real services."""

import json
import os
import shutil
from pathlib import Path

import pytest

from services.demo.task import checkpoint_directory
from services.launcher.cli import main
from services.launcher.commands.evaluate import summarize_answers
from services.launcher.runs.model_files import load_prompt_encoder
from shared.errors import Unavailable
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.expansion import IndependentSampler


def make_tree(*rewards: float | None) -> ScoredTree:
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
    text = summarize_answers([make_tree(1, None), make_tree(0, 1), make_tree(None, None)], 2, 0)
    shown = "2 problems, 2 tokens per answer, 0 of 6 cut at 64, 0 without a final answer, 3 not judged"
    assert text == f"avg@2 0.750 ± 0.250   pass@2 1.000   ({shown})"


def test_an_evaluation_without_a_verdict_is_an_error() -> None:
    with pytest.raises(Unavailable, match="no answer was judged"):
        summarize_answers([make_tree(None)], 1, 0)


def test_many_answers_without_a_final_answer_name_the_remedy() -> None:
    _, remark = summarize_answers([make_tree(1, 0, 0, None)], 4, 2).splitlines()
    assert remark.startswith("2 of 3 answers state no final answer")
    assert "extraction" in remark


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["ibtpo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0


@pytest.mark.drill
def test_a_tree_is_grown_rendered_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IBTPO_TOKEN", "of another run")
    run(monkeypatch, "grow", "2+3*4=", "rounds=2", "--save", str(tmp_path / "tree.msgpack"))
    text = capsys.readouterr().out
    for part in ("2+3*4=", "#6 ", "ib tree of 6 answers", "root value", "modulo 7"):
        assert part in text, part
    run(monkeypatch, "show", str(tmp_path / "tree.msgpack"))
    assert "ib tree of 6 answers" in capsys.readouterr().out


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    """The demo's model, with a chat template that fails unless it is given what ends a message."""
    model = tmp_path / "model"
    shutil.copytree(checkpoint_directory(), model)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for message in messages %}{{ message.content }}{% endfor %}{{ end + '' }}"
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    return model


@pytest.mark.drill
def test_a_chat_model_is_evaluated_on_the_rows_that_training_takes(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = [{"role": "user", "content": "2+3*4"}]
    rows = [{"id": str(prompt), "prompt": prompt, "kind": "math", "answer_key": {"gold": "0"}}
            for prompt in (message, "2+3*4=", "1+1=")]  # fmt: skip
    data = tmp_path / "problems.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    config = tmp_path / "config.toml"
    config.write_text(
        "[learner]\ntotal_steps = 1\nchat_template_kwargs = {end = '='}\n"
        "[learner.growth]\nsampler = 'ib'\nmax_tokens = 9\n"
    )
    run(monkeypatch, "eval", "--model", str(chat_model), "--data", str(data), "--problems", "2", "--k", "2",
        "--config", str(config))  # fmt: skip
    assert "2 problems" in " ".join(capsys.readouterr().out.split())


@pytest.mark.drill
def test_a_model_is_evaluated_as_its_configuration_says_with_kinds_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "judges.py").write_text("def judge(response, key):\n    return 1.0\n")
    data = tmp_path / "mine.jsonl"
    data.write_text('{"id": "1", "prompt": "1+1=", "kind": "own", "answer_key": {}}\n' * 2)
    (tmp_path / "mine.toml").write_text(
        "[verifier.kinds.own]\nfunction = 'judges:judge'\n[learner]\ntotal_steps = 1\n"
        "[learner.growth]\nsampler = 'ib'\nmax_tokens = 9\n[learner.evaluation]\nk = 3\nproblems = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parents[2]), str(tmp_path))))
    run(monkeypatch, "eval", "--config", "mine.toml", "--data", str(data))
    text = " ".join(capsys.readouterr().out.split())
    assert "avg@3 1.000" in text
    assert "1 problems" in text


@pytest.mark.drill
def test_a_message_is_put_to_a_chat_model(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "grow", "2+3*4", "--chat", "--model", str(chat_model), "--answer", "0",
        "sampler=independent", "chat_template_kwargs={end = '='}", "--save", str(tmp_path / "tree"))  # fmt: skip
    assert "independent tree of 8 answers" in capsys.readouterr().out
    prompt_ids = ScoredTree.unpack((tmp_path / "tree").read_bytes()).task.prompt_ids
    assert prompt_ids == load_prompt_encoder(chat_model, {})("2+3*4=")


@pytest.mark.drill
def test_a_tree_is_grown_of_a_row_of_chat_problems(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [{"role": "user", "content": "2+3*4"}]
    row = {"id": "b", "prompt": messages, "kind": "math", "answer_key": {"gold": "0"}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"id": "a", "prompt": "1+1="}) + "\n" + json.dumps(row))
    given = ("--data", str(tmp_path / "rows.jsonl"), "--model", str(chat_model))
    run(monkeypatch, "grow", *given, "--row", "2", "rounds=1", "chat_template_kwargs={end = '='}")
    text = capsys.readouterr().out
    assert "ib tree of 5 answers" in text
    assert "2+3*4" in text
    assert "root value" in text


@pytest.mark.slow
def test_the_demos_model_is_evaluated(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "eval", "--problems", "40", "--k", "4")
    text = capsys.readouterr().out
    assert 0.1 < float(text.split("avg@4 ")[1].split()[0]) < 0.6
    assert "0 not judged" in " ".join(text.split())
