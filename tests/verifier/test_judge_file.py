"""Files of answers, judged by a verifier in this process or by one that runs."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from services.verifier.judge_file import judge_file
from shared.errors import InvalidInput, Unavailable
from tests.verifier.judging import rows_of


def _write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _judge_file(tmp_path: Path, rows: list[Any], url: str | None = None) -> tuple[int, list[dict[str, Any]], str]:
    output, printed = tmp_path / "out.jsonl", io.StringIO()
    code = judge_file(_write(tmp_path / "in.jsonl", rows), output, url, console=Console(file=printed, width=200))
    return code, [json.loads(line) for line in output.read_text().splitlines()], printed.getvalue()


def _math(n: int, answer: str, gold: str) -> dict[str, Any]:
    return {"id": n, "kind": "math", "response": rf"\boxed{{{answer}}}", "answer_key": {"gold": gold}}


def test_rows_are_judged_in_their_order(tmp_path: Path) -> None:
    rows = [_math(n, str(n % 7), "3") for n in range(1_000)]
    code, verdicts, printed = _judge_file(tmp_path, rows)
    assert code == 0
    assert [verdict["id"] for verdict in verdicts] == [str(n) for n in range(1_000)]
    assert [verdict["reward"] for verdict in verdicts] == [float(n % 7 == 3) for n in range(1_000)]
    assert "1000 rows: 143 right, 857 wrong" in printed


def test_rows_of_the_hostile_set_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = rows_of("math_attacks.jsonl.gz")
    code, verdicts, _ = _judge_file(tmp_path, rows)
    assert code == 0
    assert [verdict["reward"] == 1 for verdict in verdicts] == [row["expected"] == "accept" for row in rows]


def test_a_row_that_cannot_be_judged_says_so_and_spoils_no_other(tmp_path: Path) -> None:
    rows = [_math(0, "3", "3"), {**_math(1, "3", "3"), "kind": "poetry"}, _math(2, "4", "3")]
    code, verdicts, printed = _judge_file(tmp_path, rows)
    assert code == 1
    assert [verdict["reward"] for verdict in verdicts] == [1.0, None, 0.0]
    assert "poetry" in verdicts[1]["error"]
    assert "1 not judged" in printed


@pytest.mark.parametrize("row", [[], {}, {"kind": "math"}, {"kind": "math", "response": 4, "gold": "4"}])
def test_a_row_of_another_shape_is_named(tmp_path: Path, row: Any) -> None:
    with pytest.raises(InvalidInput, match=":2: "):
        _judge_file(tmp_path, [_math(0, "3", "3"), row])
    assert not (tmp_path / "out.jsonl").exists()


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no rows"):
        _judge_file(tmp_path, [])


def test_a_verifier_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        _judge_file(tmp_path, [_math(0, "3", "3")], url="http://127.0.0.1:9")
