"""Files of answers, judged by a verifier in this process or by one that runs."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from rich.console import Console

from services.verifier.judge_file import judge_file
from shared.errors import InvalidInput, Unauthorized, Unavailable
from shared.runtime.serve import open_listener, serve_in_background
from tests.verifier.judging import rows_of
from tests.verifier.serving import serve_verifier


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


def test_a_prompt_that_opens_a_thought_counts_and_missing_answers_are_explained(tmp_path: Path) -> None:
    row = {"kind": "math", "response": r"so \boxed{3}", "answer_key": {"gold": "3"}}
    prompts: list[Any] = ["", "<|Assistant|><think>\n", [{"role": "user", "content": "<think>"}]]
    rows = [{**row, "prompt": prompt} for prompt in prompts] + [{**row, "response": "3"}]
    _, verdicts, printed = _judge_file(tmp_path, rows)
    assert [verdict["outcome"] for verdict in verdicts] == ["right", "no_answer", "right", "no_answer"]
    assert "2 of 4 answers state no final answer" in " ".join(printed.split())
    assert "extraction" in printed
    assert "extraction" not in _judge_file(tmp_path, [row] * 9 + [{**row, "response": "3"}])[2]


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


BAD_ROWS = r"""
[]                                                                               a list; a row is
7                                                                                a int; a row is
{}                                                                               no 'payload'
{"kind": "math"}                                                                 no 'payload'
{"kind": "math", "response": 4, "gold": "4"}                                     response
{"kind": "math", "response": "\ud800", "gold": "4"}                              surrogate
{"kind": "math", "response": "4", "gold": "\ud800"}                              surrogate
{"id": "\udfff", "kind": "math", "response": "4", "gold": "4"}                   surrogate
{"kind": "math", "response": "4", "answer_key": {"gold": 1e999}}                 no number
{"kind": "math", "response": "4", "answer_key": {"gold": NaN}}                   no number
{"kind": "math", "response": "4", "answer_key": {"gold": 99999999999999999999}}  64 bits
{"kind": "math", "response": "4", "answer_key": {"gold": 4}}                     gold
{"kind": "math", "response": "4", "answer_key": [4]}                             answer_key
{"kind": "math", "response": null, "gold": "4"}                                  response
{"kind": "math", "response": "4" "gold": "4"}                                    not JSON
{"kind": "math", "response": "4", "gold": "4"                                    not JSON
""".strip().splitlines()
DEEP = f'{{"id": "bad", "kind": "math", "response": "4", "answer_key": {{"x": {"[" * 10_000}{"]" * 10_000}}}}}'
LONG = f'{{"id": "bad", "kind": "math", "response": "4", "answer_key": {{"gold": {"9" * 5_000}}}}}'


def test_bad_rows_have_an_error_and_the_others_are_judged(tmp_path: Path) -> None:
    rows = [line.partition("  ") for line in BAD_ROWS] + [(DEEP, "", "answer_key"), (LONG, "", "no number")]
    good = json.dumps(_math(0, "4", "4"))
    lines = [line for row, _, _ in rows for line in (good, row)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    assert judge_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", console=Console(file=io.StringIO())) == 1
    verdicts = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(verdicts) == len(lines)
    assert {verdict["reward"] for verdict in verdicts[::2]} == {1.0}
    for (row, _, says), verdict in zip(rows, verdicts[1::2], strict=False):
        assert (verdict["reward"], says.strip() in verdict["error"]) == (None, True), (row[:100], verdict)
        assert verdict["id"] in ("bad", "?") or verdict["id"].isdigit()


@pytest.mark.parametrize("text", ["id,kind\n1,math\n", "[]\n{}\n", "7"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "in.jsonl").write_text(text)
    with pytest.raises(InvalidInput, match=":1: "):
        judge_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", console=Console(file=io.StringIO()))
    assert not (tmp_path / "out.jsonl").exists()


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no rows"):
        _judge_file(tmp_path, [])


def test_a_verifier_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        _judge_file(tmp_path, [_math(0, "3", "3")], url="http://127.0.0.1:9")


async def test_a_running_verifier_judges_the_file(tmp_path: Path) -> None:
    rows = [{"kind": "math", "response": r"\boxed{4}", "gold": gold} for gold in ("4", "5")]
    async with serve_verifier(token="secret") as (_, client):
        input, output = _write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
        code = await asyncio.to_thread(judge_file, input, output, str(client.base_url), "secret")
        with pytest.raises(Unauthorized):
            await asyncio.to_thread(judge_file, input, tmp_path / "other.jsonl", str(client.base_url), "wrong")
    verdicts = [json.loads(line) for line in output.read_text().splitlines()]
    assert code == 0
    assert [(verdict["id"], verdict["reward"]) for verdict in verdicts] == [("1", 1.0), ("2", 0.0)], "lines are ids"
    assert not (tmp_path / "other.jsonl").exists()


async def test_an_overloaded_verifier_is_asked_again(tmp_path: Path) -> None:
    app = FastAPI()
    num_requests = 0

    @app.post("/v1/verdicts")
    async def verdicts(request: Request) -> Response:
        nonlocal num_requests
        num_requests += 1
        if num_requests == 1:
            return JSONResponse({"detail": "full"}, 429)
        items = (await request.json())["items"]
        return JSONResponse({"verdicts": [{"id": item["id"], "reward": 0.0, "outcome": "wrong"} for item in items]})

    async with serve_in_background(app, open_listener("127.0.0.1", 0, None)) as url:
        input, output = _write(tmp_path / "in.jsonl", [_math(0, "3", "3")]), tmp_path / "out.jsonl"
        assert await asyncio.to_thread(judge_file, input, output, url) == 0
    assert num_requests == 2


def test_a_row_without_a_reward_is_an_exit_code_of_1(tmp_path: Path) -> None:
    rows = [{"kind": "code", "response": "x", "answer_key": {"tests": {"type": "stdio", "cases": []}}}]
    code, (verdict,), printed = _judge_file(tmp_path, rows)
    assert (code, verdict["id"], verdict["reward"]) == (1, "1", None)
    assert "cases" in verdict["error"]
    assert "1 rows: 1 not judged" in printed
