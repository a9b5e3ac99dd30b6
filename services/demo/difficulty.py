"""The difficulty of the demo task: lengths, operators and modulus of its expressions."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

ALL_OPERATORS = "+-*"
DEFAULT_MODULUS = 7
MAX_MODULUS = 10  # a residue is one digit, and a digit one token
MAX_LENGTH = 12  # the answers to longer expressions would not fit the model's context


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Expressions of `lengths` numbers (each length equally often), over weighted `operators`, modulo `modulus`.

    The defaults are the task of the demo; the warm start has seen lengths 2 to 5 only.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    lengths: Annotated[tuple[int, ...], "Numbers in an expression, each length as likely"] = (5, 6)
    operators: Annotated[str, "Its operators: some of +-*"] = ALL_OPERATORS
    operator_weights: Annotated[tuple[float, ...], "How often each operator occurs"] = (0.35, 0.25, 0.40)
    modulus: Annotated[int, "All results are modulo this"] = DEFAULT_MODULUS

    def __post_init__(self) -> None:
        if not self.lengths or not all(2 <= length <= MAX_LENGTH for length in self.lengths):
            raise ValueError(f"lengths are one or more numbers in [2, {MAX_LENGTH}]: {self.lengths}")
        if not self.operators or not set(self.operators) <= set(ALL_OPERATORS):
            raise ValueError(f"operators are one or more of {ALL_OPERATORS!r}: {self.operators!r}")
        if len(set(self.operators)) != len(self.operators):
            raise ValueError(f"an operator is named once: {self.operators!r}")
        if len(self.operator_weights) != len(self.operators) or not all(weight > 0 for weight in self.operator_weights):
            raise ValueError(f"operator_weights are {len(self.operators)} positive numbers: {self.operator_weights}")
        if not 2 <= self.modulus <= MAX_MODULUS:
            raise ValueError(f"modulus lies in [2, {MAX_MODULUS}]: {self.modulus}")

    @property
    def max_answer_tokens(self) -> int:
        """Tokens of a complete answer to the longest expression, with one operation per step, EOS included."""
        length = max(self.lengths)
        reduced_tokens = sum(2 * shorter - 1 for shorter in range(1, length))
        blank_lines = length - 1
        boxed_and_eos = 4
        return reduced_tokens + blank_lines + boxed_and_eos
