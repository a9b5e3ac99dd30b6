"""Formats of rows for reinforcement learning: problems of ours, verl's and PRIME's rows, DAPO-Math-17k."""

import json
import re
from typing import Any

from pydantic import ValidationError

from services.learner.data.formats.base import (
    ConvertedRow,
    Format,
    Messages,
    Unusable,
    gold_of,
    json_of,
    kept,
    messages_of,
    text_of,
)
from services.learner.data.formats.code import read_tests
from services.learner.data.reading.rows import Row
from shared.errors import first_reason
from shared.protocol.task import Problem

_DAPO_HEAD = re.compile(
    r"\ASolve the following math problem step by step\. The last line of your response should be of the form "
    r"Answer: \$Answer \(without quotes\) where \$Answer is the answer to the problem\.\s*"
)
_DAPO_TAIL = re.compile(r"\s*Remember to put your answer on its own line after \"Answer:\"\.?\s*\Z")
_PROBLEM = ("id", "prompt", "kind", "answer_key")


def _is_problem(row: Row) -> bool:
    return all(name in row for name in _PROBLEM)


def _problem(row: Row) -> ConvertedRow:
    try:
        problem = Problem.model_validate({name: row[name] for name in _PROBLEM if name in row})
    except ValidationError as error:
        raise Unusable(first_reason(error)) from error
    if not problem.kind:
        raise Unusable("kind is empty")
    columns = {name: value for name, value in row.items() if name not in _PROBLEM}
    return ConvertedRow(problem.prompt, problem.kind, dict(problem.answer_key), columns, problem.id)


def _ground_truth(row: Row) -> Any:
    reward_model = json_of(row.get("reward_model"), "reward_model")
    truth = reward_model.get("ground_truth") if isinstance(reward_model, dict) else None
    return _only_element(truth) if isinstance(truth, str) and truth.startswith('["') else truth


def _only_element(text: str) -> str:
    """What a JSON list of one text holds (Skywork-OR1); any other text as it is."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found[0] if len(found) == 1 and isinstance(found[0], str) else text


def _has_ground_truth(row: Row) -> bool:
    model = row.get("reward_model")  # a table has it as JSON text
    return "prompt" in row and (
        (isinstance(model, dict) and "ground_truth" in model)
        or (isinstance(model, str) and model.lstrip().startswith("{") and '"ground_truth"' in model)
    )


def _is_dapo(row: Row) -> bool:
    if not _has_ground_truth(row) or "math_dapo" not in str(row.get("data_source")):
        return False
    return isinstance(row["prompt"], str) or bool(_DAPO_HEAD.match(_first_text(row["prompt"])))


def _first_text(prompt: Any) -> str:
    try:
        return messages_of(prompt)[0]["content"]
    except Unusable:
        return ""


def _is_verl(row: Row) -> bool:
    return _has_ground_truth(row) and not _is_dapo(row)


def _prompt(row: Row) -> str | Messages:
    prompt = row.get("prompt")
    is_text = isinstance(prompt, str) and not prompt.startswith("[{")  # a table has messages as JSON text
    return text_of(row, "prompt") if is_text else messages_of(prompt)


def _dapo(row: Row) -> ConvertedRow:
    prompt = _prompt(row)
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    text = _DAPO_TAIL.sub("", _DAPO_HEAD.sub("", text)).strip()
    if not text:
        raise Unusable("no text in prompt")
    return ConvertedRow(text, "math", {"gold": gold_of(_ground_truth(row))}, _kept(row))


def _verl(row: Row) -> ConvertedRow:
    truth, ability = _ground_truth(row), str(row.get("ability", "")).lower()
    if truth is None:
        raise Unusable("no reward_model.ground_truth")
    if "cod" in ability or _holds_tests(truth):
        return ConvertedRow(_prompt(row), "code", {"tests": read_tests(truth)}, _kept(row))
    return ConvertedRow(_prompt(row), "math", {"gold": gold_of(truth)}, _kept(row))


def _has_verification(row: Row) -> bool:
    return isinstance(row.get("prompt"), str) and "verification_info" in row


def _prime(row: Row) -> ConvertedRow:
    info = json_of(row.get("verification_info"), "verification_info")
    if not isinstance(info, dict):
        raise Unusable("no verification_info")
    columns = kept(row, "problem_id", "task_type", "source", "solve_rate")
    if "ground_truth" in info:
        return ConvertedRow(text_of(row, "prompt"), "math", {"gold": gold_of(info["ground_truth"])}, columns)
    return ConvertedRow(text_of(row, "prompt"), "code", {"tests": read_tests(info)}, columns)


def _has_messages(row: Row) -> bool:
    return "messages" in row and "ground_truth" in row and "dataset" in row


def _rlvr(row: Row) -> ConvertedRow:
    dataset = row.get("dataset")
    if isinstance(dataset, list) and len(dataset) == 1:
        (dataset,) = dataset
    if str(dataset).lower() not in ("math", "gsm8k", "gsm", "aime"):
        raise Unusable(f"dataset is {dataset!r}, whose answers are no mathematics")
    return ConvertedRow(messages_of(row["messages"], "messages"), "math", {"gold": gold_of(row["ground_truth"])})


def _holds_tests(truth: Any) -> bool:
    return isinstance(truth, str) and truth.lstrip().startswith("{") and '"inputs"' in truth[:200_000]


def _kept(row: Row) -> Row:
    extra = row.get("extra_info")
    index = {"index": extra["index"]} if isinstance(extra, dict) and isinstance(extra.get("index"), str | int) else {}
    return kept(row, "data_source", "ability", "source") | index


CHAT_FORMATS = (
    Format("ibtpo", "problems as training reads them", ", ".join(_PROBLEM), _is_problem, _problem, is_written=True),
    Format(
        "dapo",
        "BytedTsinghua-SIA/DAPO-Math-17k, open-r1/DAPO-Math-17k-Processed",
        "prompt, without its own instruction; reward_model.ground_truth",
        _is_dapo,
        _dapo,
        note='the instruction of the set itself ("Answer: $Answer" on the last line) is left out',
    ),
    Format(
        "verl",
        "verl's parquet files, PRIME-RL/Eurus-2-RL-Data",
        "prompt; reward_model.ground_truth: an answer, or tests as JSON; ability",
        _is_verl,
        _verl,
    ),
    Format(
        "prime",
        "PrimeIntellect's SYNTHETIC-1 and INTELLECT-2 sets",
        "prompt; verification_info as JSON: ground_truth, or test_cases",
        _has_verification,
        _prime,
    ),
    Format(
        "rlvr",
        "allenai's RLVR sets, of mathematics",
        "messages; ground_truth; dataset",
        _has_messages,
        _rlvr,
    ),
)
