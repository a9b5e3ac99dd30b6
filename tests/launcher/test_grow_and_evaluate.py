"""One tree and one evaluation through real services."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.demo.task import checkpoint_directory
from services.launcher.cli import main
from services.launcher.commands.evaluate import evaluate
from services.launcher.runs.model_files import load_prompt_encoder
from services.launcher.settings.evaluation import EvaluateArguments
from shared.errors import InvalidInput
from shared.protocol.tree import ScoredTree
from tests.waiting import wait_until


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
        "--config", str(config), "--json")  # fmt: skip
    (model,) = json.loads(capsys.readouterr().out)["models"]
    (measured,) = model["sets"]
    assert (measured["name"], measured["problems"], measured["k"], measured["max_tokens"]) == ("problems", 2, 2, 9)


@pytest.mark.drill
def test_a_model_is_evaluated_as_its_configuration_says_with_kinds_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "judges.py").write_text("def judge(response, key):\n    return 1.0\n")
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(f'{{"id": {n}, "prompt": "1+1=", "kind": "own", "answer_key": {{}}}}\n' for n in range(2)))
    (tmp_path / "mine.toml").write_text(
        "[verifier.kinds.own]\nfunction = 'judges:judge'\n[learner]\ntotal_steps = 1\n"
        "[learner.growth]\nsampler = 'ib'\nmax_tokens = 9\n[learner.evaluation]\nk = 3\nproblems = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parents[2]), str(tmp_path))))
    run(monkeypatch, "eval", "--config", "mine.toml", "--data", str(data))
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("mine ")]
    assert row[:8] == ["mine", "1", "3", "1.000", "±", "0.000", "1.000", "–"], "nobody compares answers of an own kind"


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


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_an_evaluation_that_was_killed_goes_on_and_refuses_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[2]
    asked = ("eval", "--problems", "24", "--k", "8", "--out", str(tmp_path / "out"))
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "services.launcher.cli", *asked]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        try:
            wait_until(lambda: len(lines_of(tmp_path)) > 3, 110, "no problem is answered")
        finally:
            killed.kill()
    before = lines_of(tmp_path)
    run(monkeypatch, *asked, "--json")
    (measured,) = json.loads(capsys.readouterr().out)["models"][0]["sets"]
    after = lines_of(tmp_path)
    assert measured["problems"] == 24
    assert after[: len(before) - 1] == before[:-1], "what was answered is kept; the last line may have been cut"
    assert len({json.loads(line)["id"] for line in after[1:]}) == len(after) - 1 == 24
    assert 0.1 < measured["avg_at_k"] < 0.6
    with pytest.raises(InvalidInput, match="k: 8 there, 2 now"):
        evaluate(
            EvaluateArguments((checkpoint_directory(),), overrides=(("problems", 24), ("k", 2)), out=tmp_path / "out")
        )


def lines_of(folder: Path) -> list[str]:
    """The lines of the results of the only set."""
    return [line for path in folder.glob("out/*/demo.jsonl") for line in path.read_text().splitlines()]
