"""Which tokens multiply what stands before them without a sign."""

from fractions import Fraction

from services.verifier.checks.math.reading.cursor import TokenCursor
from services.verifier.checks.math.reading.forms import Apply, Form, Number, Power
from services.verifier.checks.math.reading.tokens import FUNCTION_WORDS, FUNCTIONS, GREEK, JOINTS, TokenKind, is_modulus
from services.verifier.checks.math.reading.units.phrase import is_unit

_HALF = Number(Fraction(1, 2))
_ENDS_OF_ARGUMENTS = frozenset({")", "]", "}", "!", "|", "\\rfloor", "\\rceil"})
_ATOM_COMMANDS = frozenset(
    r"\frac \sqrt \binom \lfloor \lceil \langle \overline \begin \|".split()  # noqa: SIM905
)


def is_factor(cursor: TokenCursor, *, bars_begin: bool) -> bool:
    """Whether the next token is a factor without a sign, as in 2x; bars may begin one."""
    token = cursor.peek()
    if is_modulus(token) or (token.text == "(" and is_modulus(cursor.peek(1))):
        return False
    if cursor.is_at_declaration():
        return False
    if token.kind is TokenKind.WORD:
        return (
            not (is_unit(token.text) and len(token.text) > 1)
            and (len(token.text) <= 3 or token.text in FUNCTION_WORDS)
            and token.text not in JOINTS
        )
    if token.kind is TokenKind.COMMAND:
        name = token.text[1:]
        return name in GREEK or name in FUNCTIONS or token.text in _ATOM_COMMANDS
    return token.kind is TokenKind.SIGN and (token.text in "([{" or (token.text in ("|", "\\|") and bars_begin))


def is_number_factor(cursor: TokenCursor, last: Form) -> bool:
    """Whether the next number multiplies what is before it: (n+1)2^n, 2!3!, 2^3 5, but not x2, (2)3 or 1 2.

    What a function without parentheses takes in is not sure: \\sin x 2^n is none.
    """
    token, before = cursor.peek(), cursor.peek(-1)
    if token.kind is not TokenKind.NUMBER or token.text.startswith("."):
        return False
    is_behind_number = isinstance(last, Number) and before.kind is TokenKind.NUMBER
    is_open_function = isinstance(last, Apply) and before.text not in _ENDS_OF_ARGUMENTS
    if is_behind_number or is_open_function or before.text == "/":
        return False
    if cursor.peek(1).text in ("^", "!"):
        return True
    return isinstance(last, Power) and last.exponent != _HALF and (token.after_space or before.text == "}")
