"""`ibtpo data`: imports, shows and explains data sets, as its user sees it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from services.demo.task import checkpoint_directory
from services.launcher.cli import app
from services.launcher.display.import_view import ImportView
from services.launcher.processes.problem_import import import_and_prepare
from services.launcher.settings.plan import RunRequest, StartMode, make_run_plan
from shared.errors import InvalidInput

GSM8K = [{"question": f"How much is {number} + 1?", "answer": f"It is.\n#### {number + 1}"} for number in range(40)]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> str:
    ran = CliRunner().invoke(app, ["data", *map(str, arguments)], catch_exceptions=False, env={"COLUMNS": "80"})
    if isinstance(ran.exception, InvalidInput):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    assert all(len(line) <= 80 for line in ran.output.splitlines())
    return " ".join(ran.output.split())


def test_an_import_says_what_it_took_and_why_it_dropped_the_rest(tmp_path: Path) -> None:
    bad = [{"question": "And?", "answer": "nothing"}, GSM8K[3]]
    ours = [
        {"id": name, "prompt": f"{name}?", "kind": "choice", "answer_key": {"gold": name}} for name in ("A", "none")
    ]
    other = write(tmp_path / "ours.jsonl", ours)
    rows, held_out = write(tmp_path / "rows.jsonl", GSM8K + bad), write(tmp_path / "held.jsonl", GSM8K[:2])
    out = tmp_path / "new" / "train.jsonl"
    said = run("import", rows, other, "--out", out, "--held-out", held_out, "system_prompt=Be brief.")
    assert "39 problems in" in said
    assert "1 the verifier refuses its key: gold 'none' is no choice" in said
    assert "1 no line `#### …` in answer" in said
    assert "1 the same problem came before rows.jsonl:42" in said
    assert "a verifier read the answer keys of 40 problems and refused 1" in said
    taken = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert taken[0]["prompt"][0] == {"role": "system", "content": "Be brief."}
    sources = json.loads(out.with_suffix(".report.json").read_text())["sources"]
    assert [one["taken"] for one in sources] == [38, 1]
    assert len(taken) == 39
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "train.jsonl",
        "train.report.json",
        "train.report.md",
    ]


def test_a_limit_takes_the_same_rows_again(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", GSM8K)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("import", rows, "--out", tmp_path / f"{name}.out", "--limit", "5", "--seed", str(seed), "--no-vet")
    first, again, other = ((tmp_path / f"{name}.out").read_text() for name in "abc")
    assert first == again != other
    assert len(first.splitlines()) == 5


def test_what_cannot_be_imported_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old")
    with pytest.raises(InvalidInput, match=r"has the columns a, b, which no format has"):
        run("import", write(tmp_path / "rows.jsonl", [{"a": 1, "b": 2}]), "--out", out)
    with pytest.raises(InvalidInput, match=r"there is no .*none.csv"):
        run("import", tmp_path / "none.csv", "--out", out)
    with pytest.raises(InvalidInput, match="is a folder: give a file"):
        run("import", tmp_path / "rows.jsonl", "--out", tmp_path)
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "rows.jsonl"]


def test_problems_are_shown_as_a_model_reads_them(tmp_path: Path) -> None:
    said = run("show", write(tmp_path / "rows.jsonl", GSM8K), "-n", "1")
    assert "How much is 0 + 1?" in said
    assert "put your final answer within \\boxed{}" in said
    assert re.search(r"→ 1\b", said)


def test_every_format_is_listed() -> None:
    said = run("formats")
    assert all(name in said for name in ("gsm8k", "math-answer", "dapo", "gpqa", "humaneval", "code-tests"))


@pytest.mark.drill
def test_a_run_imports_its_problems_before_it_begins_and_is_resumed_without_their_source(tmp_path: Path) -> None:
    source, runs, view = tmp_path / "sums.csv", tmp_path / "runs", ImportView(Console(quiet=True))
    source.write_text("sum,result\n1+1=,2\n2+3=,5\n", encoding="utf-8")
    table = f'data={{source = "{source}", fields = {{prompt = "sum", gold = "result"}}, instruction = ""}}'
    given = (f"learner.model={checkpoint_directory()}", table, "total_steps=1")
    plan = make_run_plan(runs, RunRequest("mine", "grpo", given))
    import_and_prepare(plan, view)
    (rows,) = (plan.run.root / "data").glob("train-*.jsonl")
    assert [json.loads(line)["prompt"] for line in rows.read_text(encoding="utf-8").splitlines()] == ["1+1=", "2+3="]
    assert sorted(path.name for path in runs.iterdir()) == ["mine"]
    plan.run.metrics.touch()
    source.unlink()
    import_and_prepare(make_run_plan(runs, RunRequest("mine", "grpo", (), StartMode.RESUME)), view)
    with pytest.raises(InvalidInput, match=r"there is no .*sums\.csv"):
        import_and_prepare(make_run_plan(runs, RunRequest("other", "grpo", given)), view)
    assert sorted(path.name for path in runs.iterdir()) == ["mine"]
