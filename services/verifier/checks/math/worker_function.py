"""What a worker does with an answer: all that would take long in the service, and math-verify's comparison."""

from typing import Any

from services.verifier.checks.final_answer import FinalAnswer
from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.decision import decide
from services.verifier.checks.math.math_verify_function import are_same
from services.verifier.checks.math.reading.parsed_answer import parse_answer


def judge_answer(gold: str, answer: dict[str, Any]) -> tuple[bool, str, str]:
    """(whether it is right, the rule, the reason) for a FinalAnswer as JSON."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in answer.items()
    }
    decision = decide(parse_answer(gold), FinalAnswer(**fields))
    if decision.equivalence is not Equivalence.UNKNOWN:
        return decision.equivalence is Equivalence.SAME, decision.rule, decision.reason
    try:
        is_same, reason = are_same(gold, decision.text), ""
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - answers make sympy raise anything
        is_same, reason = False, f" {type(error).__name__}: {error}"[:200]
    return is_same, decision.rule, "" if is_same else f"not shown to be the gold{reason}"
