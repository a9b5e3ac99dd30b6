"""Runs a checker, which decides whether an output is right where several are."""

import builtins
import io
import sys
import types
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from services.verifier.sandbox.judge_script import CheckerScript, JudgeReport

_FILES = ("input.txt", "output.txt", "expected.txt")
# How a checker says right and wrong by its exit code, as those of contests do.
_RIGHT, _WRONG = (0, None), (1, 2)
_UNSUPPORTED = "UnsupportedTest"


def load_checker(source: str) -> Callable[..., Any]:
    """The function `check` that the source defines."""
    check = _make_module("checker", source)["check"]
    if not callable(check):
        raise TypeError("the checker's `check` is no function")
    return check  # type: ignore[no-any-return]


def run_checker(script: CheckerScript) -> JudgeReport:
    """Judges one output. What is no verdict of the checker's is a test that cannot be run."""
    try:
        is_right = _ask(script)
    except AssertionError as error:
        return _report("AssertionError", str(error))
    except BaseException as error:  # noqa: BLE001 - its own failure says nothing about the answer
        return _report(_UNSUPPORTED, f"the checker failed: {type(error).__name__}: {error}")
    return _report("" if is_right else "AssertionError", "" if is_right else "the checker refuses the output")


def _report(failure: str, message: str) -> JudgeReport:
    return JudgeReport(1, int(not failure), 1, True, failure, message[:500])


def _ask(script: CheckerScript) -> bool:
    """By `check(input, output, expected)` if it defines that; else as a program with three files, by its exit code."""
    texts = (script.input, script.output, script.expected)
    _serve_files(dict(zip(_FILES, texts, strict=True)))
    sys.argv = ["checker", *_FILES]
    sys.stdin = io.StringIO(script.output)
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            names = _make_module("__main__" if "__main__" in script.source else "checker", script.source)
            if callable(names.get("check")):
                return bool(names["check"](*texts))
    except SystemExit as end:
        if end.code in _RIGHT:
            return True
        if end.code in _WRONG:
            return False
        raise
    raise RuntimeError("it neither defines check(input, output, expected) nor ends with exit code 0 or 1")


def _make_module(name: str, source: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, "<checker>", "exec", dont_inherit=True, optimize=0), module.__dict__)  # noqa: S102 - the purpose
    return module.__dict__


def _serve_files(text_of_file: dict[str, str]) -> None:
    """Lets `open` read these texts; there are no other files in the jail."""
    true_open = builtins.open

    def open_text(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if str(file) not in text_of_file or set(mode) & set("wax+"):
            return true_open(file, mode, *arguments, **options)
        text = text_of_file[str(file)]
        return io.BytesIO(text.encode("utf-8", "surrogateescape")) if "b" in mode else io.StringIO(text)

    builtins.open = io.open = open_text
