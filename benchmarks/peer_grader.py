"""Judges answers by another project's grader, in whatever Python has what that grader imports.

PYTHON benchmarks/peer_grader.py math-verify           <rows.jsonl >verdicts.jsonl
PYTHON benchmarks/peer_grader.py math_equal CHECKOUT   <rows.jsonl >verdicts.jsonl

A row has `gold` and `response`; its verdict has `right` (null: it raised, or took longer than SECONDS) and the
`seconds` of CPU that it and its child processes took. This file imports nothing of this project and copies nothing of
another: the graders are imported from the checkouts that the caller names.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType
from typing import NoReturn

Judge = Callable[[str, str], bool]
SECONDS = 10


def load_math_verify(_: Path) -> Judge:
    math_verify = import_module("math_verify")
    config = [math_verify.LatexExtractionConfig(boxed_match_priority=0), math_verify.ExprExtractionConfig()]
    return lambda gold, response: bool(
        math_verify.verify(math_verify.parse(f"${gold}$", config), math_verify.parse(response, config))
    )


def load_math_equal(checkout: Path) -> Judge:
    """Qwen2.5-Math's evaluation harness."""
    sys.path.insert(0, str(checkout / "evaluation"))
    reading, grader = import_module("parser"), import_module("grader")
    return lambda gold, response: bool(
        grader.math_equal(reading.extract_answer(response, "math"), reading.strip_string(gold), timeout=True)
    )


def load_prime(checkout: Path) -> Judge:
    """verl's reward for PRIME's data."""
    add_package("verl", checkout / "verl")
    add_package("verl.utils", checkout / "verl" / "utils")
    add_package("verl.utils.reward_score", checkout / "verl" / "utils" / "reward_score")
    prime = import_module("verl.utils.reward_score.prime_math")
    return lambda gold, response: bool(prime.compute_score(response, gold)[0])


def load_deepscaler(checkout: Path) -> Judge:
    """The two comparisons of DeepScaleR's reward."""
    add_package("deepscaler", checkout / "deepscaler")
    add_package("deepscaler.rewards", checkout / "deepscaler" / "rewards")
    utils = import_module("deepscaler.rewards.math_utils.utils")

    def judge(gold: str, response: str) -> bool:
        answer = utils.extract_answer(response)
        return answer is not None and bool(
            utils.grade_answer_mathd(answer, gold) or utils.grade_answer_sympy(answer, gold)
        )

    return judge


# The grader's name: the checkout that it is imported from ("": installed), and how it is loaded.
PEERS: dict[str, tuple[str, Callable[[Path], Judge]]] = {
    "math-verify": ("", load_math_verify),
    "math_equal": ("Qwen2.5-Math", load_math_equal),
    "prime": ("verl", load_prime),
    "deepscaler": ("deepscaler", load_deepscaler),
}


def add_package(name: str, folder: Path) -> None:
    """A package whose __init__ is not run: it would import the whole trainer."""
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


def interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise TimeoutError


def judge_or_none(judge: Judge, gold: str, response: str) -> bool | None:
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)  # again each second: graders swallow what they do not know
    try:
        return judge(gold, response)
    except Exception:  # noqa: BLE001 - whatever another's grader raises
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    verdicts = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a grader prints is no verdict
    signal.signal(signal.SIGALRM, interrupt)
    name, *checkout = sys.argv[1:]
    judge = PEERS[name][1](Path(*checkout))
    for line in sys.stdin:
        row = json.loads(line)
        before = cpu_seconds()
        right = judge_or_none(judge, row["gold"], row["response"])
        verdicts.write(json.dumps({"right": right, "seconds": cpu_seconds() - before}) + "\n")


if __name__ == "__main__":
    main()
