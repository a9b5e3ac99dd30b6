"""Runs the cases of a functional script: calls with JSON arguments, results compared as JSON."""

import ast
import json
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

from services.verifier.sandbox.jail.child.judging.checker_runner import load_checker
from services.verifier.sandbox.jail.child.judging.tally import TestTally
from services.verifier.sandbox.jail.child.solution_client import SolutionClient, split_entry_point
from services.verifier.sandbox.judge_script import FunctionalScript

_FINEST = Decimal("1e-9")
_COARSEST = Decimal("1e-5")
_MAX_DEPTH = 200
_NO_VALUE = object()


def run_functional(script: FunctionalScript, solution: SolutionClient, tally: TestTally) -> None:
    """Judges each case. Where the outputs may be read in several ways, one of them must hold for all cases."""
    cases = json.loads(script.cases)
    tally.report.num_tests = len(cases)
    check = load_checker(script.checker) if script.checker else None
    readings = find_readings(cases)
    name, owner = split_entry_point(script.entry_point)

    def run(given: Any, output: Any) -> None:
        try:
            arguments = read_arguments(given)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            solution.refuse(f"the arguments {given[:80]!r} cannot be read: {error}")
        result, first = solution.solve(name, owner, arguments)
        if result is None and any(read(output) is not None for read in readings):
            result = first  # changed in place
        if check is not None:
            is_right = _ask_checker(check, solution, arguments, result, readings[0](output))
        else:
            fitting = [read for read in readings if matches(result, read(output), script.float_tolerance)]
            is_right = bool(fitting)
            readings[:] = fitting or readings
        if not is_right:
            raise AssertionError(f"the result is {_show(result)}")

    for given, output in cases:
        tally.judge(partial(run, given, output))
        if tally.is_over:
            return


def find_readings(cases: list[list[Any]]) -> list[Callable[[Any], Any]]:
    """How the outputs may be meant: JSON texts where the inputs are texts; else values.

    Some sets wrap values in lists of one, others write them as texts.
    """
    if any(isinstance(given, str) for given, _ in cases):
        return [read_output]
    readings: list[Callable[[Any], Any]] = [_with_decimals]
    if all(isinstance(output, list) and len(output) == 1 for _, output in cases):
        readings.append(lambda output: _with_decimals(output[0]))
    if all(isinstance(output, str) for _, output in cases):
        readings.append(read_output)
    return readings


def matches(value: Any, expected: Any, tolerance: float | None = None, depth: int = 0) -> bool:
    """Whether a result is the expected JSON: tuples are lists, and keys of objects are texts.

    A number with a decimal point may differ by `tolerance` (absolute, and relative above 1), else by half of its last
    digit, at most 1e-5 and at least 1e-9 relative.
    """
    if depth > _MAX_DEPTH:
        return False
    if isinstance(expected, Decimal):
        return _is_close(value, expected, tolerance)
    if isinstance(expected, list):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(expected)
            and all(matches(one, other, tolerance, depth + 1) for one, other in zip(value, expected, strict=True))
        )
    if isinstance(expected, dict):
        if not isinstance(value, dict) or len(value) != len(expected):
            return False
        named = {str(key): each for key, each in value.items()}
        return all(matches(named.get(key, _NO_VALUE), each, tolerance, depth + 1) for key, each in expected.items())
    return bool(value == expected)


def read_arguments(given: Any) -> list[Any] | dict[str, Any]:
    """The arguments of a case: a list, named ones, or text: a JSON value a line, or `a = 1, b = [2]`."""
    if not isinstance(given, str):
        return _with_integer_keys(given) if isinstance(given, list) else given
    try:
        return [json.loads(line) for line in given.split("\n") if line.strip()]
    except ValueError:
        return _read_named(given)


def read_output(output: Any) -> Any:
    """The expected result; floats as the decimals that were written."""
    if isinstance(output, str):
        try:
            return json.loads(output, parse_float=Decimal)
        except ValueError:
            return _read_literal(output)
    return _with_decimals(output)


def _read_named(text: str) -> dict[str, Any]:
    call = ast.parse(f"f({text.strip()})", mode="eval").body
    if not isinstance(call, ast.Call) or call.args:
        raise ValueError(f"arguments {text[:80]!r} are neither JSON lines nor names with values")
    return {str(keyword.arg): _value_of(keyword.value) for keyword in call.keywords}


def _read_literal(text: str) -> Any:
    try:
        return _with_decimals(_value_of(ast.parse(text.strip(), mode="eval").body))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _value_of(node: ast.expr) -> Any:
    for each in ast.walk(node):
        for field, child in ast.iter_fields(each):
            if isinstance(child, ast.Name) and child.id in _JSON_NAMES:
                setattr(each, field, ast.Constant(_JSON_NAMES[child.id]))
            elif isinstance(child, list):
                child[:] = [
                    ast.Constant(_JSON_NAMES[item.id])
                    if isinstance(item, ast.Name) and item.id in _JSON_NAMES
                    else item
                    for item in child
                ]
    if isinstance(node, ast.Name) and node.id in _JSON_NAMES:
        return _JSON_NAMES[node.id]
    return ast.literal_eval(node)


_JSON_NAMES = {"null": None, "true": True, "false": False}


def _with_decimals(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, list | tuple):
        return list(map(_with_decimals, value))
    if isinstance(value, dict):
        return {str(key): _with_decimals(each) for key, each in value.items()}
    return value


def _with_integer_keys(arguments: list[Any]) -> list[Any]:
    """Sets of APPS's kind have numbers as keys, which JSON turns into texts."""
    return [
        {int(key): each for key, each in value.items()}
        if isinstance(value, dict) and value and all(key.lstrip("-").isdecimal() for key in value)
        else value
        for value in arguments
    ]


def _is_close(value: Any, expected: Decimal, tolerance: float | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return False
    number = Decimal(value)
    if not (number.is_finite() and expected.is_finite()):
        return str(number) == str(expected)
    scale = max(Decimal(1), abs(expected))
    if tolerance is not None:
        return abs(number - expected) <= Decimal(tolerance) * scale
    half_place = Decimal(5).scaleb(int(expected.as_tuple().exponent) - 1)
    return abs(number - expected) <= min(max(half_place, _FINEST * abs(expected)), _COARSEST * scale)


def _ask_checker(
    check: Callable[..., Any], solution: SolutionClient, arguments: Any, result: Any, expected: Any
) -> bool:
    try:
        return bool(check(arguments, result, expected))
    except AssertionError:
        return False
    except Exception as error:  # noqa: BLE001 - the checker's own failure says nothing about the answer
        solution.refuse(f"the checker failed: {type(error).__name__}: {error}")


def _show(value: Any) -> str:
    try:
        return repr(value)[:200]
    except ValueError:
        return "a number of too many digits"
