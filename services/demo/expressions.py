"""Arithmetic expressions over residues: generates, parses, renders, reduces and evaluates them."""

import random
import re
from dataclasses import dataclass

from services.demo.difficulty import ALL_OPERATORS, Difficulty
from shared.errors import InvalidInput

_WRITTEN = re.compile(r"\d(?:[-+*]\d)*")


@dataclass(frozen=True, slots=True)
class Expression:
    """Numbers joined by operators: `operators[i]` stands between `numbers[i]` and `numbers[i + 1]`."""

    numbers: tuple[int, ...]
    operators: str

    def __post_init__(self) -> None:
        if len(self.numbers) != len(self.operators) + 1:
            raise ValueError(f"{len(self.operators)} operators join one number more: {self.numbers}")
        if not all(0 <= number <= 9 for number in self.numbers):
            raise ValueError(f"numbers are single digits: {self.numbers}")
        if not set(self.operators) <= set(ALL_OPERATORS):
            raise ValueError(f"operators are among {ALL_OPERATORS!r}: {self.operators!r}")

    @property
    def length(self) -> int:
        return len(self.numbers)


def generate(rng: random.Random, difficulty: Difficulty) -> Expression:
    length = rng.choice(difficulty.lengths)
    numbers = tuple(rng.randrange(difficulty.modulus) for _ in range(length))
    operators = rng.choices(difficulty.operators, difficulty.operator_weights, k=length - 1)
    return Expression(numbers, "".join(operators))


def render(expression: Expression) -> str:
    """The expression as text: `2+3*4`."""
    rest = (
        f"{operator}{number}" for operator, number in zip(expression.operators, expression.numbers[1:], strict=True)
    )
    return str(expression.numbers[0]) + "".join(rest)


def prompt_of(expression: Expression) -> str:
    """The prompt for the model: `2+3*4=`."""
    return render(expression) + "="


def parse(text: str, modulus: int) -> Expression:
    """The inverse of `render`. InvalidInput for other text and for digits beyond the modulus."""
    if not _WRITTEN.fullmatch(text) or not text.isascii():
        raise InvalidInput(f"not an expression: {text!r}; write single digits joined by + - *, such as 2+3*4")
    numbers = tuple(int(digit) for digit in text[::2])
    if max(numbers) >= modulus:
        raise InvalidInput(f"{text!r} holds {max(numbers)}; modulo {modulus} the digits are 0 to {modulus - 1}")
    return Expression(numbers, text[1::2])


def valid_redexes(expression: Expression) -> tuple[int, ...]:
    """Positions of the operators that may be carried out first without changing the value."""
    return tuple(position for position in range(len(expression.operators)) if _is_valid(expression, position))


def invalid_redexes(expression: Expression) -> tuple[int, ...]:
    """Positions of the others: precedence, or a minus to their left, forbids to carry them out first."""
    return tuple(position for position in range(len(expression.operators)) if not _is_valid(expression, position))


def _is_valid(expression: Expression, position: int) -> bool:
    operators = expression.operators
    if operators[position] == "*":
        return True
    follows_plus = position == 0 or operators[position - 1] == "+"
    precedes_times = position + 1 < len(operators) and operators[position + 1] == "*"
    return follows_plus and not precedes_times


def result_at(expression: Expression, position: int, modulus: int) -> int:
    """The residue that the operation at `position` gives."""
    left, right = expression.numbers[position : position + 2]
    match expression.operators[position]:
        case "+":
            return (left + right) % modulus
        case "-":
            return (left - right) % modulus
        case _:
            return (left * right) % modulus


def reduce_at(expression: Expression, position: int, result: int) -> Expression:
    """The expression with `result` in place of the operation at `position`."""
    numbers, operators = expression.numbers, expression.operators
    return Expression(
        (*numbers[:position], result, *numbers[position + 2 :]), operators[:position] + operators[position + 1 :]
    )


def evaluate(expression: Expression, modulus: int) -> int:
    """The value, by one valid operation after another."""
    while expression.operators:
        position = valid_redexes(expression)[0]
        expression = reduce_at(expression, position, result_at(expression, position, modulus))
    return expression.numbers[0] % modulus
