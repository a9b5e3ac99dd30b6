"""An import: what is taken, what is dropped and why, and that it is all or nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.learner.data.prompting import INSTRUCTIONS
from services.learner.data.report import ImportReport
from services.learner.data.run_files import import_to_file, is_problem_file, problem_files
from services.learner.data.source import DataSource
from shared.errors import InvalidInput

GSM8K = {"question": "How much is 2 + 3?", "answer": "It is 2 + 3 = <<2+3=5>>5.\n#### 5"}
OURS = {"id": "a", "prompt": "w0 w1", "kind": "math", "answer_key": {"gold": "1"}}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def take(path: Path, *sources: Any, held_out: Any = ()) -> tuple[list[dict[str, Any]], ImportReport]:
    out = path / "out.jsonl"
    given, kept = ([DataSource.model_validate(one) for one in some] for some in (sources, held_out))
    report = import_to_file(given, out, None, kept)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()], report


def dropped(report: ImportReport, number: int = 0) -> dict[str, int]:
    return {one.reason: one.count for one in report.sources[number].dropped}


def test_rows_of_a_known_form_become_problems(tmp_path: Path) -> None:
    rows, report = take(tmp_path, str(write(tmp_path / "gsm8k.jsonl", GSM8K)))
    assert rows == [
        {
            "id": "gsm8k/1",
            "prompt": [
                {
                    "role": "user",
                    "content": f"How much is 2 + 3?\n\n{INSTRUCTIONS['math']}",
                }
            ],
            "kind": "math",
            "answer_key": {"gold": "5"},
        }
    ]
    assert (report.sources[0].format, report.rows, report.taken) == ("gsm8k", 1, 1)


def test_problems_of_ours_are_read_where_they_are(tmp_path: Path) -> None:
    ours, other = write(tmp_path / "a.jsonl", OURS), write(tmp_path / "b.jsonl", GSM8K)
    broken = write(tmp_path / "c.jsonl", "{", {"id": "a"})
    sources = [DataSource(source=str(path)) for path in (ours, other, broken, tmp_path / "none.jsonl")]
    assert list(map(is_problem_file, sources)) == [True, False, True, True]
    assert problem_files(sources[:1], tmp_path / "data", "train", lambda: None) == (ours,)
    assert not (tmp_path / "data").exists()


def test_what_was_imported_for_a_run_is_not_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "gsm8k.jsonl", GSM8K)
    source = DataSource(source=str(path))
    (first,) = problem_files([source], tmp_path / "data", "train", lambda: None)
    path.unlink()

    def load() -> None:
        raise AssertionError("the model is not needed")

    assert problem_files([source], tmp_path / "data", "train", load) == (first,)
    with pytest.raises(InvalidInput, match="there is no"):
        problem_files([source.model_copy(update={"limit": 1})], tmp_path / "data", "train", lambda: None)


def test_an_import_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *[{"question": "1?", "answer": "no gold"}] * 2, GSM8K | {"answer": "#### "})
    with pytest.raises(InvalidInput, match=r"no row of .*rows.jsonl can be taken"):
        take(tmp_path, {"source": str(path), "format": "gsm8k"})
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]
