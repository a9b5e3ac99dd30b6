"""Formats of programming problems: HumanEval, MBPP, and sets whose tests are inputs and outputs."""

import base64
import json
import pickletools
import zlib
from typing import Any

from services.learner.data.formats.base import ConvertedRow, Format, Unusable, first_of, json_of, kept, text_of
from services.learner.data.reading.rows import Row

_KEPT = ("task_id", "difficulty", "source", "name", "platform", "question_id", "contest_date", "problem_id", "url")
_QUESTION = ("question", "description", "problem", "content", "question_content", "prompt")
_TESTS = ("input_output", "tests", "public_test_cases", "public_tests", "private_tests", "test")
_MAX_CASES = 2000
_MAX_UNPACKED = 256 << 20


def _code(question: str, tests: dict[str, Any], row: Row) -> ConvertedRow:
    return ConvertedRow(question, "code", {"tests": tests}, kept(row, *_KEPT))


def _is_humaneval(row: Row) -> bool:
    return all(isinstance(row.get(name), str) for name in ("prompt", "test", "entry_point"))


def _humaneval(row: Row) -> ConvertedRow:
    stub, name = text_of(row, "prompt"), text_of(row, "entry_point")
    tests = {"type": "check", "entry_point": name, "test": text_of(row, "test")}
    return _code(f"Complete the Python function `{name}`.\n\n```python\n{stub}\n```", tests, row)


def _is_mbpp(row: Row) -> bool:
    return isinstance(row.get("test_list"), list) and isinstance(first_of(row, "text", "prompt"), str)


def _mbpp(row: Row) -> ConvertedRow:
    asserts = [one for one in row.get("test_list") or () if isinstance(one, str) and one.strip()]
    if not asserts:
        raise Unusable("no tests in test_list")
    imports = [one for one in row.get("test_imports") or () if isinstance(one, str)]
    setup = "\n".join(filter(None, (*imports, row.get("test_setup_code") or "")))
    tests: dict[str, Any] = {"type": "assert", "asserts": asserts} | ({"setup": setup} if setup else {})
    return _code(f"{text_of(row, 'text', 'prompt')}\n\nIt must pass these tests:\n\n" + "\n".join(asserts), tests, row)


def _has_cases(row: Row) -> bool:
    if "test_list" in row or "entry_point" in row or not isinstance(first_of(row, *_QUESTION), str):
        return False
    try:
        return any(name in row for name in _TESTS) and bool(_collect_tests(row))
    except Unusable:
        return False


def _cases(row: Row) -> ConvertedRow:
    tests, starter = _collect_tests(row), first_of(row, "starter_code")
    question = text_of(row, *_QUESTION)
    if isinstance(starter, str) and starter.strip():
        question = f"{question}\n\nBegin with this code:\n\n```python\n{starter.strip()}\n```"
    return _code(question, tests, row)


def _collect_tests(row: Row) -> dict[str, Any]:
    """All tests of a row: the public ones, and those that are kept from solvers."""
    name = _function_name(row)
    if "public_test_cases" in row or "private_test_cases" in row:
        listed = [*_decode_cases(row.get("public_test_cases")), *_decode_cases(row.get("private_test_cases"))]
        return read_tests(listed, name)
    if "public_tests" in row or "private_tests" in row:
        parts = [json_of(row.get(part), part) or {} for part in ("public_tests", "private_tests", "generated_tests")]
        merged = {side: [one for part in parts for one in part.get(side) or ()] for side in ("input", "output")}
        return read_tests(merged, name)
    return read_tests(first_of(row, *_TESTS), name)


def _function_name(row: Row) -> str | None:
    try:
        metadata = json_of(row.get("metadata"), "metadata")
    except Unusable:
        return None
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) and name else None


