"""Tests as data sets have them, brought into the forms of the answer key."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from services.verifier.checks.code.packed_tests import unpack_tests

# Where whole rows are given: the field that holds the tests.
_TEST_FIELDS = ("input_output", "test_cases", "public_test_cases", "test_list", "test")
_KEY_FIELDS = frozenset({"tests", "partial_credit", "test_results", "packages", "files", "reference"})
_TYPES = {
    "stdin": "stdio", "stdin_stdout": "stdio", "standard_input": "stdio",
    "function": "functional", "call_based": "functional", "fn": "functional",
}  # fmt: skip


def read_set_form(key: Mapping[str, Any]) -> dict[str, Any]:
    """The answer key with its tests in a form of ours; what it does not know stays, and is refused later.

    It knows `inputs` and `outputs` (APPS, TACO, code_contests), with `fn_name` for calls; lists of `input` and `output`
    (codeforces, LiveCodeBench with its packed private tests); `test` and `test_list` (HumanEval, MBPP,
    LeetCodeDataset); `functional` (rLLM). Each may be JSON text, and stand without `tests` around it.
    """
    options = {name: key[name] for name in _KEY_FIELDS - {"tests"} if name in key}
    rest = {name: value for name, value in key.items() if name not in _KEY_FIELDS}
    if "tests" in key:
        return {**rest, **options, "tests": _read_tests(key["tests"], {})}
    if "type" in rest or {"inputs", "outputs"} <= rest.keys() or "functional" in rest:
        return {**options, "tests": _read_tests(rest, {})}
    if isinstance(rest.get("private_test_cases"), str):
        return {**options, "tests": _read_tests(_join_private(rest), rest)}
    for name in _TEST_FIELDS:
        if name in rest:
            return {**options, "tests": _read_tests(rest[name], rest)}
    return dict(key)


def _join_private(row: Mapping[str, Any]) -> Any:
    """LiveCodeBench's public and private tests; the latter are JSON, or packed."""
    private = _load(row["private_test_cases"])
    if isinstance(private, str):
        private = _load(unpack_tests(private))
    public = row.get("public_test_cases", [])
    public = _load(public) if isinstance(public, str) else public
    return [*public, *private] if isinstance(public, list) and isinstance(private, list) else private


def _read_tests(tests: Any, row: Mapping[str, Any]) -> Any:
    """`row`: the fields beside the tests, which may name the function."""
    if isinstance(tests, str):
        tests = _load(tests)
    if isinstance(tests, str):
        return _code_tests([tests], row)
    if isinstance(tests, Sequence) and tests:
        return _read_list(tests, row)
    if not isinstance(tests, Mapping):
        return tests
    if "functional" in tests:
        return _code_tests([tests["functional"]], row)
    kind = _TYPES.get(str(tests.get("type")), tests.get("type"))
    if "inputs" in tests and "outputs" in tests:
        return _read_columns(tests, kind, row)
    return tests if kind is None else {**tests, "type": kind}


def _load(text: str) -> Any:
    """The JSON value of a text, or the text: code."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read_columns(tests: Mapping[str, Any], kind: str | None, row: Mapping[str, Any]) -> Any:
    known = ("checker", "float_tolerance", "whitespace", "language")
    options = {name: tests[name] for name in known if name in tests}
    name = _find_function(tests) or _find_function(row)
    if kind == "functional" or (kind is None and name):
        return {
            "type": "functional",
            "fn_name": name,
            "inputs": tests["inputs"],
            "outputs": tests["outputs"],
            **options,
        }
    if kind not in (None, "stdio"):
        return tests
    columns = [list(map(_join_lines, tests[column])) for column in ("inputs", "outputs")]
    if len(columns[0]) != len(columns[1]):
        return tests
    cases = [{"input": given, "output": output} for given, output in zip(*columns, strict=True)]
    return {"type": "stdio", "cases": cases, **options}


def _read_list(tests: Sequence[Any], row: Mapping[str, Any]) -> Any:
    if all(isinstance(test, str) for test in tests):
        return _code_tests(list(tests), row)
    if not all(isinstance(test, Mapping) and {"input", "output"} <= test.keys() for test in tests):
        return list(tests)
    kinds = {str(test.get("testtype", test.get("type", ""))) for test in tests}
    name = _find_function(row) or next((found for test in tests if (found := _find_function(test))), None)
    kind = "functional" if kinds == {"functional"} or (name and kinds <= {"function_call", ""}) else "stdio"
    columns = {"inputs": [test["input"] for test in tests], "outputs": [test["output"] for test in tests]}
    return _read_columns({**columns, **({"fn_name": name} if name else {})}, kind, {})


def _find_function(fields: Mapping[str, Any]) -> Any:
    """The name of the function that is called, as sets write it."""
    metadata = fields.get("metadata")
    if isinstance(metadata, str):
        metadata = _load(metadata)
    places = (fields, metadata if isinstance(metadata, Mapping) else {})
    names = (place.get(name) for place in places for name in ("fn_name", "func_name", "entry_point"))
    return next(filter(None, names), None)


def _code_tests(tests: list[Any], row: Mapping[str, Any]) -> dict[str, Any]:
    name = _find_function(row)
    setup = row.get("test_setup_code") or row.get("setup") or ""
    if len(tests) == 1 and name and "def check(" in str(tests[0]) and "\ncheck(" not in str(tests[0]):
        return {"type": "check", "entry_point": name, "test": tests[0], "setup": setup}
    found = {"entry_point": name} if name else {}
    return {"type": "assert", "asserts": tests, "setup": setup, **found}


def _join_lines(value: Any) -> Any:
    """APPS has texts, and lists of lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return value