def read_tests(value: Any, function: str | None = None) -> dict[str, Any]:
    """The verifier's tests of inputs and outputs in one of their usual forms; Unusable for others."""
    value = json_of(value, "the tests")
    if isinstance(value, dict):
        function = value.get("fn_name") or function
        inputs = first_of(value, "inputs", "input")
        outputs = first_of(value, "outputs", "output")
        if isinstance(inputs, list) and isinstance(outputs, list):
            return _tests(list(zip(inputs, outputs, strict=False)), function, len(inputs) == len(outputs))
        value = first_of(value, "test_cases", "tests", "cases")
    if not isinstance(value, list) or not value or not all(isinstance(case, dict) for case in value):
        raise Unusable("no tests of inputs and outputs")
    names = [case.get("fn_name") or _func_name(case) for case in value]
    pairs = [(_side(case, "input", "stdin"), _side(case, "output", "stdout")) for case in value]
    is_functional = any(
        str(case.get("testtype") or case.get("type")) in ("functional", "function_call") for case in value
    )
    function = next(filter(None, names), function)
    return _tests(pairs, function if is_functional or any(names) else None, True)


def _func_name(case: Row) -> str | None:
    metadata = case.get("metadata")
    return metadata.get("func_name") if isinstance(metadata, dict) else None


def _side(case: Row, name: str, stream: str) -> Any:
    """An input or output, which SandboxFusion's rows put one level deeper."""
    value = case.get(name)
    return value.get(stream) if isinstance(value, dict) and stream in value else value


def _tests(pairs: list[tuple[Any, Any]], function: str | None, are_whole: bool) -> dict[str, Any]:
    if not are_whole:
        raise Unusable("as many outputs as inputs are needed")
    if not pairs:
        raise Unusable("no tests")
    pairs = pairs[:_MAX_CASES]
    if function:
        calls = [(_arguments(given), _result(expected)) for given, expected in pairs]
        return {
            "type": "functional",
            "fn_name": function,
            "inputs": [given for given, _ in calls],
            "outputs": [expected for _, expected in calls],
        }
    return {
        "type": "stdio",
        "cases": [{"input": _stream(given), "output": _stream(expected)} for given, expected in pairs],
    }


def _arguments(given: Any) -> Any:
    """The arguments of a call: a list, or one JSON value a line (LiveCodeBench)."""
    if not isinstance(given, str):
        return given
    try:
        return [json.loads(line) for line in given.split("\n") if line.strip()]
    except ValueError as error:
        raise Unusable("an input of a function is no JSON") from error


def _result(expected: Any) -> Any:
    if not isinstance(expected, str):
        return expected
    try:
        return json.loads(expected)
    except ValueError:
        return expected


def _stream(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(map(str, value))
    if value is None or isinstance(value, dict):
        raise Unusable("an input or output is no text")
    return str(value)


def _decode_cases(value: Any) -> list[Any]:
    """LiveCodeBench's test cases: JSON, or JSON that is pickled, compressed and in base64."""
    if value in (None, ""):
        return []
    if isinstance(value, str) and value.lstrip()[:1] not in ("[", "{"):
        try:
            unpacker = zlib.decompressobj()
            packed = unpacker.decompress(base64.b64decode(value, validate=True), _MAX_UNPACKED)
            (value,) = [text for _, text, _ in pickletools.genops(packed) if isinstance(text, str)]  # nothing is run
        except (ValueError, zlib.error) as error:
            raise Unusable("its private tests cannot be unpacked") from error
    listed = json_of(value, "the test cases")
    if not isinstance(listed, list):
        raise Unusable("its test cases are no list")
    return listed


CODE_FORMATS = (
    Format(
        "humaneval", "openai_humaneval, evalplus/humanevalplus", "prompt; test; entry_point", _is_humaneval, _humaneval
    ),
    Format(
        "mbpp",
        "google-research-datasets/mbpp, evalplus/mbppplus",
        "text or prompt; test_list; test_setup_code or test_imports",
        _is_mbpp,
        _mbpp,
    ),
    Format(
        "code-tests",
        "APPS, TACO, CodeContests, LiveCodeBench, DeepCoder (rLLM), SandboxFusion's sets",
        "question, description or problem; inputs and outputs in input_output, tests, public_tests …; fn_name",
        _has_cases,
        _cases,
    ),
)
